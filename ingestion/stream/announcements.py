"""The quarantine topic: that a record was put into quarantine, for whoever wants to be told instead of looking.

A message holds id, source, position, reason and batch, never the record's bytes: these are in the table alone,
encrypted. Best effort, after the commit: the table is the truth, so an announcement that is lost (a crash in between,
a broker that is away) loses no record, and `rewardloop quarantine list` still shows it. What could not be announced
is counted.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from sqlalchemy import Engine, select

from infra.broker import Message
from infra.database import reading
from infra.errors import RewardloopError
from infra.logs import log
from infra.tables import quarantine
from infra.telemetry import announcement_failures
from ingestion.store import Applied

SECONDS = 5.0
"""How long the acknowledgements of one batch are waited for."""


class Producer(Protocol):
    """What is needed of ``infra.broker.Producer``."""

    def publish(self, messages: list[Message], timeout: float) -> list[RewardloopError | None]:
        """One entry per message: None, or what went wrong."""

    def close(self) -> None:
        """Send what is on its way."""


class Announcer:
    """Announces what a committed batch put into quarantine. ``connect`` opens the producer, when first needed."""

    def __init__(self, engine: Engine, topic: str, connect: Callable[[], Producer]) -> None:
        self._engine, self._topic, self._connect = engine, topic, connect
        self._producer: Producer | None = None

    def __call__(self, applied: Applied) -> None:
        """Never raises for a broker or database that is away."""
        if not applied.quarantined:
            return
        try:
            failed = self._publish(self._messages(applied))
        except RewardloopError as error:
            failed = [error] * applied.quarantined
        if failed:
            announcement_failures.inc(len(failed))
            log.warning("quarantine_not_announced", records=len(failed), reason=str(failed[0]))

    def close(self) -> None:
        """Close the producer, if there is one."""
        if self._producer is not None:
            self._producer.close()

    def _publish(self, messages: list[Message]) -> list[RewardloopError]:
        if self._producer is None:
            self._producer = self._connect()
        return [error for error in self._producer.publish(messages, SECONDS) if error is not None]

    def _messages(self, applied: Applied) -> list[Message]:
        """Newest first in the table, so that a long quarantine is not searched."""
        columns = (quarantine.c.id, quarantine.c.source, quarantine.c.position, quarantine.c.reason)
        query = select(*columns).where(quarantine.c.batch_no == applied.batch_no).order_by(quarantine.c.id.desc())
        with reading(self._engine) as connection:
            rows = connection.execute(query.limit(applied.quarantined)).all()
        return [self._message(row._mapping, applied.batch_no) for row in reversed(rows)]

    def _message(self, row: Any, batch_no: int) -> Message:
        return Message(self._topic, row["source"].encode(), msgspec.json.encode({**row, "batch_no": batch_no}))
