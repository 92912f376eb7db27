"""Stored offsets and what the log holds: where they agree, and every way they can part."""

import pytest
from sqlalchemy import Engine

from infra.database import reading, writing
from infra.errors import Conflict
from ingestion.events import Offset
from ingestion.ledger import Stored, save_offsets, stored_offsets
from ingestion.stream.gaps import REWRITTEN, Gap, GapFound, gap_of

PLACE = ("events", 3)


@pytest.mark.parametrize(
    ("stored", "bounds", "topic_id", "missing", "words"),
    [
        (Stored(5, "one"), (0, 9), "one", 0, None),
        (Stored(0, "one"), (0, 0), "one", 0, None),
        (Stored(9, "one"), (5, 9), "one", 0, None),
        (Stored(5, None), (5, 5), "one", 0, None),
        (Stored(5, "one"), (0, 9), None, 0, None),
        (Stored(5, "one"), None, "one", 0, None),
        (Stored(4, "one"), (5, 9), "one", 1, "1 records from 4 to 4 were deleted before they were read"),
        (Stored(10, "one"), (0, 9), "one", None, "the log ends at 9: it lost its end"),
        (Stored(5, "one"), (0, 9), "two", None, "deleted and made anew"),
        (Stored(5, "one"), None, "two", None, "deleted and made anew"),
    ],
)
def test_a_gap_is_a_position_outside_the_log_or_another_topic(
    stored: Stored, bounds: tuple[int, int] | None, topic_id: str | None, missing: int | None, words: str | None
) -> None:
    """Positions from the first record up to behind the last are in the log; an unknown topic id says nothing."""
    gap = gap_of(PLACE, stored, bounds, topic_id)

    if words is None:
        assert gap is None
    else:
        assert gap is not None
        assert words in gap.reason
        assert gap.missing == missing
        assert "rewardloop offsets accept-gap events 3" in str(GapFound(gap))


def test_a_rewritten_log_is_read_again() -> None:
    """Where the position is in the log, but its records were replaced, there is nothing to accept: replay reads them."""
    gap = Gap(*PLACE, 7, 0, 12, None, REWRITTEN)

    assert "rewardloop replay --from earliest --topic events --partition 3" in str(GapFound(gap))


def offset(begin: int, end: int, topic_id: str | None) -> Offset:
    topic, partition = PLACE
    return Offset(topic=topic, partition=partition, begin=begin, end=end, topic_id=topic_id)


def test_a_topics_id_is_kept_once_known(any_engine: Engine) -> None:
    """The id is stored with the position, and a batch that does not know it does not erase it."""
    seen = []
    for number, step in enumerate([offset(0, 2, None), offset(2, 3, "one"), offset(3, 7, None)], 1):
        with writing(any_engine) as connection:
            save_offsets(connection, number, [step])
            seen.append(stored_offsets(connection)[PLACE])

    assert seen == [Stored(2, None), Stored(3, "one"), Stored(7, "one")]


def test_a_batch_of_another_topic_is_refused(any_engine: Engine) -> None:
    """Offsets of a topic made anew look alike and mean other records: the batch is refused, nothing moves."""
    with writing(any_engine) as connection:
        save_offsets(connection, 1, [offset(0, 2, "one")])

    with pytest.raises(Conflict, match="read from topic one, this batch from two"), writing(any_engine) as connection:
        save_offsets(connection, 2, [offset(2, 3, "two")])
    with reading(any_engine) as connection:
        assert stored_offsets(connection) == {PLACE: Stored(2, "one")}
