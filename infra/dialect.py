"""The few expressions that SQLite and PostgreSQL spell differently.

Lists go into a statement as one JSON parameter: no limit on their length, and one text of the statement whatever
they hold. ``prepared`` compiles that text once: building and hashing the join's expressions again for every batch
costs ten times what running them does.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from typing import Any, Protocol

import msgspec
from sqlalchemy import (
    CTE,
    ClauseElement,
    ColumnElement,
    Connection,
    CursorResult,
    FromClause,
    Text,
    TextClause,
    bindparam,
    cast,
    column,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


class _Elements(FunctionElement[Any]):
    name = "elements"
    inherit_cache = True


@compiles(_Elements, "sqlite")
def _sqlite_elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Elements, "postgresql")
def _postgres_elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"jsonb_array_elements(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


class _Parsed(FunctionElement[Any]):
    name = "parsed"
    inherit_cache = True


@compiles(_Parsed, "sqlite")
def _sqlite_parsed(element: _Parsed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_Parsed, "postgresql")
def _postgres_parsed(element: _Parsed, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS jsonb)"


class _Bytewise(FunctionElement[str]):
    name = "bytewise"
    inherit_cache = True
    type = Text()


@compiles(_Bytewise, "sqlite")
def _sqlite_bytewise(element: _Bytewise, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_Bytewise, "postgresql")
def _postgres_bytewise(element: _Bytewise, compiler: SQLCompiler, **options: Any) -> str:
    return f'({compiler.process(element.clauses, **options)} COLLATE "C")'


def bytewise(words: ColumnElement[Any]) -> ColumnElement[str]:
    """``words`` ordered by its bytes, not by the customs of a language: ties break the same way everywhere."""
    return _Bytewise(words)


def elements(json: ColumnElement[Any], name: str) -> FromClause:
    """The elements of a JSON array as rows with one column ``value``; :func:`part` takes them apart."""
    return _Elements(json).table_valued(column("value", Text), name=name)


def parsed(json: ColumnElement[Any]) -> ColumnElement[Any]:
    """A JSON text that is going to be taken apart more than once."""
    return _Parsed(json)


def member(value: ColumnElement[Any], place: int) -> ColumnElement[Any]:
    """An element (a literal of ours) of a :func:`parsed` array, for :func:`part`; NULL beyond its end."""
    return value.op("->")(literal_column(str(place)))


def part(value: ColumnElement[Any], key: str | int, kind: TypeEngine[Any] | None = None) -> ColumnElement[Any]:
    """What is under ``key`` (a literal of ours) of a JSON object or array, as text or as ``kind``; null is NULL."""
    place: ColumnElement[Any] = literal_column(str(key) if isinstance(key, int) else f"'{key}'")
    found = value.op("->>", return_type=Text())(place)
    return found if kind is None else cast(found, kind)


def listed(name: str, /, **columns: TypeEngine[Any]) -> CTE:
    """A table of these ``columns`` out of the parameter ``name``, which :func:`as_list` makes."""
    each = elements(bindparam(name, type_=Text()), f"{name}_json")
    parts = [part(each.c.value, place, kind).label(label) for place, (label, kind) in enumerate(columns.items())]
    return select(*parts).select_from(each).cte(name).prefix_with("MATERIALIZED")


def as_list(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as the value of a parameter that :func:`listed` reads."""
    return msgspec.json.encode(list(rows)).decode()


class Run(Protocol):
    """A prepared statement; ``__wrapped__`` builds it."""

    __wrapped__: Callable[[], ClauseElement]

    def __call__(self, connection: Connection, **parameters: Any) -> CursorResult[Any]:
        """Execute it."""


def prepared(build: Callable[[], ClauseElement]) -> Run:
    """A statement as a function of (connection, parameters by name), built and compiled once per database."""

    @cache
    def compiled(dialect: str) -> tuple[TextClause, dict[str, Any]]:
        spelling = postgresql.dialect if dialect == "postgresql" else sqlite.dialect
        statement = build().compile(dialect=spelling(paramstyle="named"))
        return text(str(statement)), dict(statement.params)

    @wraps(build)
    def run(connection: Connection, **parameters: Any) -> CursorResult[Any]:
        statement, constants = compiled(connection.dialect.name)
        return connection.execute(statement, {**constants, **parameters})

    return run
