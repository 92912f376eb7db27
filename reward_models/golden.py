"""Golden rows: inputs with the scores they must give, stored in the bundle and checked at every load.

Rows are assembled features of training rows, picked greedily until every leaf of every tree that a training row
reaches is reached (a wrong leaf value anywhere is then a wrong score here). Examples are whole: context and
content in, expected reward out; they hold the text model and the encoding to their numbers as well.
"""

from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt

from ingestion.events import Content

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOLERANCE = 1e-9
"""Largest difference from a golden score, relative to 1 or to the score."""

_POOL = 20_000


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One whole prediction."""

    context: dict[str, Any]
    content: Content
    position: int
    score: float


class GoldenRows(msgspec.Struct, frozen=True):
    """Assembled rows (null is nan) with the booster's scores, and whole examples."""

    rows: tuple[tuple[float | None, ...], ...] = ()
    scores: tuple[float, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def matrix(self) -> Floats:
        """The rows as an array, shape (rows, columns)."""
        return np.array(self.rows, dtype=np.float64)


def cover_leaves(booster: lgb.Booster, matrix: Floats, seed: int) -> Ints:
    """Indices of rows that together reach every leaf that the rows reach (of a pool of 20,000 drawn with ``seed``)."""
    pool = np.sort(np.random.default_rng(seed).permutation(len(matrix))[:_POOL])
    leaves = np.asarray(booster.predict(matrix[pool], pred_leaf=True, num_threads=1), dtype=np.int64)
    leaves = leaves.reshape(len(pool), -1)
    width = int(leaves.max()) + 1
    cells = leaves + np.arange(leaves.shape[1]) * width
    reached = np.zeros(width * leaves.shape[1], dtype=np.bool_)
    picked = []
    rarity = 1.0 / np.bincount(cells.ravel(), minlength=len(reached)).clip(1)
    for row in np.argsort(-rarity[cells].sum(axis=1), kind="stable"):
        if not reached[cells[row]].all():
            reached[cells[row]] = True
            picked.append(row)
    return pool[np.array(picked, dtype=np.int64)]


def close(found: Floats, golden: Floats) -> bool:
    """Whether scores are the golden ones, to ``TOLERANCE``; nan never is."""
    return bool(np.all(np.abs(found - golden) <= TOLERANCE * np.maximum(1.0, np.abs(golden))))
