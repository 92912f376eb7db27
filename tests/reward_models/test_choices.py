"""Candidates as columns say what the candidates said."""

import numpy as np
import pyarrow as pa

from ingestion.events import Candidate
from reward_models.choices import STORED, Choices


def one(content_id: str, policy_p: float | None = None, behaviour_p: float | None = None) -> Candidate:
    return Candidate(content_id=content_id, policy_p=policy_p, behaviour_p=behaviour_p)


ROWS = [
    (one("a", 0.2, 0.3), one("b", 0.8, 0.7)),
    (),
    (one("c", 1.0, None),),
    (one("a", 0.5, 0.5), one("b", 0.5, 0.5)),
    (one("b", 0.5, 0.5), one("a", 0.5, 0.5)),
]


def test_a_row_is_what_could_be_chosen() -> None:
    """From candidates, from Arrow and from parts joined: the same contents and probabilities, unknown ones too."""
    lists = [
        [{"content_id": c.content_id, "policy_p": c.policy_p, "behaviour_p": c.behaviour_p} for c in r] for r in ROWS
    ]
    read = Choices.of_arrow(pa.array(lists, type=STORED))
    joined = Choices.joined([Choices.of(ROWS[:2]), Choices.of(ROWS[2:]), Choices.of([])])

    assert list(ROWS) == list(Choices.of(ROWS)) == list(read) == list(joined)
    assert list(Choices.joined([])) == []


def test_parts_are_rows_in_order() -> None:
    """Masks, indices and slices take the rows they name."""
    choices = Choices.of(ROWS)

    assert [ROWS[4], ROWS[0], ROWS[1]] == list(choices.take(np.array([4, 0, 1])))
    assert [ROWS[0], ROWS[2]] == list(choices.take(np.array([True, False, True, False, False])))
    assert (ROWS[1:3], ROWS[-1]) == (list(choices[1:3]), choices[-1])


def test_sets_are_contents_in_their_order() -> None:
    """Rows with the same contents in the same order share a number; probabilities do not matter."""
    of_row, sets = Choices.of(ROWS).sets()

    assert (of_row.tolist(), sets) == ([0, 1, 2, 0, 3], [("a", "b"), (), ("c",), ("b", "a")])


def test_tables_are_padded_with_zeros() -> None:
    """Probabilities in the order of each row; unknown is nan, beyond the end 0."""
    choices = Choices.of(ROWS)

    np.testing.assert_equal(choices.table("policy_p"), [[0.2, 0.8], [0, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_equal(choices.table("behaviour_p")[2], [np.nan, 0])
