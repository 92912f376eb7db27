"""Reading and emptying tables in tests."""

from typing import Any

from sqlalchemy import Engine, Table, delete, select

from infra.database import reading, writing
from infra.tables import metadata


def rows(engine: Engine, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table, in the order of its key as Python sorts it."""
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(select(table)))


def empty(engine: Engine) -> None:
    """Delete every row but the loops."""
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            if table.name != "loops":
                connection.execute(delete(table))
