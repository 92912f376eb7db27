"""Masked trees against LightGBM itself."""

from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.anatomy import trim
from reward_models.masks import Floats, MaskedTrees, read_masks
from tests.reward_models.matrices import STRANGE, booster, drawn_matrix


def scores(trees: MaskedTrees, rows: Floats) -> Floats:
    """Every row's score, one context with one content at a time."""
    parts = [(row[: trees.context], trees.contents(row[None, trees.context :])) for row in rows]
    return np.concatenate([trees.score(context, content) for context, content in parts])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 6),
    categorical=st.integers(0, 3),
    leaves=st.sampled_from([2, 3, 31, 32, 33, 64]),
    missing=st.sampled_from([0.0, 0.2]),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
    share=st.floats(0.0, 1.0),
)
def test_scores_are_those_of_lightgbm(
    seed: int,
    columns: int,
    categorical: int,
    leaves: int,
    missing: float,
    zero_as_missing: bool,
    use_missing: bool,
    share: float,
) -> None:
    """Over random models, cut anywhere into context and content, scores equal ``Booster.predict`` within 1e-9."""
    random = np.random.default_rng(seed)
    categorical = min(categorical, columns)
    X = drawn_matrix(random, columns, categorical, missing)
    more = {"num_leaves": leaves, "zero_as_missing": zero_as_missing, "use_missing": use_missing}
    model = booster(random, X, categorical, **more)
    trees = read_masks(trim(model.model_to_string()), round(share * columns))
    rows = np.vstack([X[:20], random.choice(STRANGE, size=(40, columns))])

    assert trees is not None
    expected = np.asarray(model.predict(rows))
    np.testing.assert_allclose(trees.predict(rows), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scores(trees, rows), expected, rtol=1e-9, atol=1e-9)


def test_a_split_between_missing_and_known() -> None:
    """Missing values go their own way where a node's threshold is infinite."""
    random = np.random.default_rng(3)
    X = drawn_matrix(random, 3, 0, 0.3)
    y = np.isnan(X[:, 0]) + 2.0 * np.isnan(X[:, 2])
    model = lgb.train({"verbosity": -1, "num_leaves": 4, "min_data_in_leaf": 1}, lgb.Dataset(X, y), num_boost_round=5)
    text = trim(model.model_to_string())
    trees = read_masks(text, 1)
    assert trees is not None
    assert "inf" in text
    np.testing.assert_allclose(scores(trees, X), model.predict(X), rtol=1e-9)


def test_contents_are_taken_by_index() -> None:
    """Masks of some contents, in any order, score as those contents do."""
    random = np.random.default_rng(1)
    X = drawn_matrix(random, 5, 1, 0.1)
    trees = read_masks(trim(booster(random, X, 1).model_to_string()), 2)
    assert trees is not None
    every, some = trees.contents(X[:30, 2:]), [7, 3, 3, 29]
    np.testing.assert_array_equal(trees.score(X[0, :2], every.take(some)), trees.score(X[0, :2], every)[some])


@pytest.mark.parametrize("more", [{"num_leaves": 65}, {"linear_tree": True}])
def test_what_cannot_be_represented_is_refused(more: dict[str, Any]) -> None:
    """Trees of more leaves than bits in a word, and linear ones, give None: the caller uses LightGBM."""
    random = np.random.default_rng(2)
    X = drawn_matrix(random, 4, 0, 0.0)
    assert read_masks(trim(booster(random, X, 0, **more).model_to_string()), 2) is None


def test_a_booster_without_splits() -> None:
    """A booster that learned nothing scores its constant."""
    X = np.ones((50, 3))
    model = lgb.train({"verbosity": -1}, lgb.Dataset(X, np.full(50, 2.5)), num_boost_round=3)
    trees = read_masks(trim(model.model_to_string()), 1)
    assert trees is not None
    np.testing.assert_allclose(scores(trees, X[:2]), model.predict(X[:2]))
