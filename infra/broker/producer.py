"""Writing to Kafka: a message without an error is stored on every in-sync broker (``acks=all``, idempotent).

kafka-python's producer can fall silent for ever: after a broker froze its thread was seen to wait for a usable producer
id, or epoch, and to send nothing any more. So one that confirmed nothing of a whole call is replaced before the next. What it still held may
arrive or not, as its senders were told.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from infra.broker.client import faults, kafka, not_allowed, opened, translated
from infra.broker.shapes import Message
from infra.errors import BadInput, Misconfigured, RewardloopError, Unavailable
from infra.logs import log
from infra.settings import Settings

CLOSE_SECONDS = 5


class Producer:
    """Writes messages and waits for their acknowledgement. May be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changing = threading.Lock()
        self._silent: Any = None
        self._producer = _begun(settings)

    def publish(self, messages: Sequence[Message], timeout: float = 30.0) -> list[RewardloopError | None]:
        """Send all, then wait for all, ``timeout`` seconds at most. One entry per message: None, or what went wrong.

        A message that timed out may still arrive; sending it again is safe where its id is known to the reader. Nothing
        but these messages is waited for: of a frozen broker kafka-python may keep a batch for ever that nobody wants.
        """
        deadline = time.monotonic() + timeout
        try:
            producer = self._sound()
        except Unavailable as away:
            return [away] * len(messages)
        unknown = {topic: _missing(producer, topic) for topic in {message.topic for message in messages}}
        sent = [unknown[message.topic] or _send(producer, message) for message in messages]
        outcomes = [_outcome(one, deadline) for one in sent]
        if outcomes and all(map(_tells_of_the_client, outcomes)):
            self._silent = producer
        return outcomes

    def close(self) -> None:
        """Wait a few seconds for what is on its way, then close; its senders know what was not confirmed."""
        _end(self._producer)

    def _sound(self) -> Any:
        """The client, begun anew if it fell silent. Raises ``Unavailable``: then no broker answers."""
        with self._changing:
            if self._silent is self._producer:
                log.warning("kafka_producer_replaced", reason="it confirmed nothing of a call")
                self._producer = _begun(self._settings)
                threading.Thread(target=_end, args=(self._silent,), name="kafka-producer-end", daemon=True).start()
            return self._producer


def _begun(settings: Settings) -> Any:
    return opened(
        kafka().KafkaProducer,
        settings,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        batch_size=128 * 1024,
        max_block_ms=5_000,
        request_timeout_ms=10_000,
        delivery_timeout_ms=30_000,
        metrics_enabled=False,
    )


def _tells_of_the_client(outcome: RewardloopError | None) -> bool:
    """Whether it went wrong for no reason that lies in the message or the settings."""
    return outcome is not None and not isinstance(outcome, BadInput | Misconfigured)


def _end(producer: Any) -> None:
    try:
        producer.close(timeout=CLOSE_SECONDS)
    except faults().KafkaError as error:  # then kafka-python leaves its thread at work
        log.warning("kafka_unconfirmed", reason=str(error))
        producer._sender.force_close()
        with suppress(faults().KafkaError):
            producer.close(timeout=CLOSE_SECONDS)


def _missing(producer: Any, topic: str) -> RewardloopError | None:
    try:
        producer.partitions_for(topic)
    except faults().KafkaError as error:
        if isinstance(error, not_allowed()):
            return translated(error)
        return Unavailable(
            f"Kafka does not answer, or topic {topic} does not exist: `rewardloop topics ensure` makes it"
        )
    return None


def _send(producer: Any, message: Message) -> Any:
    try:
        return producer.send(message.topic, message.value, message.key, list(message.headers))
    except faults().KafkaError as error:
        return translated(error)


def _outcome(sent: Any, deadline: float) -> RewardloopError | None:
    if isinstance(sent, RewardloopError):
        return sent
    try:
        sent.get(timeout=max(0.0, deadline - time.monotonic()))
    except faults().KafkaError as error:
        return translated(error)
    return None
