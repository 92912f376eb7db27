"""LightGBM over one binned matrix, minimising what differs within campaigns.

    loss = Σ w·(d − (g − ḡ))² / 2,     gradient w·(g − ḡ − d),     hessian w,     ḡ = Σ w·g / Σ w  in the row's campaign

g starts from the last column of the matrix, the text score. The matrix itself is not kept: its bins are, a byte per
value.

    Trees(matrix, categorical, aim, settings)    .train(rows, rounds) -> text     .stages, rounds to look at
    staged(text, matrix, stages) -> (s, n)       g of rows after each of the stages
    start(matrix) -> (n,)                        g before any tree
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from ingestion.loops import ModelSettings
from reward_models.anatomy import trim
from reward_models.levels import centred

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

_THREADS = 1  # boosting is memory-bound here, and a second thread costs most when the machine is busy
_SHRINK = 5.0
_STAGES = (0.05, 0.125, 0.25, 0.5, 1.0)
"""Shares of the rounds after which held-out rows are looked at: past the best of them, trees learn noise."""


@dataclass(frozen=True)
class Aim:
    """What n rows are fitted to, shape (n,) each: d, w, and the campaign as a number."""

    deviation: Floats
    weights: Floats
    campaign: Ints

    def of(self, rows: Ints) -> "Aim":
        """That of some rows."""
        return Aim(self.deviation[rows], self.weights[rows], self.campaign[rows])


def tree_parameters(settings: ModelSettings) -> dict[str, Any]:
    """What LightGBM is told, but for the objective."""
    return {
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_leaf,
        "lambda_l2": _SHRINK,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": _THREADS,
        "feature_pre_filter": False,
        "verbosity": -1,
    }


def stages_of(settings: ModelSettings) -> list[int]:
    """Numbers of rounds after which held-out rows are looked at; the last is all of them."""
    return sorted({max(1, round(share * settings.rounds)) for share in _STAGES})


class Trees:
    """LightGBM over the bins of a matrix, shape (n, columns)."""

    def __init__(self, matrix: Floats, categorical: Sequence[int], aim: Aim, settings: ModelSettings) -> None:
        self.aim, self.parameters = aim, tree_parameters(settings)
        self.data = lgb.Dataset(
            matrix,
            label=aim.deviation,
            init_score=start(matrix),
            feature_name=[f"f{index}" for index in range(matrix.shape[1])],
            categorical_feature=list(categorical),
            params=self.parameters,
            free_raw_data=True,
        ).construct()

    def train(self, rounds: int, rows: Ints | None = None) -> str:
        """A booster of some rows, or of all, as LightGBM's text, trimmed."""
        part = self.data if rows is None else self.data.subset(rows.tolist())
        contrasts = _contrasts(self.aim if rows is None else self.aim.of(rows))
        booster = lgb.train({**self.parameters, "objective": contrasts}, part, num_boost_round=rounds)
        return trim(booster.model_to_string(num_iteration=-1))


def staged(booster_text: str, matrix: Floats, stages: Sequence[int]) -> Floats:
    """g of the rows of a matrix after each of the numbers of rounds, shape (s, n)."""
    booster = lgb.Booster(model_str=booster_text)
    parts = [
        booster.predict(matrix, start_iteration=begin, num_iteration=end - begin, num_threads=_THREADS)
        for begin, end in pairwise([0, *stages])
    ]
    return np.asarray(start(matrix) + np.cumsum(parts, axis=0))


def start(matrix: Floats) -> Floats:
    """The text score, 0 where there is none."""
    return np.nan_to_num(matrix[:, -1])


def _contrasts(aim: Aim) -> Callable[[Floats, lgb.Dataset], tuple[Singles, Singles]]:
    """Gradient and hessian for LightGBM. What does not change from round to round is made once, in the order of
    :func:`reward_models.levels.centred`, so that the digits are the same."""
    campaign, weights, hessian = aim.campaign, aim.weights, aim.weights.astype(np.float32)
    deviation = centred(aim.deviation, campaign, weights)
    total = np.bincount(campaign, weights)
    total = np.where(total > 0, total, 1.0)
    found = np.empty_like(weights)

    def contrasts(g: Floats, _: lgb.Dataset) -> tuple[Singles, Singles]:
        np.multiply(weights, g, out=found)
        mean = np.bincount(campaign, found) / total
        np.take(mean, campaign, out=found, mode="clip")
        np.subtract(g, found, out=found)
        np.subtract(found, deviation, out=found)
        np.multiply(weights, found, out=found)
        return found.astype(np.float32), hessian

    return contrasts
