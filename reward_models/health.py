"""Log health: whether a log can be believed, said before any number is made of it.

What off-policy estimates and lift take for granted can be looked up in the log, and breaks in practice: the most
common fault of experiments is that the groups are not what was dealt (Fabijan et al. 2019).

    check          what must hold                                                            refused where it does not
    probabilities  add up to 1; nothing impossible was played                                any row
    holdout        units held out ~ their chance: χ² = (observed − expected)²/Σ h(1 − h)     p < 0.0005
    contents       shown − Σ b is a martingale: z = (shown − Σ b)/√Σ b(1 − b) per content    p < 0.0005, all together
    weights        those of drawing evenly average 1, by the same martingale                 p < 0.0005
    activation     as often for every content of a campaign on the same day                  p < 0.0005 and 5 points
    join           events that name a decision find it                                       less than 80 %
    bots           are labelled, and few                                                     more than half

A χ² on the counts of a bandit always fires, because its shares are meant to move; b is what each decision was drawn
with, known before the draw, so that the martingale's z holds under any policy. Rates per content are compared within
campaign and day (Cochran 1954). Shares of events that are not used and of decisions that are not mature are shown per
content, and so are bots: they differ for good reasons, and refuse nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Literal

from sqlalchemy import Connection

from infra.errors import EstimateRefused
from ingestion.loops import LoopDefinition
from reward_models.tallies import Counted, Draws, Key, Tallies, tally

State = Literal["fine", "look", "refused", "none"]
"""look: to be looked at, not refused; none: nothing to check."""

LEAST_P = 0.0005
"""Below this a ratio of groups is no chance: the threshold in use at Microsoft (Fabijan et al. 2019, section 4)."""
LEAST_FOUND = 0.8
"""Share of the events naming a decision that must find it."""
MOST_BOTS = 0.5
MANY_BOTS = 0.2
"""Above it: look."""
LEAST_USED = 0.5
"""Share of a loop's events that count; below it: look."""
NOTICEABLE = 0.05
"""A difference of rates that matters, however many rows make it significant."""
_ENOUGH = 5.0
"""Least variance of a count for its z to be normal."""


@dataclass(frozen=True)
class Check:
    """One line of the report. ``value``: a p value, a rate, or a number of rows."""

    name: str
    state: State
    value: float | None
    sentence: str


@dataclass(frozen=True)
class ContentHealth:
    """Rates of one content; None where there is nothing to divide by. ``z``: shown against expected."""

    campaign_id: str
    content_id: str
    decisions: int
    z: float | None
    activation: float | None
    join: float | None
    """Of its events that are no bot's, those that are used."""
    bot: float | None
    unmatured: float | None


@dataclass(frozen=True)
class Health:
    """The report. ``refused``: why no number should be made of this log, in a sentence; None: it may."""

    loop_id: str
    decisions: int
    units: int
    checks: tuple[Check, ...]
    contents: tuple[ContentHealth, ...]

    @property
    def refused(self) -> str | None:
        """The sentences of what is refused."""
        reasons = [check.sentence for check in self.checks if check.state == "refused"]
        return f"The log is not healthy: {' '.join(reasons)}" if reasons else None

    def insist(self) -> None:
        """Raises :class:`EstimateRefused` for a log that cannot be believed."""
        if self.refused:
            raise EstimateRefused(self.refused)


def examine(
    connection: Connection,
    definition: LoopDefinition,
    *,
    as_of: int,
    now: int,
    since: int | None = None,
    before: int | None = None,
) -> Health:
    """The health of a loop's log: decisions with since ≤ decided_at < before, as of batch ``as_of``, at ``now``."""
    return report(definition.loop, tally(connection, definition, as_of=as_of, now=now, since=since, before=before))


def report(loop_id: str, found: Tallies) -> Health:
    """The report of what was counted."""
    checks = (_probabilities, _holdout, _contents, _weights, _activation, _join, _bots, _used, _known)
    return Health(loop_id, found.decisions, len(found.units), tuple(each(found) for each in checks), _table(found))


def _probabilities(found: Tallies) -> Check:
    if found.broken:
        return Check(
            "probabilities",
            "refused",
            float(found.broken),
            f"{found.broken:,} of {found.decisions:,} decisions have probabilities that do not add up to 1, or played "
            "what they say was impossible; correct what writes them.",
        )
    state: State = "fine" if found.drawn else "none"
    return Check("probabilities", state, 0.0, f"{found.drawn:,} decisions were drawn with known probabilities.")


def _holdout(found: Tallies) -> Check:
    chances = [(held, chance) for held, chance in found.units.values() if 0.0 < chance < 1.0]
    held, expected = sum(held for held, _ in chances), sum(chance for _, chance in chances)
    variance = sum(chance * (1.0 - chance) for _, chance in chances)
    if variance < _ENOUGH:
        return Check("holdout", "none", None, "No holdout to compare with.")
    p = p_value((held - expected) / sqrt(variance))
    said = f"{held:,} of {len(chances):,} units are held out where {expected:,.0f} were expected (p = {p:.2g})"
    if p < LEAST_P:
        return Check("holdout", "refused", p, f"{said}: units are lost or dealt wrongly; find out which, and where.")
    return Check("holdout", "fine", p, f"{said}.")


def _contents(found: Tallies) -> Check:
    tested = {key: _z(draws) for key, draws in found.draws.items() if draws.variance >= _ENOUGH}
    if not tested:
        return Check("contents", "none", None, "No content was drawn often enough to compare with its probability.")
    (campaign_id, content_id), z = max(tested.items(), key=lambda item: abs(item[1]))
    p = min(1.0, len(tested) * p_value(z))
    draws = found.draws[campaign_id, content_id]
    said = f"{content_id} was shown {draws.shown:,.0f} times where {draws.expected:,.0f} were expected"
    if p < LEAST_P:
        return Check("contents", "refused", p, f"{said} (p = {p:.2g}): what was shown is not what was drawn.")
    return Check("contents", "fine", p, f"Shown as drawn; furthest off, {said} (p = {p:.2g}).")


def _weights(found: Tallies) -> Check:
    total, squares, variance = found.weight.tolist()
    if not found.drawn or variance < _ENOUGH:
        return Check("weights", "none", None, "No weights to add up.")
    p = p_value((total - found.drawn) / sqrt(variance))
    said = f"weights of drawing evenly average {total / found.drawn:.3f} where 1 is expected (p = {p:.2g})"
    if p < LEAST_P:
        return Check("weights", "refused", p, f"The {said}: the stored probabilities are not those that drew.")
    size = total**2 / squares
    return Check("weights", "fine", p, f"The {said}; the least is {found.least:.3g}, the effective size {size:,.0f}.")


def _activation(found: Tallies) -> Check:
    tested = compared(found.activated)
    share = found.activated.share
    if share is None:
        return Check("activation", "none", None, "No decision waits for an activation.")
    off = [(p, key) for key, (p, gap) in tested.items() if p * len(tested) < LEAST_P and abs(gap) > NOTICEABLE]
    said = f"{share:.1%} of the deferred decisions were activated"
    if off:
        _, (campaign_id, content_id) = min(off)
        gap = tested[campaign_id, content_id][1]
        return Check(
            "activation",
            "refused",
            share,
            f"{said}, and {content_id} {100 * gap:+.1f} points off its campaign's others on the same days: who is "
            "counted depends on what was chosen.",
        )
    return Check("activation", "fine", share, f"{said}, alike for all contents.")


def _join(found: Tallies) -> Check:
    if not found.named:
        return Check("join", "none", None, "No event names its decision.")
    share = 1.0 - found.strays / found.named
    said = f"{share:.1%} of {found.named:,} events that name a decision find it"
    if share < LEAST_FOUND:
        return Check("join", "refused", share, f"{said}; {LEAST_FOUND:.0%} are needed: decisions are missing.")
    return Check("join", "fine", share, f"{said}.")


def _bots(found: Tallies) -> Check:
    share = found.bots.share
    if share is None:
        return Check("bots", "none", None, "No event belongs to these decisions.")
    said = f"{share:.1%} of the events are labelled as a bot's or a test's"
    if share > MOST_BOTS:
        return Check("bots", "refused", share, f"{said}: what is left is what the labels missed.")
    return Check("bots", "look" if share > MANY_BOTS else "fine", share, f"{said} and left out.")


def _used(found: Tallies) -> Check:
    share = found.used.share
    if share is None:
        return Check("used", "none", None, "No event belongs to these decisions.")
    said = (
        f"{share:.1%} of the other events count; the rest is outside its window, of another currency or reported twice"
    )
    return Check("used", "look" if share < LEAST_USED else "fine", share, f"{said}.")


def _known(found: Tallies) -> Check:
    share = found.unknown / found.decisions if found.decisions else None
    if not share:
        return Check("unknown", "fine" if found.decisions else "none", share, "Every propensity is known.")
    said = f"{share:.1%} of the decisions have no known propensity and are left out of estimates"
    return Check("unknown", "look", share, f"{said}.")


def compared(counted: Counted) -> dict[tuple[str, str], tuple[float, float]]:
    """p value and difference of rates of each content against the others of its campaign, day by day.

    Per day a content's part is hypergeometric given the totals; differences and variances are added up (Cochran's
    test, 1954, as Mantel & Haenszel have it). Contents without variance are left out.
    """
    totals: dict[tuple[str, int], list[int]] = {}
    for key, whole in counted.whole.items():
        total = totals.setdefault((key.campaign_id, key.day), [0, 0])
        total[0] += counted.part[key]
        total[1] += whole
    sums: dict[tuple[str, str], list[float]] = {}
    for key, whole in counted.whole.items():
        part, size = totals[key.campaign_id, key.day]
        others = size - whole
        if not others:
            continue
        found = sums.setdefault(key[:2], [0.0, 0.0, 0.0])
        found[0] += counted.part[key] - whole * part / size
        found[1] += whole * others * part * (size - part) / (size**2 * (size - 1))
        found[2] += whole * others / size
    return {key: (p_value(off / sqrt(var)), off / weight) for key, (off, var, weight) in sums.items() if var >= _ENOUGH}


def p_value(z: float) -> float:
    """Of a standard normal, two-sided."""
    return erfc(abs(z) / sqrt(2.0))


def _z(draws: Draws) -> float:
    return (draws.shown - draws.expected) / sqrt(draws.variance)


def _table(found: Tallies) -> tuple[ContentHealth, ...]:
    rates = [_rates(counted) for counted in (found.activated, found.used, found.bots, found.waiting)]
    keys = sorted({*found.shown, *found.draws})
    return tuple(
        ContentHealth(*key, found.shown.get(key, 0), _drawn(found, key), *(r(key) for r in rates)) for key in keys
    )


def _drawn(found: Tallies, key: tuple[str, str]) -> float | None:
    draws = found.draws.get(key)
    return _z(draws) if draws and draws.variance > 0.0 else None


def _rates(counted: Counted) -> Callable[[tuple[str, str]], float | None]:
    part, whole = _by_content(counted.part.items()), _by_content(counted.whole.items())
    return lambda key: part[key] / whole[key] if whole.get(key) else None


def _by_content(counts: Iterable[tuple[Key, int]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for key, count in counts:
        found[key[:2]] = found.get(key[:2], 0) + count
    return found
