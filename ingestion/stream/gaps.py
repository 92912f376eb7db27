"""Gaps: a stored position that the topic's log does not hold. Nothing is skipped until a person accepts it.

A position before the log's beginning: records were deleted by retention before they were read. Beyond its end: the
log lost its tail. Another topic id: the topic was deleted and made anew. Accepting starts the partition at the
beginning of what is there: records that were applied before change nothing when they are read again.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine, select

from infra.database import lock_join, upsert, writing
from infra.errors import Conflict, RewardloopError
from infra.tables import offsets
from ingestion.audit import record
from ingestion.ledger import Stored, newest_batch

REWRITTEN = "the end of the log was lost and written anew, so records may be others than those that were read"
ACCEPTED = "offsets.accept_gap"
"""The audit's word for a gap that a person accepted."""


class Gap(NamedTuple):
    """Why a partition cannot be read on. ``missing``: records known to be gone; null: nobody can know."""

    topic: str
    partition: int
    position: int
    earliest: int
    latest: int
    missing: int | None
    reason: str

    @property
    def advice(self) -> str:
        """What to do."""
        where = f"{self.topic} {self.partition}"
        if self.reason == REWRITTEN:
            return (
                f"Read it all again, which changes nothing that was applied: rewardloop replay --from earliest "
                f"--topic {self.topic} --partition {self.partition}; then start the worker"
            )
        return (
            "If the records exist elsewhere, send them again: what was applied already changes nothing. Then start the "
            f"partition at the beginning of its log, on the record: rewardloop offsets accept-gap {where}"
        )


class GapFound(RewardloopError):
    """A partition cannot be read on; the message says what to do."""

    title = "A stored position is not in the log"

    def __init__(self, gap: Gap) -> None:
        self.gap = gap
        at = f"{gap.topic}/{gap.partition}"
        super().__init__(f"{at}: {gap.reason}. Nothing was skipped, the worker stopped. {gap.advice}")


def gap_of(
    partition: tuple[str, int], stored: Stored, bounds: tuple[int, int] | None, topic_id: str | None
) -> Gap | None:
    """The gap between the database and the log, if there is one.

    ``bounds``: first offset of the log and the one after its last; null: not asked. ``topic_id``: the broker's, if it
    is known.
    """
    earliest, latest = bounds or (stored.position, stored.position)
    if None not in (stored.topic_id, topic_id) and stored.topic_id != topic_id:
        missing, reason = None, "the topic was deleted and made anew since its records were read"
    elif stored.position < earliest:
        missing = earliest - stored.position
        reason = f"{missing:,} records from {stored.position} to {earliest - 1} were deleted before they were read"
    elif stored.position > latest:
        missing = None
        reason = f"the database has read up to {stored.position}, the log ends at {latest}: it lost its end"
    else:
        return None
    return Gap(*partition, stored.position, earliest, latest, missing, reason)


def find_gaps(
    stored: Mapping[tuple[str, int], Stored],
    bounds: Mapping[tuple[str, int], tuple[int, int]],
    topic_ids: Mapping[str, str | None],
) -> list[Gap]:
    """The gaps of the partitions whose bounds are given, in their order."""
    found = (
        gap_of(partition, stored[partition], ends, topic_ids.get(partition[0]))
        for partition, ends in sorted(bounds.items())
        if partition in stored
    )
    return [gap for gap in found if gap is not None]


def accept_gap(engine: Engine, gap: Gap, topic_id: str | None, actor: str, now: int) -> None:
    """Start the partition at the beginning of its log, and write down what is missing.

    Under the join lock, so that a batch under way is either before it or is refused. Raises :class:`Conflict` when
    the partition has moved since the gap was found.
    """
    key = {"topic": gap.topic, "partition": gap.partition}
    with writing(engine) as connection:
        lock_join(connection)
        here = (offsets.c.topic == gap.topic) & (offsets.c.partition == gap.partition)
        position = connection.scalar(select(offsets.c.position).where(here))
        if position != gap.position:
            raise Conflict(f"{gap.topic}/{gap.partition} stands at {position} now, no longer at {gap.position}")
        moved = {"position": gap.earliest, "batch_no": newest_batch(connection), "topic_id": topic_id}
        upsert(connection, offsets, [key | moved])
        details = gap._asdict() | {"topic_id": topic_id}
        record(connection, actor, ACCEPTED, f"{gap.topic}/{gap.partition}", details, now)
