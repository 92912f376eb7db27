"""Rows into PostgreSQL by columns: an array of texts for each, one statement whatever the number of rows.

    insert_new(connection, table, cells) -> {key}         keys that were not stored before

The statement is prepared once and its parameters are binary: a few long rows, as decisions are, cost a third of what
they do as one JSON document that the server takes apart (``infra/database.py``), which is made for thousands of short
ones. Every value travels as its text and becomes its type in the server.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, String, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect

from infra.database import Cells, Json, canonical_json

_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's


def insert_new(connection: Connection, table: Table, cells: Cells) -> set[str]:
    """Insert the rows whose primary key, a text, is new; the others stay as they are stored. Returns the new keys."""
    statement, writers = _statement(table, tuple(cells))
    values = (cells[name] for name in cells)
    arrays = {name: write(column) for (name, write), column in zip(writers, values, strict=True)}
    return set(connection.exec_driver_sql(statement, arrays).scalars())


_Write = Callable[[Sequence[Any]], list[str | None]]


@cache
def _statement(table: Table, names: tuple[str, ...]) -> tuple[str, tuple[tuple[str, _Write], ...]]:
    """The statement, and how each column is written, under the name of its parameter."""
    quote = _POSTGRES.identifier_preparer.quote
    key = quote(table.primary_key.columns[0].name)
    columns = ", ".join(map(quote, names))
    arrays = ", ".join(f"%(a{place})b::text[]" for place in range(len(names)))
    aliases = ", ".join(f"v{place}" for place in range(len(names)))
    values = ", ".join(f"v{place}{_cast(table, name)}" for place, name in enumerate(names))
    text = (
        f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM unnest({arrays}) AS given({aliases}) "  # noqa: S608
        f"ON CONFLICT ({key}) DO NOTHING RETURNING {key}"
    )
    return text, tuple((f"a{place}", _writer(table, name)) for place, name in enumerate(names))


def _cast(table: Table, name: str) -> str:
    """None for texts: casting one to a length would cut it, where storing it is an error."""
    kind = table.c[name].type
    return "" if isinstance(kind, String | Json) else f"::{kind.compile(_POSTGRES)}"


def _writer(table: Table, name: str) -> _Write:
    kind = table.c[name].type
    if isinstance(kind, Json):
        return _documents
    return _texts if isinstance(kind, String) else _words


def _texts(values: Sequence[Any]) -> list[str | None]:
    return list(values)


def _words(values: Sequence[Any]) -> list[str | None]:
    """Numbers and truth as PostgreSQL reads them."""
    return [None if value is None else str(value) for value in values]


def _documents(values: Sequence[Any]) -> list[str | None]:
    return [None if value is None else canonical_json(value).decode() for value in values]
