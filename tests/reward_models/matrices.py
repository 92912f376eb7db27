"""Matrices that trees are grown on: numbers, codes, holes and zeros."""

import numpy as np

from reward_models.masks import Floats

ROWS = 300


def drawn_matrix(random: np.random.Generator, columns: int, categorical: int, missing: float) -> Floats:
    """Rows of numbers, of which the first columns are codes and a share is missing."""
    found = random.normal(size=(ROWS, columns)).round(1)
    found[:, :categorical] = random.integers(0, 40, size=(ROWS, categorical))
    found[random.random(found.shape) < missing] = np.nan
    found[random.random(found.shape) < missing] = 0.0
    return found
