"""Log health: what is broken is refused, what only looks uneven is not, and every count is the log's."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from scipy import stats
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import reading, writing
from infra.errors import EstimateRefused
from infra.randomness import SAMPLER
from infra.secrets import Secrets
from ingestion.events import Batch, Campaign, Candidate, Content, Decision, Event, Label, Placement
from ingestion.loops import put_loop
from ingestion.store import apply
from reward_models.gate import judge
from reward_models.health import Check, Health, compared, examine, report
from reward_models.tallies import Counted, Draws, Key, Tallies
from tests.pipelines.worlds import NOW, definition

RULES = definition()
EVEN = (0.5, 0.5)


def check(health: Health, name: str) -> Check:
    """The check of that name."""
    return next(one for one in health.checks if one.name == name)


def state(found: Tallies, name: str) -> str:
    """How one check ends."""
    return check(report("loop", found), name).state


def drawn(probabilities: np.ndarray, chosen: np.ndarray) -> Tallies:
    """Tallies of decisions drawn from (n, k) probabilities."""
    shown = np.bincount(chosen, minlength=probabilities.shape[1])
    expected, variance = probabilities.sum(axis=0), (probabilities * (1 - probabilities)).sum(axis=0)
    draws = {
        ("c", str(place)): Draws(*numbers) for place, numbers in enumerate(zip(shown, expected, variance, strict=True))
    }
    return Tallies(decisions=len(chosen), drawn=len(chosen), draws=draws)


def bandit(generator: np.random.Generator, rounds: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and choices of a policy that shows more of what it has shown: as uneven as a bandit gets."""
    counts, probabilities, chosen = np.ones(3), np.empty((rounds, 3)), np.empty(rounds, dtype=int)
    for row in range(rounds):
        probabilities[row] = 0.05 + 0.85 * counts / counts.sum()
        chosen[row] = generator.choice(3, p=probabilities[row])
        counts[chosen[row]] += 1
    return probabilities, chosen


def test_the_holdout_is_compared_with_its_chance() -> None:
    """The p value is that of a χ² on units with their own chances; half of a holdout lost is refused."""
    units = {f"u{number}": (number < 70, 0.05 if number % 2 else 0.15) for number in range(1_000)}
    found = check(report("loop", Tallies(units=units)), "holdout")
    chi_square = (70 - 100) ** 2 / (500 * 0.05 * 0.95 + 500 * 0.15 * 0.85)

    assert found.state == "fine"
    assert found.value == pytest.approx(stats.chi2.sf(chi_square, 1))
    assert state(Tallies(units={name: (number < 50, 0.1) for number, name in enumerate(units)}), "holdout") == "refused"


def test_a_bandit_is_not_taken_for_a_fault() -> None:
    """Under a policy that learns the counts are wildly uneven, and z holds: of 300 healthy logs none is refused."""
    generator = np.random.default_rng(7)
    logs = [bandit(generator, 200) for _ in range(300)]
    uneven = [stats.chisquare(np.bincount(chosen, minlength=3)).pvalue < 0.0005 for _, chosen in logs]

    assert np.mean(uneven) > 0.5
    assert [state(drawn(*log), "contents") for log in logs].count("refused") == 0


def test_rows_that_were_lost_are_found() -> None:
    """A fifth of one content's decisions lost: what is left is not what was drawn."""
    generator = np.random.default_rng(7)
    probabilities, chosen = bandit(generator, 4_000)
    kept = (chosen != 0) | (generator.random(4_000) > 0.2)

    assert state(drawn(probabilities, chosen), "contents") == "fine"
    assert state(drawn(probabilities[kept], chosen[kept]), "contents") == "refused"


def test_activation_is_compared_on_the_same_day() -> None:
    """A new content shown on days of few activations is fine; one that activates less than the other is refused."""
    late, worse = Counted(), Counted()
    for day, (rate, shares) in enumerate(((0.9, (900, 100)), (0.3, (100, 900)))):
        for content_id, shown in zip("ab", shares, strict=True):
            late.add(Key("c", content_id, day), int(rate * shown), shown)
            worse.add(Key("c", content_id, day), int(rate * shown * (0.7 if content_id == "b" else 1.0)), shown)

    assert state(Tallies(activated=late), "activation") == "fine"
    assert state(Tallies(activated=worse), "activation") == "refused"


def test_rates_are_compared_as_cochran_does() -> None:
    """One day of two contents is the hypergeometric comparison of two rates."""
    counted = Counted()
    counted.add(Key("c", "a", 0), 30, 100)
    counted.add(Key("c", "b", 0), 50, 100)
    p, gap = compared(counted)["c", "a"]
    variance = 100 * 100 * 80 * 120 / (200**2 * 199)

    assert gap == pytest.approx(-0.2)
    assert p == pytest.approx(2 * stats.norm.sf(10 / np.sqrt(variance)))


@pytest.mark.parametrize(
    ("found", "name", "expected"),
    [
        (Tallies(named=100, strays=21), "join", "refused"),
        (Tallies(named=100, strays=19), "join", "fine"),
        (Tallies(bots=Counted({Key("c", "a", 0): 51}, {Key("c", "a", 0): 100})), "bots", "refused"),
        (Tallies(bots=Counted({Key("c", "a", 0): 30}, {Key("c", "a", 0): 100})), "bots", "look"),
        (Tallies(used=Counted({Key("c", "a", 0): 30}, {Key("c", "a", 0): 100})), "used", "look"),
        (Tallies(decisions=10, unknown=1), "unknown", "look"),
        (Tallies(decisions=10, broken=1), "probabilities", "refused"),
        (Tallies(drawn=1_000, weight=np.array([1_200.0, 2e3, 1e3])), "weights", "refused"),
        (Tallies(drawn=1_000, weight=np.array([1_050.0, 2e3, 1e3])), "weights", "fine"),
        (Tallies(), "holdout", "none"),
    ],
)
def test_floors(found: Tallies, name: str, expected: str) -> None:
    """Each check has its floor, and nothing to check is said to be that."""
    assert state(found, name) == expected


def decision(number: int, shown: str, at: int, **changes: object) -> Decision:
    """A decision between contents a and b, evenly drawn unless it is changed."""
    document = {
        "decision_id": f"d{number}",
        "request_digest": "0",
        "loop_id": RULES.loop,
        "loop_version": 1,
        "campaign_id": "spring",
        "unit": f"u1:{number:032x}",
        "context": {},
        "group": "treatment",
        "learning_mode": "online",
        "candidates": candidates(EVEN),
        "chosen": (Placement(position=1, content_id=shown, propensity=0.5),),
        "policy_version": "uniform",
        "sampler": SAMPLER,
        "floor": 0.1,
        "constraints": {"slots": 1, "holdout": 0.1},
        "seed": "00",
        "decided_at": at,
    }
    return Decision(**(document | changes))  # type: ignore[arg-type]


def candidates(probabilities: Sequence[float | None]) -> tuple[Candidate, ...]:
    """Contents a and b with these probabilities."""
    return tuple(
        Candidate(content_id=name, policy_p=p, behaviour_p=p) for name, p in zip("ab", probabilities, strict=True)
    )


def click(number: int, of: str, at: int) -> Event:
    """A click that names its decision."""
    return Event(
        source="http",
        event_id=f"e{number}",
        type="click",
        decision_id=of,
        link="decision_id",
        occurred_at=at,
        received_at=at,
    )


def stored(engine: Engine, secrets: Secrets, decisions: Sequence[Decision], events: Sequence[Event] = ()) -> None:
    """These facts in the database, and labels on the events e90 to e99."""
    with writing(engine) as connection:
        put_loop(connection, RULES, NOW - 100 * DAY)
    contents = tuple(Content(content_id=name, campaign_id="spring", slots={"subject": name}) for name in "ab")
    apply(
        engine, Batch(campaigns=(Campaign(campaign_id="spring", loop_id=RULES.loop),), contents=contents), secrets, NOW
    )
    labels = [Label(source="http", event_id=one.event_id, label="bot", labelled_at=NOW) for one in events]
    marked = tuple(label for label in labels if label.event_id.startswith("e9"))
    apply(engine, Batch(decisions=tuple(decisions), events=tuple(events), labels=marked), secrets, NOW)


def examined(engine: Engine, since: int | None = None) -> Health:
    """The health of what is stored."""
    with reading(engine) as connection:
        return examine(connection, RULES, as_of=99, now=NOW, since=since)


def test_every_count_is_the_log_s(any_engine: Engine, secrets: Secrets) -> None:
    """Shown, activated, used, labelled, not mature and stray: a small log gives the rates counted by hand."""
    old, new = NOW - 3 * DAY, NOW - HOUR
    decisions = [decision(number, "ab"[number % 2], old, deferred=number < 4) for number in range(8)]
    decisions.append(decision(8, "a", new))
    activations = [
        msgspec.structs.replace(click(50 + number, f"d{number}", old + HOUR), type="activation") for number in (0, 1, 2)
    ]
    clicks = [
        click(1, "d4", old + HOUR),
        click(2, "d6", old + 2 * DAY),
        click(91, "d6", old + HOUR),
        click(3, "d5", old + HOUR),
        click(4, "nobody", old + HOUR),
    ]
    stored(any_engine, secrets, decisions, [*activations, *clicks])
    health = examined(any_engine)
    a, b = health.contents

    assert (health.decisions, health.units, health.refused) == (9, 9, None)
    assert (a.decisions, a.activation, a.join, a.bot, a.unmatured) == (5, 1.0, 0.5, 1 / 3, 0.2)
    assert (b.decisions, b.activation, b.join, b.bot, b.unmatured) == (4, 0.5, 1.0, 0.0, 0.0)
    assert a.z == pytest.approx((5 - 4.5) / 1.5)
    assert check(health, "join").value == pytest.approx(1 - 1 / 5)


def test_only_decisions_of_the_window_are_examined(engine: Engine, secrets: Secrets) -> None:
    """A broken decision before the window does not matter to it."""
    broken = decision(1, "a", NOW - 9 * DAY, candidates=candidates((0.5, 0.7)))
    stored(engine, secrets, [broken, decision(2, "b", NOW - 2 * DAY)])

    assert check(examined(engine), "probabilities").state == "refused"
    assert examined(engine, since=NOW - 3 * DAY).refused is None


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": candidates((0.5, 0.7))},
        {"candidates": candidates((0.4, 0.6))},
        {"chosen": (Placement(position=1, content_id="a", propensity=0.0),)},
    ],
    ids=["do not add up", "another propensity", "impossible"],
)
def test_wrong_probabilities_are_refused(engine: Engine, secrets: Secrets, changes: dict[str, object]) -> None:
    """Probabilities that do not add up, disagree with what was played, or say it was impossible: no number is made."""
    stored(engine, secrets, [decision(1, "a", NOW - 2 * DAY, **changes)])
    health = examined(engine)

    assert check(health, "probabilities").value == 1.0
    with pytest.raises(EstimateRefused, match="not healthy: 1 of 1 decisions have probabilities"):
        health.insist()


def test_unknown_probabilities_are_counted_not_refused(engine: Engine, secrets: Secrets) -> None:
    """What is not known is left out of estimates, and said."""
    unknown = (Placement(position=1, content_id="a", propensity=None),)
    stored(engine, secrets, [decision(1, "a", NOW - 2 * DAY, candidates=candidates((None, None)), chosen=unknown)])
    health = examined(engine)

    assert (health.refused, check(health, "unknown").value) == (None, 1.0)


def test_the_gate_refuses_what_the_log_cannot_tell() -> None:
    """A log that is not healthy passes nothing and fails nothing, and spends no error."""
    broken = report("loop", Tallies(decisions=10, broken=1))
    verdict = judge(None, RULES.gate, "change", unfit=broken.refused)

    assert (verdict.state, verdict.estimate) == ("refused", None)
    assert verdict.sentence.startswith("Not judged: the log is not healthy: 1 of 10 decisions have probabilities")
