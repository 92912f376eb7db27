"""What the holdout says of a loop today: lift per metric, guardrails, fading copy, clickbait.

    measure(connection, definition, version, now) -> LiftReport

A lift is per customer and lift window. Money is shown twice: as it came, and capped (as its metric says, else at a
quantile of the first customers' totals), because one large order can carry a lift or hide it. Beside every lift stand
the smallest effect that so many customers can show and the time until a decision, at the pace at which customers came.
"""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from infra.clock import DAY
from infra.errors import EstimateRefused
from ingestion.fields import DOCUMENTED
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from reward_models.assignment import Matured, Register, load_register
from reward_models.clickbait import Clickbait, find_clickbait, metric_pair
from reward_models.dataset import TrainingSet
from reward_models.guardrails import Guarded, watch
from reward_models.lift import RunningLift, lift_so_far, winsorised
from reward_models.loading import load_training_set
from reward_models.novelty import Fading, fading
from reward_models.sequences import Dealt, Floats, ready


@dataclass(frozen=True)
class Measured:
    """The lift of one metric."""

    __pydantic_config__ = DOCUMENTED

    metric: str
    """The metric."""
    sentence: str
    """The finding in words."""
    lift: RunningLift | None
    """The numbers; None before the first look that counts."""
    capped: float | None = None
    """The most that a customer, or decision, counts for; None: as it came."""
    days_to_decision: float | None = None
    """Until the interval excludes 0 if the lift stays what it is; 0 if it does, None if not in sight."""
    days_to_worthwhile: float | None = None
    """Until a lift just large enough to matter would be decided with 80 % probability."""


@dataclass(frozen=True)
class LiftReport:
    """What a loop earns against its holdout, and what warns of it."""

    __pydantic_config__ = DOCUMENTED

    loop: str
    """The loop."""
    customers: int
    """Customers who are mature and were dealt by chance."""
    waiting: int
    """Customers who are not mature yet."""
    not_dealt: int
    """Customers who had no chance of the other group, or an unknown one."""
    per_day: float
    """Customers who came per day."""
    lifts: tuple[Measured, ...]
    """The lift of every metric."""
    guardrails: tuple[Guarded, ...]
    """How every guardrail stands."""
    fading: Fading | None
    """Lift by the age of the copy; None where it cannot be told."""
    fading_sentence: str
    """What is to be said of it."""
    clickbait: tuple[Clickbait, ...]
    """Contents that draw clicks without what they are for."""
    whole_loop_clickbait: str | None
    """Set where the loop as a whole wins clicks and loses purchases."""

    @property
    def breached(self) -> bool:
        """Whether a guardrail is."""
        return any(guard.state == "breached" for guard in self.guardrails)


def measure(connection: Connection, definition: LoopDefinition, version: int, now: int) -> LiftReport:
    """The report at ``now`` (microseconds), on the units that the loop's lift settings count."""
    register = load_register(connection, definition, definition.lift.since or 0)
    matured = register.matured(definition, definition.lift_window, now)
    units = matured.by_chance()
    pace = customers_per_day(units)
    lifts = tuple(one for metric in definition.metrics for one in _of_metric(units, metric, definition, pace))
    training = load_training_set(connection, definition, version, as_of=newest_batch(connection), now=now)
    fade, sentence = _fading(training, definition)
    return LiftReport(
        loop=definition.loop,
        customers=len(units),
        waiting=matured.waiting,
        not_dealt=len(matured) - len(units),
        per_day=pace,
        lifts=lifts,
        guardrails=guard_all(register, definition, now),
        fading=fade,
        fading_sentence=sentence,
        clickbait=find_clickbait(training, definition, definition.lift),
        whole_loop_clickbait=_whole_loop(lifts, definition),
    )


def guard_all(register: Register, definition: LoopDefinition, now: int) -> tuple[Guarded, ...]:
    """Every guardrail of the loop, each over its metric's own window."""
    return tuple(
        watch(
            register.matured(definition, definition.metric(guardrail.metric).window, now).by_chance(),
            guardrail,
            definition.lift,
        )
        for guardrail in definition.guardrails
    )


def customers_per_day(units: Matured) -> float:
    """Pace at which the matured units came: all but the first, over the time from first to last; 0 if unknown."""
    if len(units) < 2 or units.first_at[-1] == units.first_at[0]:
        return 0.0
    return float((len(units) - 1) * DAY / (units.first_at[-1] - units.first_at[0]))


def _of_metric(units: Matured, metric: Metric, definition: LoopDefinition, pace: float) -> list[Measured]:
    """As it came, and capped where single values can be large; once where there is nothing to say yet."""
    if metric.aggregate in ("any", "count"):
        return [_measured(units.dealt(units.values[metric.name]), metric, definition, pace)]
    whole = units.dealt(units.uncapped[metric.name])
    total, cap = _capped(units, metric, whole, definition)
    found = _measured(whole, metric, definition, pace)
    if cap is None or found.lift is None:
        return [found]
    return [found, _measured(units.dealt(total), metric, definition, pace, cap)]


def _capped(units: Matured, metric: Metric, whole: Dealt, definition: LoopDefinition) -> tuple[Floats, float | None]:
    if metric.cap is not None:
        return units.values[metric.name], metric.cap
    looks = ready(whole, definition.lift.min_units, definition.lift.min_responses)
    return winsorised(whole.total, int(np.argmax(looks)) + 1 if looks.any() else len(looks))


def _measured(
    dealt: Dealt, metric: Metric, definition: LoopDefinition, pace: float, capped: float | None = None
) -> Measured:
    try:
        found = lift_so_far(dealt, definition.lift)
    except EstimateRefused as error:
        return Measured(metric.name, f"{metric.name}: {error}.", None, capped)
    days, worthwhile = (_days(more, pace) for more in (found.more_units, found.more_units_worthwhile))
    return Measured(metric.name, _sentence(metric, found, days, capped), found, capped, days, worthwhile)


def _days(more: int | None, pace: float) -> float | None:
    if more is None or (more and not pace):
        return None
    return more / pace if more else 0.0


def _fading(training: TrainingSet, definition: LoopDefinition) -> tuple[Fading | None, str]:
    try:
        found = fading(training, definition.lift)
    except EstimateRefused as error:
        return None, f"{error}."
    return found, found.sentence


def _whole_loop(lifts: tuple[Measured, ...], definition: LoopDefinition) -> str | None:
    pair = metric_pair(definition)
    standing = {each.metric: each.lift.standing for each in reversed(lifts) if each.lift is not None}
    if pair is None or standing.get(pair[0]) != "better" or standing.get(pair[1]) != "worse":
        return None
    return f"The loop wins {pair[0]} and loses {pair[1]}: weigh {pair[1]} in its reward."


def _sentence(metric: Metric, found: RunningLift, days: float | None, capped: float | None) -> str:
    unit = f" {metric.currency}" if metric.currency else ""
    low, high = (f"{1000.0 * end:+,.4g}{unit}" for end in (found.low, found.high))
    name = metric.name if capped is None else f"{metric.name}, capped at {capped:,.4g}{unit}"
    verdict = {
        "better": "treatment is clearly better",
        "worse": "treatment is clearly worse",
        "negligible": "any lift is too small to matter",
        "open": "not decided yet",
    }[found.standing]
    ahead = "" if found.standing != "open" else f"; {_ahead(days)}"
    return f"{name}: {verdict}, between {low} and {high} per 1,000 customers{ahead}."


def _ahead(days: float | None) -> str:
    if days is None:
        return "at this lift no decision is in sight"
    return f"if it stays like this, about {max(days, 1.0):,.0f} more days"
