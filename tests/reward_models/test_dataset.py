"""The training set: mature decisions with what came of them, the same at every rebuild."""

from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import lock_join, reading, writing
from infra.errors import EstimateRefused
from infra.secrets import Secrets
from ingestion.events import (
    Batch,
    Campaign,
    Candidate,
    Content,
    Decision,
    Event,
    HistoricalResult,
    Placement,
)
from ingestion.loops import parse_definition, put_loop
from ingestion.retention import seal_before, sweep
from ingestion.store import apply
from reward_models import reading as chunked
from reward_models.dataset import TrainingSet
from reward_models.lists import lists_by_chance
from reward_models.loading import load_training_set
from tests.reward_models.training import definition

LOOP = definition(reward={"click": 1.0, "revenue": 0.1})
LATE = 100 * DAY
COPY = Batch(
    campaigns=(Campaign(campaign_id="spring", loop_id="emails"),),
    contents=tuple(
        Content(content_id=name, campaign_id="spring", slots={"subject": name.upper()}) for name in ("a", "b")
    ),
)


def decision(
    name: str, at: int = DAY, chosen: str = "a", placements: tuple[Placement, ...] = (), **changes: Any
) -> Decision:
    """A treatment decision between a and b; ``placements`` instead of ``chosen`` for a slate."""
    fields: dict[str, Any] = {
        "decision_id": name,
        "request_digest": name,
        "loop_id": "emails",
        "loop_version": 1,
        "campaign_id": "spring",
        "unit": f"unit-{name}",
        "context": {"age": 30},
        "group": "treatment",
        "learning_mode": "online",
        "candidates": tuple(Candidate(content_id=c, policy_p=0.6, behaviour_p=0.5) for c in ("a", "b")),
        "chosen": placements or (Placement(position=1, content_id=chosen, propensity=0.5),),
        "policy_version": "uniform",
        "sampler": "s",
        "floor": 0.0,
        "constraints": {"slots": 1},
        "seed": "0",
        "decided_at": at,
    }
    return Decision(**{**fields, **changes})


def event(name: str, decided: str, at: int, type_: str = "click", **changes: Any) -> Event:
    """An event that names its decision."""
    return Event(
        source="http",
        event_id=name,
        type=type_,
        occurred_at=at,
        received_at=at,
        decision_id=decided,
        link="decision_id",
        **changes,
    )


def load(engine: Engine, secrets: Secrets, *batches: Batch, **changes: Any) -> TrainingSet:
    """Apply the copy and then the batches; the training set of the last."""
    with writing(engine) as connection:
        put_loop(connection, LOOP, 1)
    for batch in (COPY, *batches):
        as_of = apply(engine, batch, secrets, DAY).batch_no
    with reading(engine) as connection:
        return load_training_set(connection, LOOP, 1, **{"as_of": as_of, "now": LATE, **changes})


def test_decisions_come_with_their_outcomes(any_engine: Engine, secrets: Secrets) -> None:
    """A click and a purchase of 20 on one decision, nothing on the other: values, reward, and a zero."""
    found = load(
        any_engine,
        secrets,
        Batch(
            decisions=(decision("d1"), decision("d2", chosen="b")),
            events=(
                event("e1", "d1", DAY + HOUR),
                event("e2", "d1", DAY + HOUR, "purchase", value_micros=20_000_000, currency="EUR"),
            ),
        ),
    )

    assert (found.decision_id, found.chosen, found.campaign_id) == (("d1", "d2"), ["a", "b"], ["spring"] * 2)
    assert {name: values.tolist() for name, values in found.metrics.items()} == {
        "click": [1.0, 0.0],
        "revenue": [20.0, 0.0],
    }
    assert found.reward.tolist() == [3.0, 0.0]
    assert (found.contexts[0], found.unit[0], found.propensity.tolist()) == ({"age": 30}, "unit-d1", [0.5, 0.5])
    assert [content.slots["subject"] for content in found.candidate_contents(0)] == ["A", "B"]


def test_immature_decisions_are_left_out(engine: Engine, secrets: Secrets) -> None:
    """One microsecond before maturity a decision is counted as immature, with its click; at maturity it is a row."""
    batch = Batch(decisions=(decision("d1"),), events=(event("e1", "d1", DAY + HOUR),))

    before = load(engine, secrets, batch, now=DAY + LOOP.maturity - 1)
    at = load(engine, secrets, batch, now=DAY + LOOP.maturity)

    assert (len(before), before.immature, len(at), at.immature) == (0, 1, 1, 0)


def test_censored_decisions_come_with_their_age(engine: Engine, secrets: Secrets) -> None:
    """Asked for, an immature decision is a row with what came so far; ``matured`` is the set without it, and the time
    from decision to click is known of both."""
    batch = Batch(
        decisions=(decision("old"), decision("young", 4 * DAY), decision("never", deferred=True)),
        events=(event("e1", "old", DAY + HOUR), event("e2", "young", 4 * DAY + 2 * HOUR)),
    )

    found = load(engine, secrets, batch, now=5 * DAY, censored=True)

    assert found.timing is not None
    assert (found.decision_id, found.mature.tolist(), found.immature) == (("old", "young"), [True, False], 2)
    assert found.timing.age.tolist() == [LOOP.maturity, DAY]
    assert found.timing.arrivals["click"].delay.tolist() == [HOUR, 2 * HOUR]
    assert found.matured().decision_id == ("old",)


def test_the_second_purchase_of_a_decision_came_later_than_the_first(engine: Engine, secrets: Secrets) -> None:
    """What adds up has arrived with its last event; a click has with its first."""
    bought = [
        event(f"p{hours}", "d1", DAY + hours * HOUR, "purchase", value_micros=1, currency="EUR") for hours in (1, 9)
    ]
    clicked = [event(f"c{hours}", "d1", DAY + hours * HOUR) for hours in (1, 9)]

    found = load(engine, secrets, Batch(decisions=(decision("d1"),), events=(*bought, *clicked)))

    assert found.timing is not None
    delays = {name: came.delay.tolist() for name, came in found.timing.arrivals.items()}
    assert delays == {"click": [HOUR], "revenue": [HOUR, 9 * HOUR]}


def test_the_time_on_the_way_is_that_of_events_and_not_of_imports(engine: Engine, secrets: Secrets) -> None:
    """Half an hour and, by a clock ahead of ours, none; a click that was imported a month later says nothing."""
    arrived = {"soon": HOUR // 2, "ahead": -HOUR // 2, "imported": 30 * DAY}
    clicks = [
        msgspec.structs.replace(event(name, "d1", 2 * DAY), received_at=2 * DAY + late)
        for name, late in arrived.items()
    ]

    found = load(engine, secrets, Batch(decisions=(decision("d1"),), events=tuple(clicks)))

    assert found.timing is not None
    lags = found.timing.lags["click"]
    assert lags[0] == pytest.approx(0, abs=HOUR / 60)
    assert lags[-1] == pytest.approx(HOUR / 2, rel=0.1)
    assert found.timing.lags["revenue"] == (0.0,)


def test_a_deferred_decision_counts_from_its_activation(engine: Engine, secrets: Secrets) -> None:
    """Without activation it never matures; with one it matures that much later."""
    batch = Batch(
        decisions=(decision("never", deferred=True), decision("later", deferred=True)),
        events=(event("e1", "later", 3 * DAY, "activation"),),
    )

    early = load(engine, secrets, batch, now=3 * DAY + LOOP.maturity - 1)
    late = load(engine, secrets, batch, now=3 * DAY + LOOP.maturity)

    assert (early.decision_id, early.immature) == ((), 2)
    assert (late.decision_id, late.immature) == (("later",), 1)


def test_a_set_is_rebuilt_to_the_digit(any_engine: Engine, secrets: Secrets) -> None:
    """Later batches (a click on an old decision, a new decision, new copy) change the set of now, not the one before."""
    copy = Content(content_id="A new one", campaign_id="spring", slots={"subject": "New"})
    later = Batch(contents=(copy,), decisions=(decision("d2"),), events=(event("e1", "d1", DAY + HOUR),))
    first = load(any_engine, secrets, Batch(decisions=(decision("d1"),)))
    second = load(any_engine, secrets, later)
    with reading(any_engine) as connection:
        again = load_training_set(connection, LOOP, 1, as_of=first.as_of, now=LATE)

    assert again.digest == first.digest
    assert second.digest != first.digest
    assert (first.reward.tolist(), second.reward.tolist()) == ([0.0], [1.0, 0.0])


def test_bounds_are_on_the_time_of_decision(engine: Engine, secrets: Secrets) -> None:
    """since ≤ decided_at < before."""
    batch = Batch(decisions=tuple(decision(f"d{day}", day * DAY) for day in range(1, 5)))

    found = load(engine, secrets, batch, since=2 * DAY, before=4 * DAY)

    assert found.decision_id == ("d2", "d3")


def test_a_slate_is_a_row_per_shown_content(engine: Engine, secrets: Secrets) -> None:
    """Two slots of three placements: two rows, the click on the content it names; unknown propensities are nan."""
    chosen = (
        Placement(position=1, content_id="a"),
        Placement(position=2, content_id="b"),
        Placement(position=3, content_id="a"),
    )
    found = load(
        engine,
        secrets,
        Batch(
            decisions=(decision("d1", placements=chosen, constraints={"slots": 2}),),
            events=(event("e1", "d1", DAY + HOUR, content_id="b"),),
        ),
    )

    assert (found.chosen, found.position.tolist(), found.reward.tolist()) == (["a", "b"], [1, 2], [0.0, 1.0])
    assert np.isnan(found.propensity).all()


def test_a_slate_that_had_to_include_is_no_list_of_chance(engine: Engine, secrets: Secrets) -> None:
    """Its first position is known as ever; the lower ones were drawn otherwise, so that they are left out of lists."""
    chosen = (
        Placement(position=1, content_id="b", propensity=0.5),
        Placement(position=2, content_id="a", propensity=1.0),
    )
    rules = {"slots": 2, "must_include": ["a"]}
    found = load(engine, secrets, Batch(decisions=(decision("d1", placements=chosen, constraints=rules),)))

    assert found.propensity.tolist()[0] == 0.5
    assert np.isnan(found.propensity[1])
    with pytest.raises(EstimateRefused, match="no mature list"):
        lists_by_chance(found)


def test_no_send_is_a_content_of_the_campaign(engine: Engine, secrets: Secrets) -> None:
    """The reserved content has no row of its own; the set gives it one, without text."""
    candidates = (Candidate(content_id="a"), Candidate(content_id="no_send"))

    found = load(engine, secrets, Batch(decisions=(decision("d1", chosen="no_send", candidates=candidates),)))

    content = found.contents[found.content[0]]
    assert (content.content_id, content.campaign_id, content.slots) == ("no_send", "spring", {})


def test_past_results_come_along(engine: Engine, secrets: Secrets) -> None:
    """Sums become means per exposure; counts tell their variance, money does not; rows never shown are left out."""
    results = tuple(
        HistoricalResult(
            import_id="i",
            row=row,
            loop_id="emails",
            campaign_id="spring",
            content_id=content,
            exposures=exposures,
            metrics={"click": 10_000_000, "revenue": 50_000_000},
            trusted=content == "a",
        )
        for row, (content, exposures) in enumerate([("a", 100), ("b", 200), ("a", 0)])
    )

    past = load(engine, secrets, Batch(results=results)).history

    assert past.reward.tolist() == pytest.approx([0.15, 0.075])
    assert (past.exposures.tolist(), past.trusted.tolist()) == ([100.0, 200.0], [True, False])
    assert np.isnan(past.noise).all()


def test_a_subset_is_those_rows(engine: Engine, secrets: Secrets) -> None:
    """Every list and array of the part is that of the whole at the rows kept."""
    whole = load(engine, secrets, Batch(decisions=tuple(decision(f"d{n}", n * DAY) for n in range(1, 6))))

    part = whole.subset(np.array([False, True, False, True, False]))

    assert (part.decision_id, part.decided_at.tolist(), len(part.reward)) == (("d2", "d4"), [2 * DAY, 4 * DAY], 2)
    assert part.digest == whole.subset(np.array([1, 3])).digest != whole.digest


def test_candidates_are_read_from_the_moment_that_needs_them(engine: Engine, secrets: Secrets) -> None:
    """Decisions before it are the same rows without candidates."""
    batch = Batch(decisions=tuple(decision(f"d{day}", day * DAY) for day in range(1, 4)))
    whole = load(engine, secrets, batch)

    with reading(engine) as connection:
        part = load_training_set(connection, LOOP, 1, as_of=whole.as_of, now=LATE, choices_since=2 * DAY)

    assert (part.decision_id, part.chosen) == (whole.decision_id, whole.chosen)
    assert [(), *whole.candidates[1:]] == list(part.candidates)


def test_a_set_does_not_depend_on_how_it_is_read(
    engine: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of two decisions or of thousands: the same rows in the same order, slates and immature ones among them."""
    slate = (Placement(position=1, content_id="b"), Placement(position=2, content_id="a"))
    decisions = [decision(f"d{n}", n * DAY, chosen="ab"[n % 2]) for n in range(1, 8)]
    decisions[2] = decision("d3", 3 * DAY, placements=slate, constraints={"slots": 2, "holdout": 0.1})
    decisions[5] = decision("d6", 6 * DAY, deferred=True)
    whole = load(engine, secrets, Batch(decisions=tuple(decisions), events=(event("e1", "d3", 3 * DAY + HOUR),)))
    monkeypatch.setattr(chunked, "_SIZE", 2)
    with reading(engine) as connection:
        parts = load_training_set(connection, LOOP, 1, as_of=whole.as_of, now=LATE)

    assert parts.digest == whole.digest
    assert whole.decision_id == ("d1", "d2", "d3", "d3", "d4", "d5", "d7")
    assert (whole.holdout.tolist(), whole.immature) == ([0, 0, 0.1, 0.1, 0, 0, 0], 1)
    assert (whole.chosen, list(parts.candidates)) == (["b", "a", "b", "a", "a", "b", "b"], list(whole.candidates))


def test_sealed_decisions_teach_what_they_taught(any_engine: Engine, secrets: Secrets) -> None:
    """When the events of old decisions are gone, the set has the same rows and rewards; under metrics that were not measured on
    them the old decisions are left out, instead of being taken for silent."""
    bought = event("e2", "old", DAY + HOUR, "purchase", value_micros=20_000_000, currency="EUR")
    batch = Batch(
        decisions=(decision("old"), decision("silent"), decision("new", at=50 * DAY)),
        events=(event("e1", "old", DAY + HOUR), bought, event("e3", "new", 50 * DAY + HOUR)),
    )
    before = load(any_engine, secrets, batch)
    with writing(any_engine) as connection:
        lock_join(connection)
        seal_before(connection, [LOOP], 40 * DAY, LATE)
    assert sweep(any_engine, LATE) == 2

    other = LOOP.model_dump(mode="json")
    other["metrics"][0]["window"] = "1h"
    with reading(any_engine) as connection:
        after = load_training_set(connection, LOOP, 1, as_of=before.as_of, now=LATE)
        changed = load_training_set(connection, parse_definition(other), 1, as_of=before.as_of, now=LATE)
    assert after.decision_id == before.decision_id == ("old", "silent", "new")
    assert after.reward.tolist() == before.reward.tolist() == [3.0, 0.0, 1.0]
    assert {name: values.tolist() for name, values in after.metrics.items()} == {
        name: values.tolist() for name, values in before.metrics.items()
    }
    assert changed.decision_id == ("new",)
