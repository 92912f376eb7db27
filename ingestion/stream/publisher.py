"""Where facts go that came in over HTTP: into the store, or, with Kafka configured, onto the events topic.

``accept`` is the one function for events, webhooks and redirected clicks. With Kafka: 1 publish the events, labels
beside them; 2 wait for the acknowledgements; 3 hold what was rejected in quarantine, in a batch of its own, and say so
on the quarantine topic; only then the caller may answer. What is missing at 2 or 3 raises, and says what is safe already. At least once: sending all
again changes nothing, because every event is stored once.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec
from sqlalchemy import Engine

from infra.broker import Message, Producer
from infra.errors import NotAcknowledged, RewardloopError, Unavailable
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch, Label
from ingestion.store import Applied, EventState
from ingestion.stream.announcements import Announcer
from ingestion.stream.messages import encode_event
from ingestion.stream.topics import topics

PUBLISH_SECONDS = 10.0
"""How long a call waits for acknowledgements."""
REST_SECONDS = 1.0
"""How long an absent broker is not asked again."""

State = EventState | Literal["published"]
"""What became of one event. ``published``: on the topic; the worker will tell duplicates and conflicts."""


class Producing(Protocol):
    """What a publisher needs of ``infra.broker.Producer``; described there."""

    def publish(self, messages: Sequence[Message], timeout: float) -> list[RewardloopError | None]:
        """One entry per message; None: acknowledged."""

    def close(self) -> None:
        """Send what waits, then close."""


class Publisher:
    """The producer, shared between threads; opened again as long as brokers are away."""

    def __init__(self, settings: Settings, make: Callable[[Settings], Producing] = Producer) -> None:
        named = topics(settings.kafka_topic_prefix)
        self.topic, self.quarantine = named.events.name, named.quarantine.name
        self._settings, self._make = settings, make
        self._opening = threading.Lock()
        self._producer: Producing | None = None
        self._absent: tuple[float, Unavailable] | None = None

    def open(self) -> Producing:
        """The producer. Raises :class:`Unavailable` while no broker answers, at once if that was so a moment ago."""
        with self._opening:
            if self._producer is None:
                self._producer = self._connect()
            return self._producer

    def publish(self, messages: Sequence[Message]) -> list[RewardloopError | None]:
        """Send all and wait. One entry per message; None: acknowledged."""
        return self.open().publish(messages, PUBLISH_SECONDS)

    def close(self) -> None:
        """Send what waits, then close."""
        with self._opening:
            if self._producer is not None:
                self._producer.close()
                self._producer = None

    def _connect(self) -> Producing:
        if self._absent is not None and time.monotonic() - self._absent[0] < REST_SECONDS:
            raise self._absent[1]
        try:
            return self._make(self._settings)
        except Unavailable as away:
            self._absent = time.monotonic(), away
            raise


class Wired(Protocol):
    """What ``accept`` stands on."""

    @property
    def engine(self) -> Engine: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def publisher(self) -> Publisher | None: ...


def accept(wired: Wired, batch: Batch, now: int, pointers: Sequence[str] = ()) -> tuple[State, ...]:
    """Keep the batch's events, labels and rejected records; returns what became of each event, in order.

    ``pointers``: where each event stands in the request, for the answer. Raises :class:`Unavailable`, with Kafka
    :class:`NotAcknowledged`, when not everything was kept; sending all of it again is safe.
    """
    if wired.publisher is None:
        return _store(wired, batch, now).events
    if batch.events:
        _publish(wired.publisher, batch, pointers)
    published = {(event.source, event.event_id) for event in batch.events}
    labels = tuple(label for label in batch.labels if (label.source, label.event_id) not in published)
    held = _hold(wired, msgspec.structs.replace(batch, events=(), labels=labels), len(batch.events), now)
    if held is not None:
        Announcer(wired.engine, wired.publisher.quarantine, wired.publisher.open)(held)
    return tuple("published" for _ in batch.events)


def _store(wired: Wired, batch: Batch, now: int) -> Applied:
    days = wired.settings.quarantine_days
    return store.apply(wired.engine, batch, wired.secrets, now, quarantine_days=days)


def _publish(publisher: Publisher, batch: Batch, pointers: Sequence[str]) -> None:
    labels: dict[tuple[str, str], list[Label]] = {}
    for label in batch.labels:
        labels.setdefault((label.source, label.event_id), []).append(label)
    messages = [
        encode_event(event, publisher.topic, labels.get((event.source, event.event_id), ())) for event in batch.events
    ]
    errors = publisher.publish(messages)
    missing = {index: error for index, error in enumerate(errors) if error is not None}
    for error in missing.values():
        if not error.retriable:
            raise error
    if missing:
        raise NotAcknowledged(
            f"Kafka acknowledged {len(errors) - len(missing)} of {len(errors)} events: {str(next(iter(missing.values()))).rstrip('.')}. "
            "Send all of them again; those it has count once",
            [(pointers[index] if pointers else "", str(error)) for index, error in missing.items()],
        )


def _hold(wired: Wired, rest: Batch, published: int, now: int) -> Applied | None:
    """Quarantine what was rejected, count what was ignored, keep labels of events sent before; None: nothing is left."""
    if rest == Batch():
        return None
    try:
        return _store(wired, rest, now)
    except Unavailable as away:
        raise NotAcknowledged(
            f"Kafka acknowledged all {published} usable events, but what else was sent could not be kept: "
            f"{str(away).rstrip('.')}. Send all of it again; the events count once"
        ) from away
