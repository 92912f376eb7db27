"""The join told as histories: a list of what arrives, crashes among it, and what is left at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Candidate, Decision, Event, Label, Placement
from ingestion.join.outcomes import judged, matured_at, outcomes_query
from ingestion.ledger import conservation
from ingestion.loops import parse_definition, put_loop
from tests.ingestion.tables import attributed, rows

SECOND = 1_000_000
EUR = 1_000_000
LOOP = parse_definition(
    {
        "loop": "emails",
        "metrics": [
            {"name": "clicked", "event": "click", "window": "60s", "backward_window": "5s"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "100s", "currency": "EUR"},
            {"name": "orders", "event": "purchase", "aggregate": "count", "window": "100s"},
        ],
        "reward": {"revenue": 1},
        "lateness": "10s",
        "refund_horizon": "50s",
    }
)


@dataclass(frozen=True)
class Crash:
    """The process dies while it applies the next fact, after this step, and the fact is delivered again."""

    after: str


class Died(Exception):
    """What the dying process raises."""


def decision(id_: str, at: int, **changes: Any) -> Decision:
    plain = Decision(
        decision_id=id_,
        request_digest=f"request of {id_}",
        loop_id="emails",
        loop_version=1,
        campaign_id="spring",
        unit="u1:ann",
        context={},
        group="treatment",
        learning_mode="online",
        candidates=(Candidate(content_id="a", expected=0.25), Candidate(content_id="b", expected=0.5)),
        chosen=(Placement(position=1, content_id="a", propensity=0.5),),
        policy_version="uniform",
        model_version="model-1",
        sampler="test",
        floor=0.0,
        constraints={"slots": 1},
        seed="00",
        decided_at=at * SECOND,
    )
    return msgspec.structs.replace(plain, **changes)


def event(id_: str, type_: str, at: int, **changes: Any) -> Event:
    unit = "u1:ann" if "decision_id" not in changes and "reverses" not in changes else None
    plain = Event(source="shop", event_id=id_, type=type_, occurred_at=at * SECOND, received_at=0, unit=unit)
    return msgspec.structs.replace(plain, **changes)


def purchase(id_: str, at: int, euros: int, **changes: Any) -> Event:
    return event(id_, "purchase", at, value_micros=euros * EUR, currency="EUR", fact_key=id_, **changes)


def refund(id_: str, at: int, euros: int | None, of: str) -> Event:
    return event(id_, "refund", at, value_micros=None if euros is None else euros * EUR, currency="EUR", reverses=of)


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with the loop of these histories."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def live(engine: Engine, secrets: Secrets, history: Sequence[Decision | Event | Label | Crash]) -> None:
    """Let everything arrive by itself, in this order."""
    dying: Crash | None = None
    for fact in history:
        if isinstance(fact, Crash):
            dying = fact
            continue
        batch = Batch(
            decisions=(fact,) if isinstance(fact, Decision) else (),
            events=(fact,) if isinstance(fact, Event) else (),
            labels=(fact,) if isinstance(fact, Label) else (),
        )
        if dying is not None:
            die_applying(engine, secrets, batch, dying.after)
            dying = None
        store.apply(engine, batch, secrets, 0)
    assert conservation(engine) == 0


def die_applying(engine: Engine, secrets: Secrets, batch: Batch, step: str) -> None:
    whole = getattr(store, step)

    def die(*arguments: object) -> None:
        whole(*arguments)
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, step, die)
        with pytest.raises(Died):
            store.apply(engine, batch, secrets, 0)


def outcomes(engine: Engine) -> dict[tuple[str, str, str], int]:
    """Values in whole units by (decision, content, metric)."""
    return {row[:3]: row[4] // 1_000_000 for row in rows(engine, tables.outcomes)}


def methods(engine: Engine) -> dict[str, tuple[str, str]]:
    """(method, decision) by event."""
    return {row[1]: row[3:5] for row in attributed(engine)}


def reasons(engine: Engine) -> dict[tuple[str, str], str | None]:
    """Why an event does not count, by (event, metric); None: it counts."""
    with reading(engine) as connection:
        return {(row.event_id, row.metric): row.reason for row in connection.execute(judged([LOOP]))}


def test_an_event_before_its_decision_waits_for_it(database: Engine, secrets: Secrets) -> None:
    """A purchase that arrives before its decision is credited once the decision comes."""
    live(database, secrets, [purchase("p", 20, 30, decision_id="d"), Crash("rejoin"), decision("d", 10)])

    assert outcomes(database) == {("d", "a", "orders"): 1, ("d", "a", "revenue"): 30}


def test_a_late_decision_steals_the_last_touch(database: Engine, secrets: Secrets) -> None:
    """A decision that was made later but arrives last takes the unit's events after it from the earlier one."""
    live(
        database,
        secrets,
        [decision("early", 10), event("c", "click", 30), Crash("stamp"), decision("late", 20)],
    )

    assert outcomes(database) == {("late", "a", "clicked"): 1}
    assert methods(database) == {"c": ("last_touch", "late")}


def test_a_decision_in_the_tolerance_after_the_event_counts(database: Engine, secrets: Secrets) -> None:
    """A click up to the backward window before its decision is credited: clocks disagree."""
    live(database, secrets, [event("c", "click", 10), decision("d", 15), event("too early", "click", 9)])

    assert reasons(database)["c", "clicked"] is None
    assert reasons(database)["too early", "clicked"] == "outside_window"


def test_the_window_is_open_at_its_end(database: Engine, secrets: Secrets) -> None:
    """An event counts while occurred_at < start + window; after that it is kept with the reason."""
    live(
        database,
        secrets,
        [decision("d", 0), event("in", "click", 59, decision_id="d"), event("out", "click", 60, decision_id="d")],
    )

    assert reasons(database) == {("in", "clicked"): None, ("out", "clicked"): "outside_window"}


def test_a_partial_refund_leaves_the_rest(database: Engine, secrets: Secrets) -> None:
    """A refund restates the outcome: the sum loses what was taken back, the order still counts."""
    live(database, secrets, [decision("d", 0), purchase("p", 10, 30), Crash("keep_ledger"), refund("r", 40, 12, "p")])

    assert outcomes(database) == {("d", "a", "orders"): 1, ("d", "a", "revenue"): 18}
    assert methods(database)["r"] == ("reversal", "d")


def test_a_full_refund_undoes_the_order(database: Engine, secrets: Secrets) -> None:
    """A purchase that is wholly refunded counts for nothing, also by several refunds or one without an amount."""
    live(
        database,
        secrets,
        [
            decision("d", 0),
            refund("r1", 20, 10, "p"),
            refund("r2", 25, 20, "p"),
            purchase("p", 10, 30),
            purchase("q", 11, 5),
            refund("r3", 30, None, "q"),
        ],
    )

    assert outcomes(database) == {}
    assert reasons(database)["p", "orders"] == "refunded"


def test_a_refund_past_the_horizon_is_kept_and_not_used(database: Engine, secrets: Secrets) -> None:
    """A refund restates the outcome up to the refund horizon after its purchase, not later."""
    live(
        database,
        secrets,
        [decision("d", 0), purchase("p", 10, 30), refund("on time", 60, 1, "p"), refund("late", 61, 5, "p")],
    )

    assert outcomes(database)["d", "a", "revenue"] == 29


def test_a_refund_without_its_purchase_is_pending(database: Engine, secrets: Secrets) -> None:
    """A refund that arrives first waits for the purchase it takes back."""
    first = store.apply(database, Batch(events=(refund("r", 20, 5, "p"),)), secrets, 0)
    second = store.apply(database, Batch(decisions=(decision("d", 0),), events=(purchase("p", 10, 30),)), secrets, 0)

    assert first.events == ("pending",)
    assert (second.events, second.left_pending) == (("applied",), 1)
    assert outcomes(database)["d", "a", "revenue"] == 25


def test_an_order_reported_twice_counts_once(database: Engine, secrets: Secrets) -> None:
    """Of two reports of one order the one that names its decision counts, else the first, in one place only."""
    bank = msgspec.structs.replace(purchase("p at the bank", 12, 31, source="bank", decision_id="d"), fact_key="p")
    live(database, secrets, [decision("d", 0), decision("other", 5), purchase("p", 10, 30), bank])

    assert outcomes(database) == {("d", "a", "orders"): 1, ("d", "a", "revenue"): 31}
    assert reasons(database)["p", "revenue"] == "same_fact"


def test_a_change_reaches_the_other_report_of_a_refund(any_engine: Engine, secrets: Secrets) -> None:
    """A late decision takes a purchase, with it goes its refund, out of its window: then the refund's other report,
    of another purchase and another decision, counts."""
    returns = parse_definition(
        {
            "loop": "returns",
            "metrics": [
                {"name": "returned", "event": "refund", "window": "60s", "backward_window": "0s"},
                {"name": "orders", "event": "purchase", "window": "60s", "backward_window": "20s"},
            ],
            "reward": {"orders": 1},
        }
    )
    with writing(any_engine) as connection:
        put_loop(connection, returns, 0)
    one = msgspec.structs.replace(refund("one report", 58, 1, "p"), fact_key="r")
    two = msgspec.structs.replace(refund("two reports", 59, 1, "q"), fact_key="r")
    early, other = decision("d", 0, loop_id="returns"), decision("e", 0, loop_id="returns", unit=None)
    bought = [purchase("p", 50, 3), purchase("q", 50, 3, decision_id="e")]
    live(any_engine, secrets, [early, other, *bought, one, two])
    assert {key[0] for key in outcomes(any_engine) if key[2] == "returned"} == {"d"}

    live(any_engine, secrets, [decision("late", 65, loop_id="returns")])
    assert {key[0] for key in outcomes(any_engine) if key[2] == "returned"} == {"e"}


def test_a_refund_reaches_the_report_that_counts(database: Engine, secrets: Secrets) -> None:
    """The report that names its decision leads, but lies outside its window: the refund goes with it, and still takes
    back from the other report, whose decision has the order."""
    named = msgspec.structs.replace(purchase("named", 210, 30, decision_id="old"), fact_key="p")
    live(database, secrets, [decision("old", 0, unit=None), decision("d", 200), purchase("p", 210, 30), named])
    assert outcomes(database)["d", "a", "revenue"] == 30

    live(database, secrets, [refund("r", 220, 10, "p")])
    assert outcomes(database)["d", "a", "revenue"] == 20
    assert methods(database)["r"] == ("reversal", "old")


def test_ties_break_by_source_then_id(database: Engine, secrets: Secrets) -> None:
    """Of two reports of one order at the same moment the one of the first source by name counts."""
    bank = msgspec.structs.replace(purchase("z", 10, 31, source="bank"), fact_key="a")
    live(database, secrets, [decision("d", 0), purchase("a", 10, 30), bank])

    assert outcomes(database)["d", "a", "revenue"] == 31


def test_another_currency_is_kept_and_not_used(database: Engine, secrets: Secrets) -> None:
    """A value in another currency than the metric's never enters a sum, but an order is an order."""
    dollars = msgspec.structs.replace(purchase("p", 10, 30), currency="USD")
    live(database, secrets, [decision("d", 0), dollars])

    assert outcomes(database) == {("d", "a", "orders"): 1}
    assert reasons(database)["p", "revenue"] == "other_currency"


def test_a_deferred_decision_counts_from_its_activation(database: Engine, secrets: Secrets) -> None:
    """Deferred: no exposure and no credit before the activation; windows start with it."""
    deferred = decision("d", 0, deferred=True)
    live(database, secrets, [deferred, event("c", "click", 150, decision_id="d")])
    assert (outcomes(database), rows(database, tables.content_stats)) == ({}, [])
    assert reasons(database)["c", "clicked"] == "before_activation"

    live(database, secrets, [Crash("rejoin"), event("sent", "activation", 100, decision_id="d")])
    assert outcomes(database) == {("d", "a", "clicked"): 1}
    assert [row[5] for row in rows(database, tables.content_stats)] == [1, 1, 1]


def test_a_bot_label_takes_an_event_out_and_taking_it_back_brings_it_in(database: Engine, secrets: Secrets) -> None:
    """The latest word about a label holds, whenever it arrives."""
    bot = Label(source="shop", event_id="c", label="bot", labelled_at=5)
    live(database, secrets, [decision("d", 0), event("c", "click", 10), bot])
    assert outcomes(database) == {}

    live(database, secrets, [Label(source="shop", event_id="c", label="bot", labelled_at=6, applies=False)])
    assert outcomes(database) == {("d", "a", "clicked"): 1}


def test_an_event_credits_the_content_it_is_about(database: Engine, secrets: Secrets) -> None:
    """In a slate: the content named, else the one at the position, else the first."""
    slate = decision(
        "d",
        0,
        chosen=(Placement(position=1, content_id="a"), Placement(position=2, content_id="b")),
        constraints={"slots": 2},
    )
    live(
        database,
        secrets,
        [
            slate,
            purchase("by name", 10, 1, content_id="b"),
            purchase("by position", 10, 2, position=2),
            purchase("by nothing", 10, 4),
            purchase("by a stranger", 10, 8, content_id="x"),
        ],
    )

    assert outcomes(database)["d", "b", "revenue"] == 3
    assert outcomes(database)["d", "a", "revenue"] == 12


def test_a_unit_is_known_by_its_hash_before_the_rotation(database: Engine, secrets: Secrets) -> None:
    """While the unit secret is being rotated, events match decisions stored under the older hash too."""
    live(
        database,
        secrets,
        [decision("d", 0, unit="u1:ann"), event("c", "click", 10, unit="u2:ann", unit_before="u1:ann")],
    )

    assert methods(database) == {"c": ("last_touch", "d")}


def test_content_statistics_are_the_sums_of_the_outcomes(database: Engine, secrets: Secrets) -> None:
    """One exposure per started decision and metric, with successes, sum, squares (1e-8) and expected (millionths)."""
    live(database, secrets, [decision("d", 0), decision("e", 1, unit="u1:bob"), purchase("p", 10, 30)])

    revenue = [row for row in rows(database, tables.content_stats) if row[2] == "revenue"]
    assert revenue == [("spring", "a", "revenue", "model-1", 0, 2, 1, 30 * EUR, (30 * EUR // 100) ** 2, 0, 500_000)]


def test_earlier_batches_can_be_asked_again(database: Engine, secrets: Secrets) -> None:
    """``as_of`` a batch gives the outcomes as they stood then, after more facts arrived."""
    live(database, secrets, [decision("d", 0), purchase("p", 10, 30)])
    then, batch_no = rows(database, tables.outcomes), 2
    live(database, secrets, [refund("r", 20, 5, "p"), decision("late", 5), event("c", "click", 8)])

    with reading(database) as connection:
        again = sorted(tuple(row) for row in connection.execute(outcomes_query([LOOP], as_of=batch_no)))
    assert then == again
    assert then != rows(database, tables.outcomes)


def test_asking_for_some_decisions_gives_their_rows_alone(database: Engine, secrets: Secrets) -> None:
    """The filter leaves the numbers of the decisions asked for unchanged, also where facts tie them to others."""
    reports = [purchase("p", 10, 30, decision_id="d"), purchase("q", 10, 7, decision_id="e")]
    reports.append(msgspec.structs.replace(purchase("bank p", 9, 30, source="bank", decision_id="e"), fact_key="p"))
    live(database, secrets, [decision("d", 0), decision("e", 5), *reports])

    whole = rows(database, tables.outcomes)
    with reading(database) as connection:
        for as_of in (None, 5):
            some = sorted(tuple(row) for row in connection.execute(outcomes_query([LOOP], ["d"], as_of)))
            assert some == [row for row in whole if row[0] == "d"] == []
            some = sorted(tuple(row) for row in connection.execute(outcomes_query([LOOP], ["e"], as_of)))
            assert some == whole


def test_an_outcome_matures_after_window_lateness_and_refund_horizon() -> None:
    """Maturity is the widest window, the lateness and the refund horizon after the start."""
    assert matured_at(LOOP, 7) == 7 + (100 + 10 + 50) * SECOND


def test_the_ledger_counts_what_left_pending_and_what_became_pending(database: Engine, secrets: Secrets) -> None:
    """An event that loses its decision to an activation too late for it becomes pending again, and is counted."""
    live(database, secrets, [decision("d", 10), event("c", "click", 12)])
    moved = store.apply(database, Batch(events=(event("sent", "activation", 200, decision_id="d"),)), secrets, 0)
    back = store.apply(database, Batch(events=(event("sent 2", "activation", 11, decision_id="d"),)), secrets, 0)

    assert (moved.left_pending, moved.became_pending) == (0, 1)
    assert (back.left_pending, back.became_pending) == (1, 0)
    with reading(database) as connection:
        line = connection.execute(select(tables.batches).order_by(tables.batches.c.batch_no.desc())).first()
    assert line is not None
    assert line.left_pending == 1
