"""Units as they were assigned, with all they did."""

from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import lock_join, reading, writing
from infra.exact import PARTS
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Campaign, Content, Decision, Event, Group, Label, Placement
from ingestion.exchange import Rate
from ingestion.join.restating import import_rates
from ingestion.loops import parse_definition, put_loop
from ingestion.retention import seal_before, sweep
from reward_models.assignment import Assigned, Matured, load_assigned, load_register

NOON = 20_000 * DAY + 12 * HOUR
DEFINITION = parse_definition(
    {
        "loop": "mail",
        "metrics": [
            {"name": "click", "event": "click", "aggregate": "any", "window": "2d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "2d", "currency": "EUR"},
        ],
        "reward": {"revenue": 1.0},
        "refund_horizon": "36h",
    }
)


def a_decision(unit: str, at: int, group: Group = "treatment", **context: Any) -> Decision:
    """One message to ``unit``, held out with probability 0.1."""
    return Decision(
        decision_id=f"{unit}@{at}",
        request_digest="r",
        loop_id="mail",
        loop_version=1,
        campaign_id="may",
        unit=unit,
        context=context,
        group=group,
        learning_mode="online",
        candidates=(),
        chosen=(Placement(position=1, content_id="a", propensity=1.0),),
        policy_version="p",
        sampler="s",
        floor=0.0,
        seed="",
        constraints={"holdout": 0.1},
        decided_at=at,
    )


def an_event(event_id: str, type_: str, at: int, **more: Any) -> Event:
    """One fact from the shop."""
    return Event(source="http", event_id=event_id, type=type_, occurred_at=at, received_at=at, **more)


def a_purchase(event_id: str, unit: str, at: int, euros: int, **more: Any) -> Event:
    """A purchase that names its customer only."""
    money = {"value_micros": euros * 1_000_000, "currency": "EUR", "fact_key": event_id}
    return an_event(event_id, "purchase", at, unit=unit, **(money | more))


def assigned(engine: Engine, secrets: Secrets, *facts: Decision | Event | Label, until: int = 3 * DAY) -> Assigned:
    """The units of this history, decided on from noon for ``until``."""
    with writing(engine) as connection:
        put_loop(connection, DEFINITION, NOON)
    batch = Batch(
        campaigns=(Campaign(campaign_id="may", loop_id="mail"),),
        contents=(Content(content_id="a", campaign_id="may", slots={"subject": "Hello"}),),
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in facts if isinstance(fact, Event)),
        labels=tuple(fact for fact in facts if isinstance(fact, Label)),
    )
    store.apply(engine, batch, secrets, NOON)
    with reading(engine) as connection:
        return load_assigned(connection, DEFINITION, NOON, NOON + until)


def matured(engine: Engine, secrets: Secrets, *facts: Decision | Event | Label, now: int, since: int = 0) -> Matured:
    """The units of this history whose two days, three days of lateness and 36 hours for refunds have passed."""
    assigned(engine, secrets, *facts)
    with reading(engine) as connection:
        return load_register(connection, DEFINITION, since).matured(DEFINITION, 2 * DAY, now)


def test_a_unit_counts_once_with_all_its_decisions_of_the_period(engine: Engine, secrets: Secrets) -> None:
    """Decisions are counted per unit; those outside the period are not, nor are units without one inside."""
    found = assigned(
        engine,
        secrets,
        a_decision("u1", NOON),
        a_decision("u1", NOON + DAY),
        a_decision("u2", NOON + DAY, "holdout"),
        a_decision("u3", NOON - 1),
        a_decision("u1", NOON + 3 * DAY),
    )

    assert found.units == ("u1", "u2")
    assert found.decisions.tolist() == [2, 1]
    assert found.treatment.tolist() == [True, False]


def test_purchases_outside_every_window_count_for_the_unit(engine: Engine, secrets: Secrets) -> None:
    """Intention to treat: what a customer buys after the decision's window still is what the customer bought."""
    found = assigned(
        engine,
        secrets,
        a_decision("u1", NOON),
        a_purchase("inside", "u1", NOON + DAY, 30),
        a_purchase("outside", "u1", NOON + 3 * DAY, 40),
        a_purchase("before", "u1", NOON - DAY, 50),
        a_purchase("after", "u1", NOON + 6 * DAY, 60),
    )

    assert found.values["revenue"].tolist() == [70.0]


def test_refunds_labels_and_other_currencies_are_left_out(any_engine: Engine, secrets: Secrets) -> None:
    """Only net money of people in the metric's currency counts, inside a window or not, on both databases."""
    found = assigned(
        any_engine,
        secrets,
        a_decision("u1", NOON),
        a_purchase("kept", "u1", NOON + DAY, 30),
        a_purchase("late", "u1", NOON + 3 * DAY, 25),
        a_purchase("back", "u1", NOON + DAY, 40),
        a_purchase("late-back", "u1", NOON + 3 * DAY, 45),
        an_event("r1", "refund", NOON + 2 * DAY, reverses="back", value_micros=40_000_000, currency="EUR"),
        an_event("r2", "refund", NOON + 4 * DAY, reverses="late-back", value_micros=20_000_000, currency="EUR"),
        a_purchase("dollars", "u1", NOON + DAY, 70, currency="USD"),
        a_purchase("late-dollars", "u1", NOON + 3 * DAY, 70, currency="USD"),
        a_purchase("bot", "u1", NOON + DAY, 80),
        a_purchase("late-bot", "u1", NOON + 3 * DAY, 80),
        Label(source="http", event_id="bot", label="bot", labelled_at=NOON),
        Label(source="http", event_id="late-bot", label="bot", labelled_at=NOON),
    )

    assert found.values["revenue"].tolist() == [30.0 + 25.0 + 25.0]


def of_stripe(event: Event) -> Event:
    """The same fact as another vendor reports it, a minute later."""
    return msgspec.structs.replace(
        event, source="stripe", event_id=f"s{event.event_id}", occurred_at=event.occurred_at + 60_000_000
    )


def named(event: Event, decision_id: str) -> Event:
    """The same fact with its decision instead of its customer."""
    return msgspec.structs.replace(event, decision_id=decision_id, link="token", unit=None)


def test_an_order_counts_once_whoever_reports_it(any_engine: Engine, secrets: Secrets) -> None:
    """Two vendors' reports of one order count once: both without a decision, both outside a window, or one of each."""
    late, far = NOON + 3 * DAY, NOON + 5 * DAY
    alone = a_purchase("o1", "ann", far, 50)
    outside = named(a_purchase("o2", "bob", late, 20), f"bob@{NOON}")
    mixed = named(a_purchase("o3", "eve", NOON + HOUR, 10), f"eve@{NOON}")
    found = assigned(
        any_engine,
        secrets,
        *(a_decision(unit, NOON) for unit in ("ann", "bob", "eve")),
        *(alone, of_stripe(alone), outside, of_stripe(outside), mixed),
        msgspec.structs.replace(of_stripe(mixed), decision_id=None, link=None, unit="eve", occurred_at=far),
        until=9 * DAY,
    )
    assert dict(zip(found.units, found.values["revenue"], strict=True)) == {"ann": 50.0, "bob": 20.0, "eve": 10.0}


def test_a_refund_counts_once_whoever_reports_it(any_engine: Engine, secrets: Secrets) -> None:
    """Of two reports of one refund the larger counts, in any order of arrival; without an amount it is everything."""
    far = NOON + 5 * DAY
    back: dict[str, Any] = {"type_": "refund", "at": far + HOUR, "currency": "EUR", "fact_key": "r1", "reverses": "o1"}
    large, small = an_event("b1", value_micros=50_000_000, **back), an_event("b2", value_micros=10_000_000, **back)
    whole = an_event("b3", "refund", far + HOUR, currency="EUR", reverses="o2")
    found = assigned(
        any_engine,
        secrets,
        *(a_decision(unit, NOON) for unit in ("ann", "bob")),
        *(a_purchase("o1", "ann", far, 80), a_purchase("o2", "bob", far, 30), large, small, whole),
        until=9 * DAY,
    )
    assert dict(zip(found.units, found.values["revenue"], strict=True)) == {"ann": 30.0, "bob": 0.0}


def test_a_label_that_was_taken_back_counts_no_more(engine: Engine, secrets: Secrets) -> None:
    """The latest word about a label holds, inside a window and outside of it."""
    found = assigned(
        engine,
        secrets,
        a_decision("u1", NOON),
        a_purchase("inside", "u1", NOON + DAY, 30),
        a_purchase("outside", "u1", NOON + 3 * DAY, 40),
        *(
            Label(source="http", event_id=event_id, label="bot", labelled_at=NOON + later, applies=not later)
            for event_id in ("inside", "outside")
            for later in (0, 1)
        ),
    )

    assert found.values["revenue"].tolist() == [70.0]


def test_clicks_count_once_per_decision(engine: Engine, secrets: Secrets) -> None:
    """`any` is aggregated per decision, then added up: two clicks on one message are one, on two messages two."""
    first, second = a_decision("u1", NOON), a_decision("u1", NOON + DAY)
    clicks = [
        an_event(f"k{number}", "click", NOON + DAY + number, decision_id=decision.decision_id, link="decision_id")
        for number, decision in enumerate((first, first, second))
    ]

    found = assigned(engine, secrets, first, second, *clicks)

    assert found.values["click"].tolist() == [2.0]


RIPE = 6 * DAY + 12 * HOUR
"""From a first decision to its maturity."""


def test_always_on_every_unit_counts_for_the_same_time(engine: Engine, secrets: Secrets) -> None:
    """Each unit has its two days from its first decision: purchases of that time count, earlier and later ones not."""
    found = matured(
        engine,
        secrets,
        a_decision("late", NOON + DAY, "holdout"),
        a_decision("early", NOON),
        a_decision("early", NOON + DAY),
        a_purchase("e1", "early", NOON + 2 * DAY - 1, 30),
        a_purchase("e2", "early", NOON + 2 * DAY, 40),
        a_purchase("l1", "late", NOON + 2 * DAY, 50),
        a_purchase("l2", "late", NOON, 60),
        now=NOON + DAY + RIPE,
    )

    assert found.units == ("early", "late")
    assert found.values["revenue"].tolist() == [30.0, 50.0]
    assert found.treatment.tolist() == [True, False]
    assert found.held_out.tolist() == [0.1, 0.1]


def test_units_mature_one_by_one(engine: Engine, secrets: Secrets) -> None:
    """A unit is in from the moment its window, lateness and refund horizon have passed, and waits until then."""
    decisions = a_decision("u1", NOON), a_decision("u2", NOON + 1)
    found = matured(engine, secrets, *decisions, now=NOON + RIPE)

    assert (found.units, found.waiting) == (("u1",), 1)


def test_measuring_anew_counts_from_the_next_decision(engine: Engine, secrets: Secrets) -> None:
    """Units decided on before and after ``since`` count from the later decision, with its group; others not at all."""
    found = matured(
        engine,
        secrets,
        a_decision("u1", NOON),
        a_decision("u2", NOON),
        a_decision("u1", NOON + DAY, "holdout"),
        since=NOON + 1,
        now=NOON + 30 * DAY,
    )

    assert found.units == ("u1",)
    assert found.first_at.tolist() == [NOON + DAY]
    assert not found.treatment[0]


def test_covariates_come_from_before_the_very_first_decision(engine: Engine, secrets: Secrets) -> None:
    """Earlier purchases and the first context are covariates; measured anew, the policy's own doing still is none."""
    facts = (
        a_decision("u1", NOON, "treatment", tier="gold"),
        a_decision("u2", NOON, "holdout", tier="new"),
        a_decision("u1", NOON + 2 * DAY, "treatment", tier="new"),
        a_decision("u2", NOON + 2 * DAY, "holdout", tier="gold"),
        a_purchase("before", "u1", NOON - DAY, 30),
        a_purchase("between", "u2", NOON + DAY, 40),
    )
    first = matured(engine, secrets, *facts, now=NOON + 30 * DAY)
    anew = matured(engine, secrets, since=NOON + 1, now=NOON + 30 * DAY)

    assert first.covariates.tolist() == [[1.0, 0.0, np.log1p(30.0)], [0.0, 1.0, 0.0]]
    assert anew.covariates.tolist() == first.covariates.tolist()


def test_caps_are_left_out_side_by_side(engine: Engine, secrets: Secrets) -> None:
    """Values are capped as the metric says, and there is the same without the cap."""
    capped = DEFINITION.model_dump(mode="json")
    capped["metrics"][1]["cap"] = 50.0
    definition = parse_definition(capped)
    assigned(engine, secrets, a_decision("u1", NOON), a_purchase("large", "u1", NOON + 1, 90))
    with reading(engine) as connection:
        found = load_register(connection, definition).matured(definition, 2 * DAY, NOON + RIPE)

    assert (found.values["revenue"].tolist(), found.uncapped["revenue"].tolist()) == ([50.0], [90.0])


def test_only_units_that_chance_dealt_count(engine: Engine, secrets: Secrets) -> None:
    """A unit whose probability of the holdout is unknown or 0 has no place in a lift."""
    sure = msgspec.structs.replace(a_decision("u2", NOON), constraints={})
    found = matured(engine, secrets, a_decision("u1", NOON), sure, now=NOON + RIPE)

    assert (len(found), found.by_chance().units) == (2, ("u1",))


def test_what_a_loop_does_not_believe_is_no_deed(engine: Engine, secrets: Secrets) -> None:
    """Purchases and refunds of a distrusted source, attributed or not, and more than a metric counts of one customer, are
    not in the lift."""
    document = DEFINITION.model_dump(mode="json") | {"sources": {"thief": {"trusted": False}}}
    document["metrics"][1]["per_unit_limit"] = {"most": 2, "per": "30d"}
    definition = parse_definition(document)
    honest = [a_purchase(f"p{n}", "ann", NOON + days * DAY, 10 * 2**n) for n, days in enumerate((1, 5, 6))]
    refund = an_event("r", "refund", NOON + 7 * DAY, unit="ann", reverses="p1", currency="EUR", value_micros=None)
    forged = [a_purchase("f1", "ann", NOON + HOUR, 999), a_purchase("f2", "ann", NOON + 4 * DAY, 999), refund]
    stolen = [msgspec.structs.replace(event, source="thief") for event in forged]
    with writing(engine) as connection:
        put_loop(connection, definition, NOON)
    batch = Batch(decisions=(a_decision("ann", NOON),), events=(*honest, *stolen))
    store.apply(engine, batch, secrets, NOON)
    with reading(engine) as connection:
        matured = load_register(connection, definition).matured(definition, 10 * DAY, NOON + 60 * DAY)
    assert matured.values["revenue"].tolist() == [30.0]


def test_nobody_counts_from_before_the_horizon(engine: Engine, secrets: Secrets) -> None:
    """Where events are gone a customer's deeds are not all known: who was first met before counts from the next decision."""
    facts = [a_decision(unit, NOON + day * DAY) for unit, day in (("u1", 0), ("u1", 2), ("u2", 1))]
    assigned(engine, secrets, *facts, a_purchase("p", "u1", NOON + HOUR, 5), a_purchase("q", "u1", NOON + 2 * DAY, 7))
    with writing(engine) as connection:
        lock_join(connection)
        seal_before(connection, [DEFINITION], NOON + 2 * DAY - HOUR, NOON)
    sweep(engine, NOON)

    with reading(engine) as connection:
        found = load_register(connection, DEFINITION).matured(DEFINITION, 2 * DAY, NOON + 30 * DAY)
        period = load_assigned(connection, DEFINITION, NOON, NOON + 3 * DAY)
    assert (found.units, found.values["revenue"].tolist()) == (("u1",), [7.0])
    assert (period.units, period.values["revenue"].tolist()) == (("u1",), [7.0])


def test_other_currencies_count_where_the_metric_converts(engine: Engine, secrets: Secrets) -> None:
    """Inside and outside of windows, joined and not, at the rate of the time; without a rate, or where nothing is converted,
    the amount is no fact in this currency."""
    trade = parse_definition(
        DEFINITION.model_dump(mode="json")
        | {"metrics": [DEFINITION.metrics[1].model_dump(mode="json") | {"convert": True}]}
    )
    import_rates(engine, [Rate("USD", "EUR", NOON - 5 * DAY, PARTS // 2)], "bank", "ann", NOON)
    facts: list[Decision | Event | Label] = [
        a_decision("u1", NOON),
        a_purchase("inside", "u1", NOON + HOUR, 2, currency="USD"),
        a_purchase("after", "u1", NOON + 3 * DAY, 20, currency="USD", decision_id=f"u1@{NOON}"),
        a_purchase("elsewhere", "u1", NOON + 4 * DAY, 200, currency="USD", decision_id="of nobody"),
        a_purchase("unknown", "u1", NOON + HOUR, 1_000, currency="GBP"),
        a_purchase("unknown after", "u1", NOON + 3 * DAY, 1_000, currency="GBP", decision_id=f"u1@{NOON}"),
        a_purchase("unknown elsewhere", "u1", NOON + 4 * DAY, 1_000, currency="GBP", decision_id="of nobody"),
        an_event("back", "refund", NOON + HOUR, value_micros=40_000_000, currency="USD", reverses="elsewhere"),
    ]

    assert assigned(engine, secrets, *facts).values["revenue"].tolist() == [0.0]
    with reading(engine) as connection:
        found = load_assigned(connection, trade, NOON, NOON + 3 * DAY)
    assert found.values["revenue"].tolist() == [(2 + 20 + 160) / 2]
