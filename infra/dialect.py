"""The few expressions that SQLite and PostgreSQL spell differently.

Lists go into a statement as one JSON parameter: no limit on their length, and the same text of the statement,
planned and compiled once, whatever they hold.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, Text, cast, column, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from infra.database import canonical_json


class _Elements(FunctionElement[Any]):
    name = "elements"
    inherit_cache = True


@compiles(_Elements, "sqlite")
def _sqlite_elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Elements, "postgresql")
def _postgres_elements(element: _Elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"jsonb_array_elements(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


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


def bytewise(text: ColumnElement[Any]) -> ColumnElement[str]:
    """``text`` ordered by its bytes, not by the customs of a language: ties break the same way everywhere."""
    return _Bytewise(text)


def elements(json: ColumnElement[Any], name: str) -> FromClause:
    """The elements of a JSON array as rows with one column ``value``; :func:`part` takes them apart."""
    return _Elements(json).table_valued(column("value", Text), name=name)


def part(value: ColumnElement[Any], key: str | int, kind: TypeEngine[Any] | None = None) -> ColumnElement[Any]:
    """What is under ``key`` of a JSON object or array, as text or as ``kind``; JSON null is NULL."""
    found = value.op("->>", return_type=Text())(literal(key, literal_execute=True))
    return found if kind is None else cast(found, kind)


def listed(name: str, rows: Iterable[Sequence[Any]], **columns: TypeEngine[Any]) -> CTE:
    """``rows`` as a table of these ``columns``, in one JSON parameter."""
    each = elements(literal(canonical_json([list(row) for row in rows]).decode(), Text()), f"{name}_json")
    parts = [part(each.c.value, place, kind).label(label) for place, (label, kind) in enumerate(columns.items())]
    return select(*parts).select_from(each).cte(name).prefix_with("MATERIALIZED")
