"""Matrices that trees are grown on (numbers, codes, holes and zeros), and the trees."""

from typing import Any

import lightgbm as lgb
import numpy as np

from reward_models.masks import Floats

ROWS = 300
STRANGE = [np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-34, np.inf, -np.inf, -1.0, 3.0, 7.5, 31.0, 32.0, 1e12, -1e300]


def drawn_matrix(random: np.random.Generator, columns: int, categorical: int, missing: float) -> Floats:
    """Rows of numbers, of which the first columns are codes and a share is missing."""
    found = random.normal(size=(ROWS, columns)).round(1)
    found[:, :categorical] = random.integers(0, 40, size=(ROWS, categorical))
    found[random.random(found.shape) < missing] = np.nan
    found[random.random(found.shape) < missing] = 0.0
    return found


def booster(random: np.random.Generator, X: Floats, categorical: int, **more: Any) -> lgb.Booster:
    """A booster of numbers in which every column matters, alone and with its neighbour."""
    known = np.nan_to_num(X)
    y = (known * np.roll(known, 1, axis=1)).sum(axis=1) + known.sum(axis=1) + random.normal(size=len(X))
    parameters = {"verbosity": -1, "min_data_in_leaf": 1, "min_data_per_group": 1, "cat_smooth": 0.0, "num_threads": 1}
    data = lgb.Dataset(X, y, categorical_feature=list(range(categorical)), params=more)
    return lgb.train(parameters | more, data, num_boost_round=8)
