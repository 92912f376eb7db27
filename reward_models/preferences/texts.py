"""Which of two texts is preferred, from the words: a stack of four reward models, each antisymmetric.

A reward model r gives P(first preferred) = logistic(r(first) − r(second)) (Bradley and Terry 1952).

1. words: logistic regression on differences of TF-IDF (words 1 to 2, characters inside words 2 to 5), C = ``_STRENGTH``
2. form: logistic regression on differences of length, format and copy factors (``views.py``), and of nearness to what was asked
3. pairs: LightGBM on the same differences and the score of step 1, each pair in both orders; f(a, b) − f(b, a) is its margin
4. singles: LightGBM as a classifier of single texts, won or lost; the margin is the difference of its logits. (Classifiers were as good as or
   better than Bradley-Terry models in Sun, Shen and Ton 2025.)
5. weights of 1 to 4, none below 0, by logistic regression on their margins for groups that they had not seen

Steps 3 to 5 see held-out margins of what they stand on; folds never split a group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from infra.errors import EstimateRefused
from reward_models.distances import similarity
from reward_models.folds import codes_of, deal
from reward_models.preferences.pairs import Pairs, codes
from reward_models.preferences.views import columns

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MEMBERS = ("words", "form", "pairs", "singles")
LEAST_GROUPS = 20
INNER_FOLDS = 4

_STRENGTH = 1.0
_FORM_STRENGTH = 0.03
_TERMS = 60_000
_LONG = 20_000_000
"""Characters in all from which only words are looked at."""
_ROUNDS = 120
_TREES: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.04,
    "num_leaves": 8,
    "min_data_in_leaf": 30,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "seed": 1,
    "deterministic": True,
    "verbosity": -1,
    "num_threads": 1,
}


@dataclass(frozen=True)
class Seen:
    """Pairs as numbers: distinct texts, the place of each side among them, and the columns of the texts and of the sides."""

    texts: tuple[str, ...]
    first: Ints
    second: Ints
    form: Floats
    """Of each text, shape (texts, f)."""
    near: Floats
    """First less second: nearness to what was asked, shape (n, 1)."""

    @staticmethod
    def of(pairs: Pairs) -> "Seen":
        """Read once, used by every fold."""
        texts, first, second = codes(pairs)
        near = np.zeros((len(pairs), 1))
        if pairs.prompts:
            to_first, to_second = (similarity(pairs.prompts, side) for side in (pairs.first, pairs.second))
            near[:, 0] = to_first - to_second
        return Seen(tuple(texts), first, second, columns(texts), near)

    def part(self, kept: Mask) -> "Seen":
        """The pairs under the mask, over the same texts."""
        return Seen(self.texts, self.first[kept], self.second[kept], self.form, self.near[kept])

    @property
    def differences(self) -> Floats:
        """First less second, shape (n, f + 1)."""
        return np.hstack([self.form[self.first] - self.form[self.second], self.near])


Judge = Callable[[Seen], Floats]
"""Margins of the first texts over the second, shape (n,)."""


@dataclass(frozen=True)
class PairModel:
    """``weights`` of the members, in the order of ``MEMBERS``."""

    members: tuple[Judge, ...]
    weights: Floats

    def margins(self, seen: Seen) -> Floats:
        """log P(first) / P(second), shape (n,)."""
        return _margins(self.members, seen) @ self.weights

    def prefer(self, pairs: Pairs) -> Floats:
        """P(first preferred), shape (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.margins(Seen.of(pairs)))))


def fit_pairs(seen: Seen, won: Mask, group: Ints, seed: int = 0) -> PairModel:
    """Fit on n pairs. Raises :class:`EstimateRefused` with fewer than ``LEAST_GROUPS`` groups."""
    known = np.unique(group)
    if len(known) < LEAST_GROUPS:
        raise EstimateRefused(
            f"{len(known)} independent groups of pairs; it takes {LEAST_GROUPS} to learn a preference"
        )
    folds = deal(codes_of(group.tolist()), INNER_FOLDS, seed)
    held = np.zeros((len(won), len(MEMBERS)))
    linear = []
    for fold in range(INNER_FOLDS):
        inside = folds == fold
        linear.append(_linear(seen.part(~inside), won[~inside]))
        held[inside, :2] = _margins(linear[fold], seen.part(inside))
    words = held[:, 0]
    for fold in range(INNER_FOLDS):
        inside = folds == fold
        trees = _trees(seen.part(~inside), won[~inside], words[~inside], linear[fold][0])
        held[inside, 2:] = _margins(trees, seen.part(inside))
    members = _linear(seen, won)
    return PairModel((*members, *_trees(seen, won, words, members[0])), _stacked(held, won))


def words_alone(seen: Seen, won: Mask) -> Judge:
    """Step 1 by itself: the baseline."""
    return _linear(seen, won)[0]


def _margins(members: Sequence[Judge], seen: Seen) -> Floats:
    return np.stack([member(seen) for member in members], axis=1)


def _linear(seen: Seen, won: Mask) -> tuple[Judge, Judge]:
    """Steps 1 and 2."""
    used = np.unique(np.concatenate([seen.first, seen.second]))
    known = [seen.texts[text] for text in used]
    vectorizers = _vectorizers(known)
    X = _terms(vectorizers, seen)
    regression = LogisticRegression(C=_STRENGTH, fit_intercept=False, solver="liblinear", max_iter=200).fit(X, won)
    weights = regression.coef_[0]
    differences = seen.differences
    scale = np.sqrt((differences**2).mean(axis=0))
    scale[scale == 0] = 1.0
    form = LogisticRegression(C=_FORM_STRENGTH, fit_intercept=False).fit(differences / scale, won).coef_[0] / scale
    return (lambda other: np.asarray(_terms(vectorizers, other) @ weights)), (lambda other: other.differences @ form)


def _trees(seen: Seen, won: Mask, words: Floats, linear: Judge) -> tuple[Judge, Judge]:
    """Steps 3 and 4. ``words``: held-out margins of step 1 for these pairs; ``linear``: step 1 for other pairs."""
    X = np.hstack([seen.differences, words[:, None]])
    both = lgb.Dataset(np.vstack([X, -X]), label=np.concatenate([won, ~won]).astype(np.float64))
    pairwise = lgb.train(_TREES, both, _ROUNDS)
    near = seen.near
    single = np.vstack([_alone(seen, seen.first, near), _alone(seen, seen.second, -near)])
    alone = lgb.train(_TREES, lgb.Dataset(single, label=np.concatenate([won, ~won]).astype(np.float64)), _ROUNDS)

    def by_pairs(other: Seen) -> Floats:
        rows = np.hstack([other.differences, linear(other)[:, None]])
        return (_raw(pairwise, rows) - _raw(pairwise, -rows)) / 2.0

    def by_singles(other: Seen) -> Floats:
        first, second = _alone(other, other.first, other.near), _alone(other, other.second, -other.near)
        return _raw(alone, first) - _raw(alone, second)

    return by_pairs, by_singles


def _raw(booster: lgb.Booster, rows: Floats) -> Floats:
    return np.asarray(booster.predict(rows, raw_score=True, num_threads=1), dtype=np.float64)


def _alone(seen: Seen, side: Ints, near: Floats) -> Floats:
    return np.hstack([seen.form[side], near])


def _stacked(held: Floats, won: Mask) -> Floats:
    """Step 5: weights that maximise the likelihood with a little pull to equal shares, none below 0."""
    sign = np.where(won, 1.0, -1.0)
    start = np.full(held.shape[1], 1.0 / held.shape[1])

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (held @ weights)
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        pull = weights - start
        return float(np.logaddexp(0.0, -margin).sum() + pull @ pull), held.T @ slope + 2.0 * pull

    found = minimize(loss, start, jac=True, bounds=[(0.0, None)] * held.shape[1], method="L-BFGS-B")
    return np.asarray(found.x)


def _vectorizers(texts: Sequence[str]) -> list[TfidfVectorizer]:
    options = [{"ngram_range": (1, 2), "min_df": 2}]
    if sum(map(len, texts)) <= _LONG:
        options.append({"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 3})
    fitted = []
    for option in options:
        try:
            fitted.append(TfidfVectorizer(sublinear_tf=True, max_features=_TERMS, **option).fit(texts))
        except ValueError:  # no term occurs often enough
            continue
    if not fitted:
        raise EstimateRefused("The texts share no words at all: nothing can be learned from them")
    return fitted


def _terms(vectorizers: Sequence[TfidfVectorizer], seen: Seen) -> csr_array:
    used, place = np.unique(np.concatenate([seen.first, seen.second]), return_inverse=True)
    known = [seen.texts[text] for text in used]
    X = csr_array(hstack([each.transform(known) for each in vectorizers], format="csr"))
    cut = len(seen.first)
    return csr_array(X[place[:cut]] - X[place[cut:]])
