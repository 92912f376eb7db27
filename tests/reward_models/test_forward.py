"""Rows teach other units' rows, and only later ones where the log has times."""

import numpy as np

from reward_models.forward import across, forward

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


def test_without_times_folds_teach_each_other() -> None:
    """Every row is judged once, by the other folds."""
    pairs = list(across(FOLDS))

    assert np.sum([judged for _, judged in pairs], axis=0).tolist() == [1] * 200
    assert all((teaching == ~judged).all() for teaching, judged in pairs)
