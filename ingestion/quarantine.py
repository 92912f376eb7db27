"""Records that could not be used: their bytes, encrypted, and the reason; until replayed, dropped or expired.

The bytes are AES-256-GCM with a random nonce, bound to source and position. A record that is held already (same
source, position and bytes) is a duplicate, not a second entry.
"""

import hmac
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, Select, Text, and_, select, update

from infra.clock import DAY
from infra.database import lock_join, reading, writing
from infra.dialect import as_list, listed, prepared
from infra.errors import BadInput, NotFound
from infra.secrets import Secrets
from infra.tables import quarantine
from infra.telemetry import transitions
from ingestion import audit
from ingestion.events import Batch, Decision, Event, Label, Rejected
from ingestion.ledger import Counts, newest_batch, record_batch

Fact = Event | Decision | Label

_ADDRESS = re.compile(r"[^\s'\"<>(),;:]{1,256}(@|%40)[^\s'\"<>(),;:]{1,256}")
CONFLICT = "conflict/"
"""Positions of records that were whole but contradicted a stored fact; their bytes are our own JSON."""
FIRST_IS_THE_FACT = "the first is the fact"
"""What the reason of every such record says."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One quarantined record. ``raw`` is None in lists, and once expired or dropped."""

    id: int
    source: str
    position: str
    reason: str
    state: str
    created_at: int
    expires_at: int
    batch_no: int | None
    raw: bytes | None = None


Facts = tuple[Fact, ...]
Decoder = Callable[[Held], Fact | Facts | Rejected]
"""Turns the bytes into facts again, as the edge would today. None at all: what they say is stored by this already."""


def conflict_of(fact: Event | Decision, reason: str) -> Rejected:
    """A fact that contradicts a stored one, as a record for quarantine."""
    source, kind, id_ = (
        (fact.source, "event", fact.event_id) if isinstance(fact, Event) else ("api", "decision", fact.decision_id)
    )
    return Rejected(
        source=source, position=f"{CONFLICT}{kind}/{id_}"[:256], reason=reason, raw=msgspec.json.encode(fact)
    )


def kind_of(reason: str) -> str:
    """Few words for the many reasons: ``conflict`` with a stored fact, or ``rejected`` as it came."""
    return "conflict" if FIRST_IS_THE_FACT in reason else "rejected"


def unnamed(reason: str) -> str:
    """A reason as it may be kept for ever: bytes of a record are encrypted and expire, what a reason quotes of them does
    not, so addresses of people are taken out. (A mapping off by one column quotes thousands.)"""
    return _ADDRESS.sub("…@…", reason) if "@" in reason or "%40" in reason else reason


def hold(
    connection: Connection, secrets: Secrets, rejected: Sequence[Rejected], batch_no: int, now: int, days: int
) -> list[bool]:
    """Put records into quarantine; False for each that is held already."""
    key = secrets.quarantine()
    held = _held_already(connection, key, rejected)
    new: list[bool] = []
    rows: list[dict[str, Any]] = []
    for record in rejected:
        identity = _identity(key, record)
        new.append(identity not in held)
        if identity not in held:
            held.add(identity)
            rows.append(_row(key, record, identity[2], batch_no, now, now + days * DAY))
    if rows:
        connection.execute(quarantine.insert(), rows)
    return new


def release(connection: Connection, ids: Iterable[int], state: str) -> int:
    """Move held records to ``state`` and delete their bytes; returns how many were held."""
    changed = update(quarantine).where(quarantine.c.id.in_(list(ids)), quarantine.c.state == "held")
    return connection.execute(changed.values(state=state, raw=None)).rowcount


def list_held(engine: Engine, *, state: str = "held", limit: int = 100) -> list[Held]:
    """The newest records in that state, without their bytes."""
    query = select(quarantine).where(quarantine.c.state == state).order_by(quarantine.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [_held(row, None) for row in connection.execute(query)]


def show(engine: Engine, secrets: Secrets, id_: int) -> Held:
    """One record with its bytes. Raises :class:`NotFound`."""
    with reading(engine) as connection:
        row = connection.execute(select(quarantine).where(quarantine.c.id == id_)).first()
    if row is None:
        raise NotFound(f"No quarantined record {id_}; list them with: rewardloop quarantine list")
    return _held(row, secrets.quarantine())


def held_with_bytes(connection: Connection, secrets: Secrets) -> Iterator[Held]:
    """Every record whose bytes are still there, decrypted, oldest first."""
    query = select(quarantine).where(quarantine.c.raw.is_not(None)).order_by(quarantine.c.id)
    key = secrets.quarantine()
    for rows in connection.execute(query.execution_options(yield_per=1_000)).partitions():
        yield from (_held(row, key) for row in rows)


def replay(engine: Engine, secrets: Secrets, ids: Iterable[int], decode: Decoder) -> tuple[Batch, dict[int, str]]:
    """The batch that applies these records again, and for those that still cannot be used the reason of today.

    Give the batch to ``store.apply``: it marks the records replayed in the transaction that applies them.
    Raises :class:`BadInput` for a record whose bytes are gone.
    """
    facts: list[Fact] = []
    replayed: list[int] = []
    refused: dict[int, str] = {}
    for id_ in ids:
        record = show(engine, secrets, id_)
        if record.raw is None:
            raise BadInput(f"The bytes of quarantined record {id_} are gone ({record.state}); it cannot be replayed")
        found = _decode(record, decode)
        if isinstance(found, Rejected):
            refused[id_] = found.reason
        else:
            facts += found if isinstance(found, tuple) else (found,)
            replayed.append(id_)
    return _batch(facts, replayed), refused


def drop(engine: Engine, ids: Iterable[int], now: int, actor: str = "cli") -> int:
    """Give records up, audited: their bytes are deleted, and the transition is counted in a batch of its own."""
    ids = sorted(ids)
    with writing(engine) as connection:
        lock_join(connection)
        dropped = release(connection, ids, "dropped")
        if dropped:
            record_batch(connection, newest_batch(connection) + 1, now, Counts(left_quarantine=dropped))
            audit.record(connection, actor, "drop", "quarantine", {"ids": ids}, now)
    transitions.labels("quarantined", "dropped").inc(dropped)
    return dropped


def expire(engine: Engine, now: int) -> int:
    """Delete the bytes of records past their time; the records and reasons stay."""
    due = and_(quarantine.c.expires_at <= now, quarantine.c.raw.is_not(None))
    with writing(engine) as connection:
        return connection.execute(update(quarantine).where(due).values(raw=None)).rowcount


def _decode(record: Held, decode: Decoder) -> Fact | Facts | Rejected:
    if not record.position.startswith(CONFLICT) or record.raw is None:
        return decode(record)
    kind: type[Event] | type[Decision] = Event if record.position.startswith(f"{CONFLICT}event/") else Decision
    return msgspec.json.decode(record.raw, type=kind)


def _batch(facts: list[Fact], replayed: list[int]) -> Batch:
    return Batch(
        events=tuple(fact for fact in facts if isinstance(fact, Event)),
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        labels=tuple(fact for fact in facts if isinstance(fact, Label)),
        replayed=tuple(replayed),
    )


_Identity = tuple[str, str, str]


def _identity(key: bytes, record: Rejected) -> _Identity:
    return record.source, record.position, hmac.digest(key, record.raw, "sha256").hex()


def _held_already(connection: Connection, key: bytes, rejected: Sequence[Rejected]) -> set[_Identity]:
    if not rejected:
        return set()
    found = _held_at(connection, records=as_list(_identity(key, record)[:2] for record in rejected))
    return {(row.source, row.position, row.digest) for row in found}


@prepared
def _held_at() -> Select[Any]:
    at = listed("records", source=Text(), position=Text())
    same = and_(quarantine.c.source == at.c.source, quarantine.c.position == at.c.position)
    return (
        select(quarantine.c.source, quarantine.c.position, quarantine.c.digest)
        .select_from(at.join(quarantine, same))
        .where(quarantine.c.state == "held")
    )


def _row(key: bytes, record: Rejected, digest: str, batch_no: int, now: int, expires_at: int) -> dict[str, Any]:
    nonce = os.urandom(12)
    return {
        "source": record.source,
        "position": record.position,
        "reason": unnamed(record.reason),
        "raw": nonce + AESGCM(key).encrypt(nonce, record.raw, _bound_to(record.source, record.position)),
        "digest": digest,
        "state": "held",
        "expires_at": expires_at,
        "created_at": now,
        "batch_no": batch_no,
    }


def _held(row: Any, key: bytes | None) -> Held:
    raw = None
    if key is not None and row.raw is not None:
        raw = AESGCM(key).decrypt(row.raw[:12], row.raw[12:], _bound_to(row.source, row.position))
    return Held(
        id=row.id,
        source=row.source,
        position=row.position,
        reason=row.reason,
        state=row.state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        batch_no=row.batch_no,
        raw=raw,
    )


def _bound_to(source: str, position: str) -> bytes:
    return f"{source}\x00{position}".encode()
