"""Golden rows: inputs with the scores they must give, stored in the bundle and checked at every load.

Rows are assembled features that together reach every leaf of every tree, so that a wrong leaf value anywhere is a
wrong score here: training rows, picked greedily, and for the leaves that none of them reaches rows that are put
together (``paths.py``). Examples are whole: context and content in, expected reward out; they hold the text model and
the encoding to their numbers as well.
"""

from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.paths import rows_beyond

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


def golden_matrix(booster: lgb.Booster, matrix: Floats, seed: int) -> Floats:
    """Rows that together reach every leaf that can be reached, shape (n, columns): some of ``matrix``, then those that
    are put together."""
    picked = matrix[cover_leaves(booster, matrix, seed)]
    made = rows_beyond(booster, _leaves_of(booster, picked), picked[0])
    return np.vstack([picked, made[_covering(_leaves_of(booster, made))]]) if len(made) else picked


def cover_leaves(booster: lgb.Booster, matrix: Floats, seed: int) -> Ints:
    """Indices of rows that together reach every leaf that the rows reach (of a pool of 20,000 drawn with ``seed``)."""
    pool = np.sort(np.random.default_rng(seed).permutation(len(matrix))[:_POOL])
    return np.asarray(pool[_covering(_leaves_of(booster, matrix[pool]))])


def _leaves_of(booster: lgb.Booster, matrix: Floats) -> Ints:
    """The leaf of each row in each tree, shape (rows, trees)."""
    found = np.asarray(booster.predict(matrix, pred_leaf=True, num_threads=1), dtype=np.int64)
    return found.reshape(len(matrix), -1)


def _covering(leaves: Ints) -> Ints:
    """Rows that together reach what all rows reach, those with rare leaves first."""
    width = int(leaves.max()) + 1
    cells = leaves + np.arange(leaves.shape[1]) * width
    count = np.bincount(cells.ravel(), minlength=width * leaves.shape[1])
    order = np.argsort(-(1.0 / count.clip(1))[cells].sum(axis=1), kind="stable")
    first = np.empty(len(count), dtype=np.int64)
    first[cells[order[::-1]]] = np.arange(len(order))[::-1, None]  # the last assignment stays: the foremost row
    return np.asarray(order[np.unique(first[count > 0])])


def close(found: Floats, golden: Floats) -> bool:
    """Whether scores are the golden ones, to ``TOLERANCE``; nan never is."""
    return bool(np.all(np.abs(found - golden) <= TOLERANCE * np.maximum(1.0, np.abs(golden))))
