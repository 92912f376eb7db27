"""Leases: one run per loop at a time, without a lock server.

A lease is a row with a holder, an end (machine time) and a token that every new holder raises. The holder renews
it from a thread; a process that dies stops renewing, and after ``LENGTH`` another takes over. A holder that was
only slow may wake up later: whatever it then writes is refused, because it checks its token in the transaction of
the write (a fencing token).
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select, update

from infra import tables
from infra.clock import MICROS, system_clock
from infra.database import insert_once, reading, writing
from infra.errors import Conflict, Unavailable
from infra.logs import log

LENGTH = 30 * MICROS
"""How long a lease outlives its last renewal."""

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Lease:
    """A lease that is held. ``token`` is the number to check before every write it protects."""

    name: str
    holder: str
    token: int


@contextmanager
def lease(engine: Engine, name: str, length: int = LENGTH) -> Iterator[Lease]:
    """Hold the lease ``name``. Waits for a dead holder's end; raises :class:`Conflict` when a living one has it."""
    held = _acquire(engine, name, f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}", length)
    stop = threading.Event()
    renewal = threading.Thread(target=_keep, args=(engine, held, length, stop), name=f"lease {name}", daemon=True)
    renewal.start()
    try:
        yield held
    finally:
        stop.set()
        renewal.join()
        _release(engine, held)


def check(connection: Connection, held: Lease) -> None:
    """Raise :class:`Conflict` unless the lease is still ours; locks its row to the end of the transaction."""
    mine = (tables.leases.c.name == held.name) & (tables.leases.c.token == held.token)
    if connection.execute(select(tables.leases.c.token).where(mine).with_for_update()).first() is None:
        raise Conflict(f"The lease {held.name!r} was taken over by another run; nothing was written")


def _acquire(engine: Engine, name: str, holder: str, length: int) -> Lease:
    first_seen = _end(engine, name)
    while (held := _take(engine, name, holder, length)) is None:
        end = _end(engine, name)
        if end != first_seen and end > system_clock():
            raise Conflict(f"{name} is running already; wait for it to finish, then try again")
        time.sleep(_POLL_SECONDS)
    return held


def _take(engine: Engine, name: str, holder: str, length: int) -> Lease | None:
    now = system_clock()
    with writing(engine) as connection:
        insert_once(connection, tables.leases, [{"name": name, "holder": "", "token": 0, "expires_at": 0}])
        token = connection.execute(
            update(tables.leases)
            .where(tables.leases.c.name == name, tables.leases.c.expires_at <= now)
            .values(holder=holder, token=tables.leases.c.token + 1, expires_at=now + length)
            .returning(tables.leases.c.token)
        ).scalar()
    return None if token is None else Lease(name, holder, token)


def _end(engine: Engine, name: str) -> int:
    with reading(engine) as connection:
        query = select(tables.leases.c.expires_at).where(tables.leases.c.name == name)
        return connection.execute(query).scalar() or 0


def _keep(engine: Engine, held: Lease, length: int, stop: threading.Event) -> None:
    while not stop.wait(length / MICROS / 3):
        try:
            _move_end(engine, held, system_clock() + length)
        except Unavailable as error:
            log.warning("lease not renewed", name=held.name, reason=str(error))


def _release(engine: Engine, held: Lease) -> None:
    _move_end(engine, held, 0)


def _move_end(engine: Engine, held: Lease, end: int) -> None:
    with writing(engine) as connection:
        connection.execute(
            update(tables.leases)
            .where(tables.leases.c.name == held.name, tables.leases.c.token == held.token)
            .values(expires_at=end)
        )
