"""Further fields of old events go, and nothing else changes."""

import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.clock import DAY
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion import retention, store
from ingestion.events import Batch
from ingestion.join.backfill import backfill
from ingestion.loops import put_loop
from ingestion.retention import clear_fields, oldest_kept
from tests.ingestion.join.test_join_histories import LOOP, decision, event
from tests.ingestion.tables import attributed, rows


@pytest.fixture
def database(any_engine: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Nine clicks, one a day, each with the page it was made on; few are looked at together."""
    monkeypatch.setattr(retention, "SOME", 4)
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    clicks = [
        event(f"c{day}", "click", 5, decision_id="d", received_at=day * DAY, raw={"url": "https://shop.example.com/"})
        for day in range(9)
    ]
    store.apply(any_engine, Batch(decisions=(decision("d", 0),), events=tuple(clicks)), secrets, 0)
    return any_engine


def fields(engine: Engine) -> list[bool]:
    """Whether each event has further fields, oldest first."""
    with reading(engine) as connection:
        return [
            bool(raw) for raw in connection.scalars(select(tables.events.c.raw).order_by(tables.events.c.received_at))
        ]


def test_fields_of_old_events_go(database: Engine) -> None:
    """Those that arrived before the time, each once; the others stay."""
    assert clear_fields(database, 6 * DAY) == 6
    assert fields(database) == [False] * 6 + [True] * 3
    assert clear_fields(database, 6 * DAY) == 0


def test_outcomes_do_not_notice(database: Engine) -> None:
    """Attributions, outcomes and sums are the same, also computed anew."""
    before = attributed(database), rows(database, tables.outcomes), rows(database, tables.content_stats)
    clear_fields(database, 9 * DAY)
    backfill(database, LOOP.loop, 0)
    assert (attributed(database), rows(database, tables.outcomes), rows(database, tables.content_stats)) == before


@pytest.mark.parametrize(("days", "time"), [(0, 0), (3, 7 * DAY)])
def test_nothing_expires_unless_it_is_said(days: int, time: int) -> None:
    """0 days: kept for ever."""
    assert oldest_kept(10 * DAY, days) == time
