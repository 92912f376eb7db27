"""Products of integers that outgrow 64 bits: exact, and alike in SQL on both databases and in Python.

    scaled(value, factor)      in SQL: value × factor / 10^12, rounded half up; NULL where that is above LARGEST
    scale(value, factor)       the same in Python

SQLite multiplies such integers as binary fractions, so there the Python function is called; PostgreSQL has ``numeric``.
"""

import sqlite3
from typing import Any

from sqlalchemy import BigInteger, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

PARTS = 10**12
"""A factor of one: factors are in trillionths."""

LARGEST = 10**16
"""Largest product: hundreds of them add up within a 64-bit integer."""


def scale(value: int | None, factor: int | None) -> int | None:
    """``value × factor / PARTS``, rounded half up; None where it is above ``LARGEST``, or one of them is None.

    Neither is negative.
    """
    if value is None or factor is None:
        return None
    product = (value * factor + PARTS // 2) // PARTS
    return product if product <= LARGEST else None


def scaled(value: ColumnElement[Any], factor: ColumnElement[Any]) -> ColumnElement[int]:
    """:func:`scale` in SQL."""
    return _Scaled(value, factor)


def teach(connection: sqlite3.Connection) -> None:
    """Let SQL on this connection call :func:`scale`."""
    connection.create_function("scaled", 2, scale, deterministic=True)


class _Scaled(FunctionElement[int]):
    name = "scaled"
    inherit_cache = True
    type = BigInteger()


@compiles(_Scaled, "sqlite")
def _sqlite_scaled(element: _Scaled, compiler: SQLCompiler, **options: Any) -> str:
    return f"scaled({compiler.process(element.clauses, **options)})"


@compiles(_Scaled, "postgresql")
def _postgres_scaled(element: _Scaled, compiler: SQLCompiler, **options: Any) -> str:
    """``div`` cuts, exactly; what is NULL or too large is made one more than the largest, then NULL."""
    value, factor = (compiler.process(clause, **options) for clause in element.clauses)
    product = f"div(CAST({value} AS numeric) * {factor} + {PARTS // 2}, {PARTS})"
    return f"CAST(NULLIF(LEAST({product}, {LARGEST + 1}), {LARGEST + 1}) AS bigint)"
