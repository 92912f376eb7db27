"""Connections to PostgreSQL that are given up when it does not answer.

A server that is frozen, or whose disk is, keeps its connections open and says nothing; ``statement_timeout`` is its own
clock and stands still with it, and TCP's keepalives are answered by its kernel. So the client's clock decides: when one
answer takes longer than ``patience`` seconds the connection is closed and the call fails like one that was cut off.
"""

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors


class _Impatient(psycopg.Connection[Any]):
    patience = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except errors._WaitTimeout:  # the driver's own, before it becomes a public one
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.patience:g} seconds") from None


def impatient(patience: float) -> Callable[[Any, Any, Any, Any], Any]:
    """A listener of SQLAlchemy's ``do_connect`` that opens such connections."""
    kind: Any = type("Impatient", (_Impatient,), {"patience": patience})

    def connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
        return kind.connect(*arguments, **named)

    return connect
