"""What went into quarantine is announced, and a failure to do so harms nothing."""

import json

import pytest

from infra import tables
from infra.broker import Message
from infra.errors import RewardloopError, Unavailable
from infra.telemetry import announcement_failures
from ingestion.stream.announcements import Announcer
from tests.ingestion.stream.story import EVENTS, Story
from tests.ingestion.streaming import column


class Listener:
    """A producer that keeps what is published, or refuses it."""

    def __init__(self, error: RewardloopError | None = None) -> None:
        self.error = error
        self.messages: list[Message] = []

    def publish(self, messages: list[Message], timeout: float = 30.0) -> list[RewardloopError | None]:
        self.messages += messages
        return [self.error] * len(messages)

    def close(self) -> None:
        self.error = RewardloopError("closed")


def test_quarantined_records_are_announced(story: Story) -> None:
    """The quarantine topic says which record was put aside and why, and never holds its bytes."""
    story.log.values[EVENTS, 0].append(b'{"secret": "of a customer"')
    producer = Listener()
    story.run()
    announcer = Announcer(story.engine, "quarantine", lambda: producer)

    for applied in story.announced:
        announcer(applied)

    said = [json.loads(message.value or b"") for message in producer.messages]
    assert sorted((one["id"], one["position"]) for one in said) == column(
        story.engine, tables.quarantine, "id", "position"
    )
    assert {frozenset(one) for one in said} == {frozenset(("id", "source", "position", "reason", "batch_no"))}
    assert not any(b"customer" in (message.value or b"") for message in producer.messages)


@pytest.mark.parametrize("refuses", [True, False])
def test_an_announcement_that_fails_is_counted(story: Story, refuses: bool) -> None:
    """A broker that is away, or refuses, costs the announcement and nothing else."""
    before = announcement_failures._value.get()

    def connect() -> Listener:
        if refuses:
            raise Unavailable("No Kafka broker answers")
        return Listener(Unavailable("Kafka: timed out"))

    story.run()
    announcer = Announcer(story.engine, "quarantine", connect)
    for applied in story.announced:
        announcer(applied)

    assert announcement_failures._value.get() == before + 1
