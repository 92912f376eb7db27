"""Fitted-Q evaluation: what a policy of journeys would earn, by a model of what each step leads to.

    Q_0 = 0,     Q_j(s, a) ← r + γ·Σ_b π(b | s')·Q_{j−1}(s', b)      regressed on (s, a) by LightGBM, over all steps

s' is the customer's next step in the episode; the last one leads nowhere. A step's number is part of s, so that after as
many rounds as the longest episode has steps Q is that of the whole episode (Ernst, Geurts & Wehenkel 2005; as evaluation:
Le, Voloshin & Yue 2019). Folds are by unit: the Q of a row has seen nothing of its customer.

    cross_fitted(episodes, policy, settings) -> (q of every candidate, (n, k))

It needs no overlap and knows no own error: where the log hardly shows what the policy does, it extrapolates. Hence its
interval is labelled model-dependent and gates nothing (invariant 15); ``stepwise.py`` corrects it.
"""

from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np

from reward_models.episodes.steps import Episodes, Floats, Ints
from reward_models.folds import codes_of_texts, deal


class QSettings(NamedTuple):
    """How Q is fitted. Fixed beforehand on a world that is not reported."""

    rounds: int = 80
    leaves: int = 15
    learning_rate: float = 0.1
    min_leaf: int = 40
    folds: int = 3
    seed: int = 7


USUAL = QSettings()


class Q(NamedTuple):
    """A fitted Q: the mean of its targets, and trees about it."""

    mean: float
    trees: lgb.Booster

    def of(self, columns: Floats) -> Floats:
        """Q of rows, shape (m,)."""
        return self.mean + np.asarray(self.trees.predict(columns, num_threads=1), dtype=np.float64)


def cross_fitted(episodes: Episodes, policy: Floats, settings: QSettings = USUAL) -> Floats:
    """Q of every candidate of every row under the policy, (n, k), in reward from the row's own time on; 0 past a row's
    candidates. Each row by a model of other units."""
    fold = deal(codes_of_texts(episodes.units), settings.folds, settings.seed)[episodes.episode]
    q = np.zeros(episodes.behaviour.shape)
    for held in np.unique(fold):
        others = np.flatnonzero(fold != held)
        if len(others):
            mine = np.flatnonzero(fold == held)
            q[mine] = _table(episodes, mine, fit_q(episodes, policy, others, settings))
    return q


def fit_q(episodes: Episodes, policy: Floats, rows: Ints, settings: QSettings = USUAL) -> Q:
    """Q after as many rounds as the longest of the episodes has steps. ``rows``: whole episodes, in order."""
    following = np.flatnonzero(~episodes.last[rows])
    shrink = episodes.weight[rows[following] + 1] / episodes.weight[rows[following]]
    data = lgb.Dataset(episodes.columns(rows), params=_parameters(settings), free_raw_data=False).construct()
    target = episodes.reward[rows].copy()
    fitted = _regressed(data, target, settings)
    for _ in range(int(episodes.step[rows].max())):
        after = rows[following] + 1
        worth = (policy[after] * _table(episodes, after, fitted)).sum(axis=1)
        target = episodes.reward[rows].copy()
        target[following] += shrink * worth
        fitted = _regressed(data, target, settings)
    return fitted


def _regressed(data: lgb.Dataset, target: Floats, settings: QSettings) -> Q:
    mean = float(target.mean())
    data.set_label(target - mean)
    return Q(mean, lgb.train(_parameters(settings), data, num_boost_round=settings.rounds))


def _table(episodes: Episodes, rows: Ints, q: Q) -> Floats:
    """Q of every candidate of these rows, (m, k)."""
    found = np.zeros((len(rows), episodes.behaviour.shape[1]))
    for column in range(found.shape[1]):
        there = np.flatnonzero(episodes.candidate[rows, column] >= 0)
        if len(there):
            found[there, column] = q.of(episodes.columns(rows[there], column))
    return found


def _parameters(settings: QSettings) -> dict[str, Any]:
    return {
        "objective": "regression",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_leaf,
        "boost_from_average": False,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
