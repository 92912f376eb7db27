"""Golden rows: every leaf of every tree is reached by one of them, whatever the trees look at."""

from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.anatomy import trim
from reward_models.golden import Floats, golden_matrix
from tests.reward_models.matrices import ROWS, drawn_matrix


def grown(random: np.random.Generator, matrix: Floats, categorical: int, **more: Any) -> lgb.Booster:
    """A booster as it is served: read from its own text."""
    known = np.nan_to_num(matrix)
    target = (known * np.roll(known, 1, axis=1)).sum(axis=1) + np.isnan(matrix).sum(axis=1) + random.normal(size=ROWS)
    parameters = {"verbosity": -1, "min_data_in_leaf": 1, "min_data_per_group": 1, "cat_smooth": 0.0, "num_threads": 1}
    data = lgb.Dataset(matrix, target, categorical_feature=list(range(categorical)), params=more)
    booster = lgb.train(parameters | more, data, num_boost_round=6)
    return lgb.Booster(model_str=trim(booster.model_to_string(num_iteration=-1)))


def leaves(booster: lgb.Booster) -> set[tuple[int, int]]:
    """Every leaf there is."""
    sizes = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    return {(tree, leaf) for tree, size in enumerate(sizes) for leaf in range(size)}


def reached(booster: lgb.Booster, rows: Floats) -> set[tuple[int, int]]:
    """The leaves that these rows fall into."""
    found = np.asarray(booster.predict(rows, pred_leaf=True), dtype=np.int64).reshape(len(rows), -1)
    return {(tree, leaf) for tree, column in enumerate(found.T) for leaf in column.tolist()}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 6),
    categorical=st.integers(0, 3),
    num_leaves=st.sampled_from([2, 5, 31]),
    missing=st.sampled_from([0.0, 0.2]),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
    known=st.sampled_from([1, 10, ROWS]),
)
def test_golden_rows_reach_every_leaf(
    seed: int,
    columns: int,
    categorical: int,
    num_leaves: int,
    missing: float,
    zero_as_missing: bool,
    use_missing: bool,
    known: int,
) -> None:
    """Over random models of numbers and categories, with missing values decided in each of LightGBM's ways, every leaf
    of every tree is reached, even where few training rows are at hand to choose from."""
    random = np.random.default_rng(seed)
    matrix = drawn_matrix(random, columns, min(categorical, columns), missing)
    more = {"num_leaves": num_leaves, "zero_as_missing": zero_as_missing, "use_missing": use_missing}
    booster = grown(random, matrix, min(categorical, columns), **more)

    golden = golden_matrix(booster, matrix[:known], seed=1)

    assert reached(booster, golden) == leaves(booster)
    assert len(golden) <= len(leaves(booster))


def test_training_rows_come_first() -> None:
    """Nothing is put together for a leaf that a training row reaches."""
    random = np.random.default_rng(4)
    matrix = drawn_matrix(random, 4, 1, 0.1)

    golden = golden_matrix(grown(random, matrix, 1), matrix, seed=1)

    rows = {row.tobytes() for row in matrix}
    assert all(row.tobytes() in rows for row in golden)


@pytest.mark.parametrize("missing_goes", ["left", "right"])
def test_a_split_between_missing_and_known(missing_goes: str) -> None:
    """Both sides of a node that parts missing values from all others are reached, with no missing value at hand."""
    random = np.random.default_rng(3)
    matrix = drawn_matrix(random, 3, 0, 0.3)
    target = np.isnan(matrix[:, 0]) * (1.0 if missing_goes == "left" else -1.0) + 2.0 * np.isnan(matrix[:, 2])
    parameters = {"verbosity": -1, "num_leaves": 4, "min_data_in_leaf": 1}
    booster = lgb.train(parameters, lgb.Dataset(matrix, target), num_boost_round=5)

    golden = golden_matrix(booster, np.zeros((1, 3)), seed=1)

    assert reached(booster, golden) == leaves(booster)
