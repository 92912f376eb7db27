"""Two writers at once on PostgreSQL: right with the join lock, wrong without it (invariant 4)."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine, select

from infra import tables
from infra.database import lock_join, reading, writing
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, HistoricalResult, Label
from ingestion.ledger import Standing, conservation
from ingestion.loops import put_loop
from tests.ingestion.join.test_join_histories import LOOP, decision, purchase
from tests.ingestion.tables import rows

ROUNDS = 12

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]


def wrong_rounds(engine: Engine, secrets: Secrets, lock: Callable[[Connection], None]) -> int:
    """In each round two writers report two orders of one decision at the same moment: rounds with a wrong sum.

    Both have inserted their facts, and committed nothing, when they come to ``lock``.
    """
    both_inserted = Barrier(2)

    def meet_and_lock(connection: Connection) -> None:
        both_inserted.wait(timeout=30)
        lock(connection)

    with writing(engine) as connection:
        put_loop(connection, LOOP, 0)
    for round_ in range(ROUNDS):
        store.apply(engine, Batch(decisions=(decision(f"d{round_}", 0),)), secrets, 0)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as writers:
        patch.setattr(store, "lock_join", meet_and_lock)
        for round_ in range(ROUNDS):
            orders = [purchase(f"p{round_} {name}", 10, 3, decision_id=f"d{round_}") for name in ("left", "right")]
            list(writers.map(lambda order: store.apply(engine, Batch(events=(order,)), secrets, 0), orders))
    revenue = {row[0]: row[4] for row in rows(engine, tables.outcomes) if row[2] == "revenue"}
    return sum(revenue.get(f"d{round_}") != 6_000_000 for round_ in range(ROUNDS))


def test_two_writers_with_the_join_lock_are_always_right(postgres: Engine, secrets: Secrets) -> None:
    """Two batches about one decision at the same moment add up, every time."""
    assert wrong_rounds(postgres, secrets, lock_join) == 0
    assert conservation(postgres) == 0


def test_of_two_writers_that_expect_one_number_the_second_takes_the_next(postgres: Engine, secrets: Secrets) -> None:
    """Facts are stored under the number that is next; if it is taken before the lock, all of them are under another."""
    both_inserted = Barrier(2)

    def meet_and_lock(connection: Connection) -> None:
        both_inserted.wait(timeout=30)
        lock_join(connection)

    def batch(name: str) -> Batch:
        result = HistoricalResult(
            import_id=name, row=1, loop_id="l", campaign_id="c", content_id="a", exposures=1, metrics={}
        )
        click = purchase(f"p {name}", 10, 3, decision_id=f"d {name}")
        label = Label(source=click.source, event_id=click.event_id, label="bot", labelled_at=1)
        return Batch(decisions=(decision(f"d {name}", 0),), events=(click,), labels=(label,), results=(result,))

    with writing(postgres) as connection:
        put_loop(connection, LOOP, 0)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as writers:
        patch.setattr(store, "lock_join", meet_and_lock)
        both = list(writers.map(lambda name: store.apply(postgres, batch(name), secrets, 0), ("left", "right")))

    assert sorted(applied.batch_no for applied in both) == [1, 2]
    numbers = {name: applied.batch_no for name, applied in zip(("left", "right"), both, strict=True)}
    for table, key in (
        *((tables.decisions, "decision_id"), (tables.events, "event_id")),
        *((tables.event_labels, "event_id"), (tables.historical_results, "import_id")),
    ):
        with reading(postgres) as connection:
            stored = connection.execute(select(table.c[key], table.c.batch_no)).all()
        assert {id_.split()[-1]: batch_no for id_, batch_no in stored} == numbers


def test_without_the_join_lock_an_order_is_lost(
    postgres: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock each writer misses the other's order: what the lock is for.

    Batch numbers are dealt out apart here, else their primary key would refuse the second writer.
    """
    numbers = itertools.count(1_000)
    monkeypatch.setattr(store, "standing", lambda _: Standing(next(numbers)))

    assert wrong_rounds(postgres, secrets, lambda _: None) >= 1
