"""The topics Rewardloop reads and writes, in one table.

Names are ``<prefix>.<what>.v1``; a change that readers of today could not follow gets a new number. A topic is the way
records travel, the database is where they stay: what retention deletes was applied long before, and what is still
there can be replayed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from infra.broker import Topic

DAY_MS = 86_400_000


class Topics(NamedTuple):
    """The topics of one installation."""

    decisions: Topic
    events: Topic
    contents: Topic
    quarantine: Topic

    @property
    def read(self) -> tuple[Topic, ...]:
        """What a worker reads: all but the quarantine, which it writes."""
        return self.decisions, self.events, self.contents


def topics(prefix: str = "rewardloop") -> Topics:
    """Every topic under ``prefix``."""

    def topic(name: str, key: str, partitions: int, days: int, holds: str) -> Topic:
        return Topic(f"{prefix}.{name}.v1", key, partitions, days * DAY_MS, holds)

    return Topics(
        decisions=topic(
            "decisions",
            "unit hash, else decision id",
            6,
            14,
            "Decisions made elsewhere, with their probabilities where they are known.",
        ),
        events=topic(
            "events",
            "unit hash, else decision id, else event id",
            6,
            14,
            "Clicks, purchases, refunds and other events; a unit is there as its keyed hash only.",
        ),
        contents=topic("contents", "content id", 1, 90, "Campaigns and contents, each content once."),
        quarantine=topic(
            "quarantine",
            "source",
            1,
            30,
            "What was put into quarantine: id, source, position and reason; never bytes, these are in the database.",
        ),
    )


def all_topics(prefix: str = "rewardloop") -> Iterator[Topic]:
    """Every topic, in the order of the table."""
    yield from topics(prefix)
