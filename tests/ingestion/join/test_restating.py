"""Amounts in other currencies, told as histories: which rate an amount takes, and what a new rate changes."""

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput
from infra.exact import PARTS
from infra.secrets import Secrets
from ingestion.audit import read_audit
from ingestion.events import Decision, Event
from ingestion.exchange import Rate
from ingestion.join import restating
from ingestion.join.backfill import backfill, redefine
from ingestion.join.outcomes import judged, outcomes_query
from ingestion.join.restating import Imported, import_rates
from ingestion.ledger import conservation
from ingestion.loops import LoopDefinition, parse_definition, put_loop
from tests.ingestion.join.test_join_histories import LOOP, SECOND, decision, live, purchase, refund
from tests.ingestion.tables import rows

DOCUMENT = LOOP.model_dump(mode="json")


def with_metrics(*metrics: dict[str, object]) -> LoopDefinition:
    """The loop of the histories with these metrics."""
    return parse_definition(DOCUMENT | {"metrics": metrics, "reward": {"revenue": 1}})


REVENUE: dict[str, object] = {
    "name": "revenue",
    "event": "purchase",
    "aggregate": "sum",
    "window": "100s",
    "currency": "EUR",
}
RETURNED = REVENUE | {"name": "returned", "event": "refund", "convert": True}
TRADE = with_metrics(REVENUE | {"convert": True}, REVENUE | {"name": "euros"}, RETURNED)
"""``revenue`` and ``returned`` convert, ``euros`` does not."""


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with the loop that converts."""
    with writing(any_engine) as connection:
        put_loop(connection, TRADE, 0)
    return any_engine


def dollars(id_: str, at: int, amount: int, **changes: object) -> Event:
    """A purchase in dollars."""
    return msgspec.structs.replace(purchase(id_, at, amount), currency="USD", **changes)


def dollars_back(id_: str, at: int, amount: int | None, of: str) -> Event:
    """A refund in dollars."""
    return msgspec.structs.replace(refund(id_, at, amount, of), currency="USD")


def rate(at: int, worth: float, *pair: str) -> Rate:
    """What a dollar is worth in euros, or one of another pair in the other, from a second on."""
    base, quote = pair or ("USD", "EUR")
    return Rate(base, quote, at * SECOND, round(worth * 1_000) * PARTS // 1_000)


def said(engine: Engine, *rates: Rate) -> Imported:
    """Import rates at second 900."""
    return import_rates(engine, sorted(rates), "bank", "ann", 900 * SECOND)


def values(engine: Engine) -> dict[str, int]:
    """Millionths by metric, of all decisions together."""
    found: dict[str, int] = {}
    for row in rows(engine, tables.outcomes):
        found[row[2]] = found.get(row[2], 0) + row[4]
    return found


def reasons(engine: Engine) -> dict[tuple[str, str], str | None]:
    """Why an event does not count, by (event, metric)."""
    with reading(engine) as connection:
        return {(row.event_id, row.metric): row.reason for row in connection.execute(judged([TRADE]))}


def test_an_amount_takes_the_rate_of_its_time(database: Engine, secrets: Secrets) -> None:
    """From a rate's moment on it holds, until the next; before the first there is none, and the reason names it."""
    said(database, rate(10, 0.5), rate(20, 0.25))
    bought = [dollars(str(at), at, 8) for at in (9, 10, 19, 20)]
    live(database, secrets, [decision("d", 0), *bought])

    assert values(database) == {"revenue": 4_000_000 + 4_000_000 + 2_000_000}
    assert reasons(database)["9", "revenue"] == "no_rate USD/EUR"
    assert reasons(database)["10", "revenue"] is None
    assert reasons(database)["10", "euros"] == "other_currency"


def test_a_rate_that_comes_later_restates(database: Engine, secrets: Secrets) -> None:
    """Outcomes, sums and reasons are then as if the rate had been there first; the same file again changes nothing."""
    live(database, secrets, [decision("d", 0), dollars("p", 10, 8), purchase("q", 12, 1)])
    assert values(database) == {"revenue": 1_000_000, "euros": 1_000_000}

    found = said(database, rate(5, 0.5))
    assert (found.new, found.known, found.restated, found.loops) == (1, 0, 1, ("emails",))
    assert values(database) == {"revenue": 5_000_000, "euros": 1_000_000}
    sums = {row[2]: row[7] for row in rows(database, tables.content_stats)}
    assert sums == {"revenue": 5_000_000, "euros": 1_000_000, "returned": 0}

    before = {table.name: rows(database, table) for table in (tables.batches, tables.audit, tables.exchange_rates)}
    assert said(database, rate(5, 0.5)) == Imported(new=0, known=1, loops=("emails",))
    assert before == {
        table.name: rows(database, table) for table in (tables.batches, tables.audit, tables.exchange_rates)
    }


def test_a_corrected_rate_restates_its_span_alone(database: Engine, secrets: Secrets) -> None:
    """Only amounts from its time until the next rate are joined anew, and an earlier batch still sees the older rate."""
    said(database, rate(0, 0.5), rate(20, 0.25), rate(0, 0.125, "USD", "GBP"))
    live(database, secrets, [decision("d", 0), dollars("p", 10, 8), decision("e", 15), dollars("q", 25, 8)])
    then = rows(database, tables.outcomes)
    with reading(database) as connection:
        batch_no = connection.scalar(select(tables.batches.c.batch_no).order_by(tables.batches.c.batch_no.desc()))

    assert said(database, rate(0, 0.75)).restated == 1
    assert said(database, rate(0, 9, "USD", "GBP")).restated == 0
    assert values(database) == {"revenue": 6_000_000 + 2_000_000}
    with reading(database) as connection:
        as_then = connection.execute(outcomes_query([TRADE], as_of=batch_no))
        assert sorted(map(tuple, as_then)) == then
        assert (
            sorted(map(tuple, connection.execute(outcomes_query([TRADE])))) == rows(database, tables.outcomes) != then
        )


@pytest.mark.parametrize("late", [False, True])
def test_a_full_refund_is_exactly_nothing(database: Engine, secrets: Secrets, late: bool) -> None:
    """A refund takes back dollars at the rate of their purchase, whatever they are worth by then: nothing is left over."""
    words = [rate(0, 0.333), rate(20, 0.777)]
    facts: list[Decision | Event] = [
        *(decision("d", 0), dollars("p", 10, 7), dollars_back("r", 30, 7, "p")),
        *(dollars("q", 11, 7), dollars_back("s", 31, 3, "q"), dollars_back("t", 32, None, "q")),
        *(dollars("u", 12, 7), dollars_back("v", 33, 3, "u")),
    ]
    if not late:
        said(database, *words)
    live(database, secrets, facts)
    if late:
        said(database, *words)

    assert values(database)["revenue"] == 4 * 333_000
    assert reasons(database)["p", "revenue"] == reasons(database)["q", "revenue"] == "refunded"


def test_money_given_back_is_worth_what_was_paid(database: Engine, secrets: Secrets) -> None:
    """A metric of refunds counts them at the rate of their purchase, also when the purchase comes last; one that names no
    purchase at its own."""
    said(database, rate(0, 0.333), rate(20, 0.777))
    alone = msgspec.structs.replace(dollars_back("w", 34, 1, "p"), reverses=None, unit="u1:ann")
    live(database, secrets, [decision("d", 0), dollars_back("r", 30, 7, "p"), alone])
    assert values(database) == {"returned": 777_000}

    live(database, secrets, [dollars("p", 10, 7)])
    assert values(database) == {"returned": 777_000 + 7 * 333_000}

    said(database, rate(0, 0.5))  # of the purchase's time, not of the refund's
    assert values(database) == {"returned": 777_000 + 7 * 500_000}


def test_a_report_that_can_be_used_now_takes_the_place_of_another(database: Engine, secrets: Secrets) -> None:
    """Of two reports of an order the one with its decision leads once its amount is known: both decisions are restated."""
    named = msgspec.structs.replace(dollars("bank", 12, 8, decision_id="d", unit=None), fact_key="p", source="bank")
    live(database, secrets, [decision("d", 0), decision("e", 5), purchase("p", 10, 3), named])
    assert {row[0]: row[4] for row in rows(database, tables.outcomes) if row[2] == "revenue"} == {"e": 3_000_000}

    assert said(database, rate(0, 0.5)).restated == 2
    assert {row[0]: row[4] for row in rows(database, tables.outcomes) if row[2] == "revenue"} == {"d": 4_000_000}


def test_an_amount_that_outgrows_the_limit_is_kept(database: Engine, secrets: Secrets) -> None:
    """What would be more than an amount may be is not used, with the reason."""
    said(database, rate(0, 2))
    live(database, secrets, [decision("d", 0), dollars("p", 10, 10**10)])
    assert values(database) == {}
    assert reasons(database)["p", "revenue"] == "too_large"


def test_an_amount_without_a_currency_is_kept(database: Engine, secrets: Secrets) -> None:
    """Nobody knows what it is worth."""
    said(database, rate(0, 2))
    live(database, secrets, [decision("d", 0), msgspec.structs.replace(purchase("p", 10, 8), currency=None)])
    assert reasons(database)["p", "revenue"] == "other_currency"


def test_what_is_left_of_a_cent_is_rounded_half_up(database: Engine, secrets: Secrets) -> None:
    """One rule, on both databases: half a millionth counts as one."""
    said(database, rate(0, 0.5))
    live(
        database,
        secrets,
        [decision("d", 0), *(msgspec.structs.replace(dollars(f"p{n}", 10, 0), value_micros=n) for n in (1, 2, 3))],
    )
    assert values(database) == {"revenue": 1 + 1 + 2}


def test_a_metric_that_begins_to_convert_scores_history_again(any_engine: Engine, secrets: Secrets) -> None:
    """The rates that are stored hold for it at once; metrics that never convert keep their version."""
    plain = with_metrics(REVENUE, REVENUE | {"name": "euros"})
    with writing(any_engine) as connection:
        put_loop(connection, plain, 0)
    live(any_engine, secrets, [decision("d", 0), dollars("p", 10, 8)])
    assert said(any_engine, rate(0, 0.5)) == Imported(new=1, known=0, batch_no=3)
    assert values(any_engine) == {}

    redefine(any_engine, TRADE, 5)
    assert values(any_engine) == {"revenue": 4_000_000}
    assert TRADE.metric("euros").version == plain.metric("euros").version
    assert TRADE.metric("revenue").version != plain.metric("revenue").version


def test_many_decisions_are_restated_some_at_a_time(
    database: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts together are what a backfill makes of everything."""
    monkeypatch.setattr(restating, "SOME", 2)
    facts = [decision(f"d{n}", 0, unit=f"u1:{n}") for n in range(5)]
    live(database, secrets, [*facts, *(dollars(f"p{n}", 10, n + 1, unit=f"u1:{n}") for n in range(5))])

    assert said(database, rate(0, 0.5)).restated == 5
    joined = rows(database, tables.outcomes), rows(database, tables.content_stats)
    assert values(database) == {"revenue": 15 * 500_000}
    backfill(database, "emails", 0)
    assert joined == (rows(database, tables.outcomes), rows(database, tables.content_stats))


def test_an_import_is_in_the_ledger_and_in_the_audit(database: Engine) -> None:
    """A batch of its own counts what was new and what was known; the audit says who imported what."""
    said(database, rate(0, 0.5))
    found = said(database, rate(0, 0.5), rate(9, 0.25), rate(9, 3, "GBP", "EUR"))

    with reading(database) as connection:
        batch = connection.execute(select(tables.batches).where(tables.batches.c.batch_no == found.batch_no)).one()
        line = read_audit(connection, action="import_rates")[-1]
    assert (batch.read, batch.applied, batch.duplicate) == (3, 2, 1)
    assert conservation(database) == 0
    assert (line.actor, line.subject) == ("ann", "bank")
    assert line.details == {"new": 2, "batch_no": found.batch_no, "restated": 0, "pairs": ["GBP/EUR", "USD/EUR"]}


@pytest.mark.parametrize("source", ["", "x" * 257, "a\x00b"])
def test_a_source_has_a_name(database: Engine, source: str) -> None:
    """Whoever asks later where a rate is from must find a word that is stored."""
    with pytest.raises(BadInput, match="source"):
        import_rates(database, [rate(0, 1)], source, "ann", 0)


def test_converting_needs_a_currency() -> None:
    """A metric that converts says to what."""
    with pytest.raises(BadInput, match="convert needs the currency"):
        with_metrics({"name": "revenue", "event": "purchase", "aggregate": "sum", "convert": True})


def test_a_metric_that_does_not_convert_is_written_as_before() -> None:
    """Documents, versions and digests of definitions of before stay what they were."""
    assert "convert" not in LOOP.model_dump(mode="json")["metrics"][1]
    assert TRADE.model_dump(mode="json")["metrics"][0]["convert"] is True
