"""Reading and emptying tables in tests."""

from typing import Any

from sqlalchemy import Engine, FromClause, Select, Table, delete, select

from infra.database import reading, writing
from infra.tables import attributions, events, metadata


def rows(engine: Engine, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table, in the order of its key as Python sorts it."""
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(select(table)))


def named(attributed: FromClause = attributions) -> Select[tuple[str, str, str, str, str]]:
    """Attributions by the names of their events: numbers depend on who came first."""
    a = attributed.c
    query = select(events.c.source, events.c.event_id, a.loop_id, a.method, a.decision_id)
    return query.select_from(attributed).join(events, events.c.event_no == a.event_no)


def attributed(engine: Engine) -> list[tuple[str, str, str, str, str]]:
    """All attributions, by the names of their events, sorted."""
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(named()))


def empty(engine: Engine) -> None:
    """Delete every row but the loops."""
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            if table.name != "loops":
                connection.execute(delete(table))
