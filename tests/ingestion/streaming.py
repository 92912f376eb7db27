"""Records of topics in native JSON, a store they go into, and what a worker leaves there."""

import json
from typing import Any

from sqlalchemy import Engine, Table, select

from infra import tables
from infra.broker import Partition
from infra.database import reading, writing
from ingestion.contents import put_campaign
from ingestion.events import Campaign
from ingestion.ledger import conservation, stored_offsets
from ingestion.loops import put_loop
from tests.ingestion.join.test_join_histories import LOOP
from tests.ingestion.tables import attributed

UNIT = f"u1:{'a' * 32}"


def at(second: int) -> str:
    """A time of the history, in seconds from its beginning."""
    return f"2026-09-21T10:{second // 60:02}:{second % 60:02}Z"


def decided(id_: str, second: int, **changes: Any) -> bytes:
    """A record of the decisions topic: content a, chosen with probability one half."""
    document = {"decision_id": id_, "loop": "emails", "campaign": "spring", "decided_at": at(second), "unit": UNIT}
    return json.dumps(document | {"content_id": "a", "propensity": 0.5} | changes).encode()


def happened(id_: str, type_: str, second: int, **changes: Any) -> bytes:
    """A record of the events topic."""
    return json.dumps({"event_id": id_, "type": type_, "occurred_at": at(second), **changes}).encode()


def bought(id_: str, second: int, euros: int, **changes: Any) -> bytes:
    """A purchase as a record."""
    return happened(id_, "purchase", second, value=euros, currency="EUR", order_id=id_, **changes)


def prepared(engine: Engine) -> Engine:
    """The store with the loop and the campaign that records name."""
    with writing(engine) as connection:
        put_loop(connection, LOOP, 0)
        put_campaign(connection, Campaign(campaign_id="spring", loop_id="emails"))
    return engine


def left_in(engine: Engine) -> dict[str, Any]:
    """All that must not depend on what went wrong: facts, joins, outcomes, sums, quarantine, positions."""
    return {
        "decisions": column(engine, tables.decisions, "decision_id"),
        "events": column(engine, tables.events, "source", "event_id", "type", "value_micros", "occurred_at"),
        "attributions": attributed(engine),
        "outcomes": column(engine, tables.outcomes, *[c.name for c in tables.outcomes.c]),
        "content_stats": column(engine, tables.content_stats, *[c.name for c in tables.content_stats.c]),
        "quarantine": column(engine, tables.quarantine, "source", "position", "reason"),
        "offsets": positions(engine),
        "conservation": conservation(engine),
        "uncounted": column(engine, tables.decisions, "batch_no").count((None,)),
    }


def column(engine: Engine, table: Table, *names: str) -> list[tuple[Any, ...]]:
    """Some columns of a table's rows, sorted."""
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(select(*(table.c[name] for name in names))))


def positions(engine: Engine) -> dict[Partition, int]:
    """Where the database says partitions are read from."""
    with reading(engine) as connection:
        return {partition: stored.position for partition, stored in stored_offsets(connection).items()}
