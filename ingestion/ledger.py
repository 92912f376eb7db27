"""The ledger: every batch with the state each of its records ended in (invariant 1), and how far topics were read.

Campaigns and contents are definitions, not records: they are stored by a batch and not counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, func, select

from infra.database import reading, upsert
from infra.errors import Conflict
from infra.tables import batches, offsets, seals
from ingestion.events import Offset

State = Literal["applied", "duplicate", "ignored", "pending", "quarantined"]
STATES: tuple[State, ...] = ("applied", "duplicate", "ignored", "pending", "quarantined")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of ``batches`` but its number and time."""

    read: int = 0
    applied: int = 0
    duplicate: int = 0
    ignored: int = 0
    pending: int = 0
    quarantined: int = 0
    reasons: dict[str, dict[str, int]] = {}
    left_pending: int = 0
    became_pending: int = 0
    left_quarantine: int = 0
    decisions: int = 0


def newest_batch(connection: Connection) -> int:
    """Number of the newest batch; 0 before the first."""
    return int(connection.execute(select(func.coalesce(func.max(batches.c.batch_no), 0))).scalar_one())


class Standing(NamedTuple):
    """The newest batch; before which time decisions are sealed, and before which events may be gone (microseconds; 0: none)."""

    batch_no: int
    horizon: int = 0
    events_before: int = 0


def standing(connection: Connection) -> Standing:
    """Where the ledger stands."""
    return Standing(*map(int, connection.execute(_STANDING).one()))


_STANDING = select(
    func.coalesce(func.max(batches.c.batch_no), 0),
    *(select(func.coalesce(func.max(time), 0)).scalar_subquery() for time in (seals.c.horizon, seals.c.events_before)),
)


def record_batch(connection: Connection, batch_no: int, now: int, counts: Counts) -> None:
    """Write the batch's line of the ledger."""
    connection.execute(batches.insert(), {"batch_no": batch_no, "at": now, **msgspec.structs.asdict(counts)})


class Stored(NamedTuple):
    """Where a partition stands: the next offset to read, and the id of the topic it was read from (null: unknown)."""

    position: int
    topic_id: str | None


def stored_offsets(connection: Connection) -> dict[tuple[str, int], Stored]:
    """Where every partition stands that was ever read, by topic and partition."""
    return {
        (row.topic, row.partition): Stored(row.position, row.topic_id) for row in connection.execute(select(offsets))
    }


def save_offsets(connection: Connection, batch_no: int, read: Sequence[Offset]) -> None:
    """Move the positions of the partitions read. A topic's id, once known, stays.

    Raises :class:`Conflict` when a partition no longer stands where this batch began, or was read from a topic that
    is not the stored one: another worker was here, or the topic was made anew.
    """
    if not read:
        return
    stored = stored_offsets(connection)
    rows = []
    for offset in sorted(read, key=lambda offset: (offset.topic, offset.partition)):
        before = stored.get((offset.topic, offset.partition))
        if before is not None:
            _still_there(before, offset)
        row = {"topic": offset.topic, "partition": offset.partition, "position": offset.end, "batch_no": batch_no}
        rows.append(row | {"topic_id": offset.topic_id or (before.topic_id if before else None)})
    upsert(connection, offsets, rows)


def _still_there(stored: Stored, offset: Offset) -> None:
    if stored.position != offset.begin:
        raise Conflict(
            f"{offset.topic}/{offset.partition} stands at {stored.position}, this batch began at {offset.begin}: "
            "another worker applied it; read on from the stored position"
        )
    if None not in (stored.topic_id, offset.topic_id) and stored.topic_id != offset.topic_id:
        raise Conflict(
            f"{offset.topic}/{offset.partition} was read from topic {stored.topic_id}, this batch from "
            f"{offset.topic_id}: the topic was made anew; see rewardloop offsets list"
        )


def tally(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason was given."""
    return dict(Counter(reasons))


def conservation(engine: Engine) -> int:
    """Records read less records in a state, over all batches: always 0."""
    in_a_state = sum((batches.c[state] for state in STATES[1:]), batches.c[STATES[0]])
    with reading(engine) as connection:
        return int(connection.execute(select(func.coalesce(func.sum(batches.c.read - in_a_state), 0))).scalar_one())
