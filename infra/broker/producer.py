"""Writing to Kafka: a message without an error is stored on every in-sync broker (``acks=all``, idempotent)."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from infra.broker.client import faults, kafka, not_allowed, opened, translated
from infra.broker.shapes import Message
from infra.errors import RewardloopError, Unavailable
from infra.logs import log
from infra.settings import Settings

CLOSE_SECONDS = 5


class Producer:
    """Writes messages and waits for their acknowledgement. May be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._producer = opened(
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

    def publish(self, messages: Sequence[Message], timeout: float = 30.0) -> list[RewardloopError | None]:
        """Send all, then wait for all, ``timeout`` seconds at most. One entry per message: None, or what went wrong.

        A message that timed out may still arrive; sending it again is safe where its id is known to the reader. Nothing
        but these messages is waited for: of a frozen broker kafka-python may keep a batch for ever that nobody wants.
        """
        deadline = time.monotonic() + timeout
        unknown = {topic: self._missing(topic) for topic in {message.topic for message in messages}}
        sent = [unknown[message.topic] or self._send(message) for message in messages]
        return [_outcome(one, deadline) for one in sent]

    def close(self) -> None:
        """Wait a few seconds for what is on its way, then close; its senders know what was not confirmed."""
        try:
            self._producer.close(timeout=CLOSE_SECONDS)
        except faults().KafkaError as error:  # then kafka-python leaves its thread at work
            log.warning("kafka_unconfirmed", reason=str(error))
            self._producer._sender.force_close()
            with suppress(faults().KafkaError):
                self._producer.close(timeout=CLOSE_SECONDS)

    def _missing(self, topic: str) -> RewardloopError | None:
        try:
            self._producer.partitions_for(topic)
        except faults().KafkaError as error:
            if isinstance(error, not_allowed()):
                return translated(error)
            return Unavailable(
                f"Kafka does not answer, or topic {topic} does not exist: `rewardloop topics ensure` makes it"
            )
        return None

    def _send(self, message: Message) -> Any:
        try:
            return self._producer.send(message.topic, message.value, message.key, list(message.headers))
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
