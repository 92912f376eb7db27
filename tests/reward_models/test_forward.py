"""Rows teach other units' rows, and only later ones where the log has times."""

import numpy as np

from reward_models.forward import forward, in_turn

TIMES = np.random.default_rng(4).integers(0, 40, 200)
FOLDS = np.random.default_rng(5).integers(0, 2, 200)


def test_teachers_are_earlier_and_other_units() -> None:
    """Of every pair, each teaching row is earlier than each judged one, and none shares its fold."""
    for teaching, judged in forward(TIMES, FOLDS):
        assert TIMES[teaching].max() < TIMES[judged].min()
        assert not set(FOLDS[teaching]) & set(FOLDS[judged])


def test_every_row_after_the_first_block_is_judged_once() -> None:
    """Nothing is judged twice; what is not judged is the first fifth, up to decisions of the same moment."""
    judged = np.sum([part for _, part in forward(TIMES, FOLDS)], axis=0)

    assert set(judged) == {0, 1}
    assert TIMES[judged == 0].max() < TIMES[judged == 1].min()
    assert 0.1 < np.mean(judged == 0) < 0.3


def test_one_moment_cannot_be_cut() -> None:
    """A log of one moment has no past, so nothing is judged."""
    assert list(forward(np.zeros(50, dtype=np.int64), np.zeros(50, dtype=np.int64))) == []


def test_without_times_what_comes_before_teaches() -> None:
    """Each fold of the second half is judged once, by all folds before it and by no other."""
    fold = np.random.default_rng(6).permutation(200) % 10
    pairs = list(in_turn(fold))

    assert [sorted(set(fold[judged])) for _, judged in pairs] == [[5], [6], [7], [8], [9]]
    assert [sorted(set(fold[teaching])) for teaching, _ in pairs] == [list(range(last)) for last in range(5, 10)]


def test_nothing_to_learn_from_is_nothing_to_judge() -> None:
    """Neither no rows nor rows of one unit are judged."""
    assert list(in_turn(np.zeros(0, dtype=np.int64))) == []
    assert list(in_turn(np.zeros(7, dtype=np.int64))) == []
