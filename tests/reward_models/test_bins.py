"""Masks looked up by bins are those that the nodes give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models import bins
from reward_models.anatomy import trim
from reward_models.masks import MaskedTrees, read_masks
from tests.reward_models.matrices import STRANGE, booster, drawn_matrix


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 5),
    categorical=st.integers(0, 3),
    leaves=st.sampled_from([2, 31, 40]),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
)
def test_looked_up_is_compared(
    seed: int, columns: int, categorical: int, leaves: int, zero_as_missing: bool, use_missing: bool
) -> None:
    """Over random models, and values at, between and beyond thresholds, missing, zero, infinite, and codes that nobody
    knows: one row, many rows and every node's own comparison give the same bits."""
    random = np.random.default_rng(seed)
    categorical = min(categorical, columns)
    X = drawn_matrix(random, columns, categorical, 0.2)
    more = {"num_leaves": leaves, "zero_as_missing": zero_as_missing, "use_missing": use_missing}
    trees = read_masks(trim(booster(random, X, categorical, **more).model_to_string()), columns)
    rows = np.vstack([X[:20], random.choice(STRANGE, size=(60, columns))])
    rows = np.vstack([rows, np.nextafter(rows, np.inf), np.nextafter(rows, -np.inf)])

    assert trees is not None
    half = trees._context_half
    assert half._bins is not None or not len(half._nodes.tree)
    assert half.bits_of_many(rows).tolist() == half.bits(rows).tolist()
    assert [half.bits_of(row).tolist() for row in rows] == half.bits(rows).tolist()


def test_what_is_too_large_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table beyond the limit is not made, and the scores are the same without it."""
    random = np.random.default_rng(1)
    X = drawn_matrix(random, 4, 1, 0.1)
    text = trim(booster(random, X, 1).model_to_string())
    looked_up = _scores(read_masks(text, 2), X)
    monkeypatch.setattr(bins, "MOST_BYTES", 100)
    compared = read_masks(text, 2)

    assert compared is not None
    assert compared._context_half._bins is None
    assert _scores(compared, X) == looked_up


def _scores(trees: MaskedTrees | None, X: np.ndarray) -> list[list[float]]:
    assert trees is not None
    found: list[list[float]] = trees.scores(X[:30, :2], trees.contents(X[:5, 2:])).tolist()
    return found
