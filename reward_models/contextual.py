"""What the newest decisions say about contents *in a context*, between two retrains: a linear posterior on top.

    y_i = r_i − expected_i                               what the model leaves unexplained, less its mean
    y_i ~ N((1, x_i)'·(β_0 + B·f_k + δ_k), σ²)           x: context, f: the content's features, k: the content

β_0 is what customers have in common whatever they see: it takes noise away and changes no choice. B is what kinds of
content owe to kinds of customer, so that a content shown a few times borrows from those like it; δ_k is the content's
own. Contexts and features are scaled to mean 0 and variance 1.

1. ridge regression of y on (1, x) ⊗ (1, f), all contents in one: coefficients ~ N(0, τ²)
2. of what is left, per content a ridge regression on (1, x): δ_k ~ N(0, τ²·I), one τ² for all
3. τ²/σ² of each step is averaged over a grid by its evidence, σ² integrated out (conjugate prior; MacKay 1992)

The grid reaches down to nothing: where contexts tell nothing, τ² goes there and the layer stays silent. What is left of
a content's average stays the business of ``posterior.py``: the constant of δ_k only keeps its slopes honest where
the content was shown to chosen customers, and what the layer expected of those customers (``usual``) is added to what
the counts are compared with. Mean and variance are added to those of the content; policies need nothing else, and a
stored decision replays as ever. Only decisions of the model that serves are used: it has not seen them
(invariant 14). The newest ``WINDOW`` are enough, and let what has changed be forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WINDOW = 5_000
"""Newest decisions of a campaign that are looked at."""
LEAST = 10
"""Fewer decisions than this say nothing."""
COLUMNS = 64
"""Most columns of a context: the most common ones."""
FEATURES = 16
"""Most features of contents."""
REACH = 4.0
"""Standard deviations beyond which a number counts as that many: no slope is followed further than it was seen."""
_LEVELS = 12
"""Most values of a word that get a column each."""
_GRID = np.concatenate([[1e-6], np.geomspace(1e-3, 10.0, 13)])
"""Variance that one step explains a priori, relative to what it leaves; the first is nothing."""
_PSEUDO = 10.0
"""Decisions that the variance of y counts for in what is left of it."""


@dataclass(frozen=True)
class Encoder:
    """Contexts (or features) as numbers: shape (n, d). ``columns``: name and word, null for a number."""

    columns: tuple[tuple[str, str | None], ...]
    mean: Floats
    scale: Floats

    def rows(self, values: Sequence[Mapping[str, Any]]) -> Floats:
        """Scaled columns within ±``REACH``; what is missing is 0, the mean."""
        found = np.array([[_cell(one, name, word) for name, word in self.columns] for one in values], dtype=np.float64)
        scaled = (found.reshape(len(values), len(self.columns)) - self.mean) / self.scale
        return np.clip(np.nan_to_num(scaled), -REACH, REACH)


@dataclass(frozen=True)
class Contextual:
    """The posterior of one campaign with K contents; ``at`` gives what a context adds to each content."""

    index: Mapping[str, int]
    """Place of each content among the K."""
    encoder: Encoder
    features: Floats
    """(K, 1 + F): 1 and the centred features."""
    shared: Floats
    """Posterior mean of β_0 and B, (1 + d, 1 + F); the overall constant is left to the counts."""
    shared_covariance: Floats
    """(1 + d, 1 + F, 1 + d, 1 + F)."""
    own: Floats
    """Posterior means of the slopes of δ, (K, d)."""
    own_covariance: Floats
    """(K, d, d)."""

    usual: Floats
    """What the context added on average when the content was shown, (K,): part of what was to be expected of it."""

    def at(self, context: Mapping[str, Any], content_ids: Sequence[str]) -> tuple[Floats, Floats]:
        """Mean and variance that this context adds to each content's reward, shape (len(content_ids),) each.

        What it adds to all alike is left out of the variance: it changes no choice. A content registered since is
        taken as average, and as unsure as the most unsure.
        """
        return self.at_places(context, self.places(content_ids))

    def at_places(self, context: Mapping[str, Any], place: Ints) -> tuple[Floats, Floats]:
        """:meth:`at`, for contents whose places are known."""
        x = np.concatenate([[1.0], self.encoder.rows([context])[0]])
        mean = x @ self._means
        variance = np.maximum((x[self._pairs[0]] * x[self._pairs[1]]) @ self._variances, 0.0)
        return np.append(mean, mean.mean())[place], np.append(variance, variance.max())[place]

    def places(self, content_ids: Sequence[str]) -> Ints:
        """Where these contents are, shape (k,); K for those registered since."""
        return np.array([self.index.get(name, len(self.index)) for name in content_ids], dtype=np.int64)

    def usual_of(self, content_ids: Sequence[str]) -> Floats:
        """``usual`` of these contents; 0 for those registered since."""
        return np.asarray(np.append(self.usual, 0.0)[self.places(content_ids)])

    @cached_property
    def _means(self) -> Floats:
        """(1 + d, K): the mean is linear in the context."""
        means = self.shared @ self.features.T
        means[1:] += self.own.T
        return means

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints]:
        """Every two columns of the context, once."""
        rows, columns = np.triu_indices(len(self.shared))
        return rows.astype(np.int64), columns.astype(np.int64)

    @cached_property
    def _variances(self) -> Floats:
        """(pairs, K): the variance is quadratic in the context, so what each product of two columns brings to a content is
        known before."""
        f = self.features[:, 1:]
        both = np.einsum("iajb,ka,kb->ijk", self.shared_covariance[:, 1:, :, 1:], f, f, optimize=True)
        both[1:, 1:] += np.moveaxis(self.own_covariance, 0, -1)
        rows, columns = self._pairs
        return np.asarray(np.where(rows == columns, 0.5, 1.0)[:, None] * (both[rows, columns] + both[columns, rows]))


def fit_encoder(values: Sequence[Mapping[str, Any]], limit: int) -> Encoder:
    """Columns for what varies in these rows: numbers as they are, each common word a column."""
    names = sorted({name for one in values for name in one})
    columns = [column for name in names for column in _columns(name, [one.get(name) for one in values])]
    raw = np.array([[_cell(one, name, word) for name, word in columns] for one in values], dtype=np.float64)
    raw = raw.reshape(len(values), len(columns))
    known = np.isfinite(raw)
    count = known.sum(axis=0).clip(1)
    with np.errstate(over="ignore", invalid="ignore"):  # what no float can hold says nothing
        mean = np.nan_to_num(np.where(known, raw, 0.0).sum(axis=0) / count)
        scale = np.nan_to_num(np.sqrt((np.where(known, raw - mean, 0.0) ** 2).sum(axis=0) / count))
    kept = np.flatnonzero(scale > 0.0)
    if len(kept) > limit:
        kept = np.sort(kept[np.argsort(-np.isfinite(raw[:, kept]).sum(axis=0), kind="stable")[:limit]])
    return Encoder(tuple(columns[place] for place in kept), mean[kept], scale[kept])


def fit_contextual(
    contexts: Sequence[Mapping[str, Any]],
    content: Ints,
    reward: Floats,
    content_ids: Sequence[str],
    features: Sequence[Mapping[str, Any]],
) -> Contextual | None:
    """The posterior from n decisions; None where there is nothing to learn from.

    content: index among the K contents, shape (n,); reward: observed minus predicted, shape (n,); features: of the K.
    """
    if len(reward) < LEAST or float(np.ptp(reward)) == 0.0:
        return None
    left = reward - reward.mean()
    encoder = fit_encoder(contexts, COLUMNS)
    if not encoder.columns:
        return None
    x = np.hstack([np.ones((len(left), 1)), encoder.rows(contexts)])
    described = fit_encoder(features, FEATURES).rows(features) if len(features) > 1 else np.zeros((len(features), 0))
    f = np.hstack([np.ones((len(features), 1)), described])
    design = (x[:, :, None] * f[content][:, None, :]).reshape(len(x), -1)
    shared, covariance = _ridge(design.T @ design, design.T @ left, float(left @ left), len(left))
    rest = left - design @ shared
    own, own_covariance = _own(x, content, rest, len(features))
    d, width = x.shape[1], f.shape[1]
    shared, covariance = shared.reshape(d, width), covariance.reshape(d, width, d, width)
    shared[0, 0] = 0.0
    own, own_covariance = own[:, 1:], own_covariance[:, 1:, 1:]
    added = ((x @ shared) * f[content]).sum(axis=1) + (x[:, 1:] * own[content]).sum(axis=1)
    shown = np.bincount(content, minlength=len(features)).clip(1)
    usual = np.bincount(content, added, minlength=len(features)) / shown
    index = {name: place for place, name in enumerate(content_ids)}
    return Contextual(index, encoder, f, shared, covariance, own, own_covariance, usual)


def _ridge(gram: Floats, pull: Floats, total: float, n: int) -> tuple[Floats, Floats]:
    """Posterior mean and covariance of the coefficients, averaged over the prior's width."""
    values, vectors = np.linalg.eigh(gram)
    values, z = np.maximum(values, 0.0), vectors.T @ pull
    shrunk, spread = _averaged(values, z, total, n)
    return vectors @ (shrunk * z), (vectors * spread) @ vectors.T


def _own(x: Floats, content: Ints, rest: Floats, contents: int) -> tuple[Floats, Floats]:
    """The same for each content, with one width for all."""
    d = x.shape[1]
    gram, pull = np.zeros((contents, d, d)), np.zeros((contents, d))
    for k in np.unique(content):
        mine = x[content == k]
        gram[k], pull[k] = mine.T @ mine, mine.T @ rest[content == k]
    values, vectors = np.linalg.eigh(gram)
    values, z = np.maximum(values, 0.0), np.einsum("kij,ki->kj", vectors, pull)
    shrunk, spread = (
        a.reshape(values.shape) for a in _averaged(values.ravel(), z.ravel(), float(rest @ rest), len(rest))
    )
    return np.einsum("kij,kj->ki", vectors, shrunk * z), np.einsum("kij,kj,klj->kil", vectors, spread, vectors)


def _averaged(values: Floats, z: Floats, total: float, n: int) -> tuple[Floats, Floats]:
    """What multiplies z in the posterior mean, and the posterior variance, per eigenvector: over the grid of τ²/σ²."""
    ratio = _GRID[:, None] / max(float(values.sum()) / n, 1e-12)
    pulled = ratio / (1.0 + values * ratio)
    noise = (_PSEUDO * total / n + total - (z**2 * pulled).sum(axis=1)) / (_PSEUDO + n)
    log_evidence = -0.5 * (_PSEUDO + n) * np.log(noise) - 0.5 * np.log1p(values * ratio).sum(axis=1)
    weight = np.exp(log_evidence - log_evidence.max())
    weight /= weight.sum()
    return weight @ pulled, (weight * noise) @ pulled


def _columns(name: str, cells: Sequence[Any]) -> list[tuple[str, str | None]]:
    words: dict[str, int] = {}
    for cell in cells:
        if isinstance(cell, str):
            words[cell] = words.get(cell, 0) + 1
    if not words:
        return [(name, None)]
    common = sorted(words, key=lambda word: (-words[word], word))[:_LEVELS]
    return [(name, word) for word in sorted(common)]


def _cell(one: Mapping[str, Any], name: str, word: str | None) -> float:
    value = one.get(name)
    if word is not None:
        return np.nan if value is None else float(value == word)
    return float(value) if isinstance(value, int | float) and abs(value) <= 1e300 else np.nan
