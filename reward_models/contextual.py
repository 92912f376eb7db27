"""What the newest decisions say about contents *in a context*, between two retrains: a linear posterior on top.

    y_i = r_i − expected_i                               what the model leaves unexplained, less its mean
    y_i ~ N((1, x_i)'·(β_0 + B·f_k + δ_k), σ²)           x: context, f: the content's features, k: the content

β_0 is what customers have in common whatever they see: it takes noise away and changes no choice. B is what kinds of
content owe to kinds of customer, so that a content shown a few times borrows from those like it; δ_k is the content's
own. Contexts and features are scaled to mean 0 and variance 1.

1. columns of x: numbers and words; how like a context is to some that were seen (a Gaussian kernel on landmarks, Williams
   & Seeger 2001), because the customers of the middle are often others than those of both ends, and two things together
   often more than each alone; where contents and columns are too many, the contexts' principal directions instead
2. all of it together: a mixed model whose prior scales are found by their evidence (``slopes.py``)

Where contexts tell nothing the scales go to nothing and the layer stays silent. What is left of
a content's average stays the business of ``posterior.py``: the constant of δ_k only keeps its slopes honest where
the content was shown to chosen customers, and what the layer expected of those customers (``usual``) is added to what
the counts are compared with. Mean and variance are added to those of the content; policies need nothing else, and a
stored decision replays as ever. Only decisions of the model that serves are used: it has not seen them
(invariant 14). The newest ``WINDOW`` are enough, and let what has changed be forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from reward_models.slopes import BENT, CONSTANT, STRAIGHT, fit_slopes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WINDOW = 5_000
"""Newest decisions of a campaign that are looked at."""
LEAST = 5
"""Fewer decisions than this say nothing."""
COLUMNS = 64
"""Most columns of a context: the most common ones."""
FEATURES = 16
"""Most features of contents."""
REACH = 4.0
"""Standard deviations beyond which a number counts as that many: no slope is followed further than it was seen."""
_LEVELS = 12
"""Most values of a word that get a column each."""
_LANDMARKS = 48
"""Most contexts that others are compared with; no more than there are decisions per content."""
_COMPARED, _SLIGHT = 500, 1e-3
"""Contexts whose distances are looked at; least share of the largest eigenvalue that counts."""
_OWN_STEPS, _SHARED_COLUMNS = 15_000_000, 400
"""Most of K·D³ and of D·(1 + F): what a fit costs. D is 113 for ten contents, 31 for five hundred."""


@dataclass(frozen=True)
class Likeness:
    """How like a context is to landmarks, as columns that are uncorrelated a priori."""

    landmarks: Floats
    """(m, columns)"""
    width: float
    """Squared distance at which the likeness is 1/e."""
    root: Floats
    """(m, r): inverse root of the landmarks' likeness to each other."""
    mean: Floats

    def of(self, known: Floats) -> Floats:
        """Shape (n, r), about their mean."""
        return np.asarray(np.exp(-_distances(known, self.landmarks) / self.width) @ self.root - self.mean)


@dataclass(frozen=True)
class Encoder:
    """Contexts (or features) as numbers: shape (n, d). ``columns``: name and word, null for a number."""

    columns: tuple[tuple[str, str | None], ...]
    mean: Floats
    scale: Floats
    likeness: Likeness | None = None
    directions: Floats | None = None
    """(columns, d): what is kept of too many columns."""

    def rows(self, values: Sequence[Mapping[str, Any]]) -> Floats:
        """Scaled columns within ±``REACH``; what is missing is 0, the mean."""
        return self.spread(self.scaled(values))

    def scaled(self, values: Sequence[Mapping[str, Any]]) -> Floats:
        """The columns alone."""
        found = np.array([[_cell(one, name, word) for name, word in self.columns] for one in values], dtype=np.float64)
        scaled = (found.reshape(len(values), len(self.columns)) - self.mean) / self.scale
        return np.clip(np.nan_to_num(scaled), -REACH, REACH)

    def spread(self, scaled: Floats) -> Floats:
        """:meth:`rows`, from the columns alone."""
        if self.directions is not None:
            return np.asarray(scaled @ self.directions)
        return scaled if self.likeness is None else np.hstack([scaled, self.likeness.of(scaled)])


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
    described = fit_encoder(features, FEATURES).rows(features) if len(features) > 1 else np.zeros((len(features), 0))
    f = np.hstack([np.ones((len(features), 1)), described])
    scaled = encoder.scaled(contexts)
    encoder = _fitting(encoder, scaled, *f.shape)
    rows = encoder.spread(scaled)
    x = np.hstack([np.ones((len(left), 1)), rows])
    straight = rows.shape[1] if encoder.likeness is None else scaled.shape[1]
    kind = np.repeat([CONSTANT, STRAIGHT, BENT], [1, straight, rows.shape[1] - straight])
    found = fit_slopes(x, kind, content, left, f)
    shared, own = found.shared.copy(), found.own[:, 1:]
    shared[0, 0] = 0.0
    added = ((x @ shared) * f[content]).sum(axis=1) + (rows * own[content]).sum(axis=1)
    shown = np.bincount(content, minlength=len(features)).clip(1)
    usual = np.bincount(content, added, minlength=len(features)) / shown
    index = {name: place for place, name in enumerate(content_ids)}
    return Contextual(index, encoder, f, shared, found.shared_covariance, own, found.own_covariance[:, 1:, 1:], usual)


def _fitting(encoder: Encoder, scaled: Floats, contents: int, width: int) -> Encoder:
    """The encoder with as many columns as can be afforded."""
    n, d = scaled.shape
    most = min(int((_OWN_STEPS / contents) ** (1.0 / 3.0)), _SHARED_COLUMNS // width) - 1
    if d > most:
        return replace(encoder, directions=np.linalg.eigh(scaled.T @ scaled)[1][:, : -most - 1 : -1])
    distinct = np.unique(scaled, axis=0)
    marks = min(_LANDMARKS, n // contents, most - d, len(distinct))
    return encoder if marks < 2 else replace(encoder, likeness=_likeness(scaled, _evenly(distinct, marks)))


def _likeness(scaled: Floats, landmarks: Floats) -> Likeness:
    """Widths are those that are usual between contexts; directions that landmarks hardly have are left out."""
    some = _evenly(scaled, min(_COMPARED, len(scaled)))
    width = float(_distances(some, landmarks).mean())
    values, vectors = np.linalg.eigh(np.exp(-_distances(landmarks, landmarks) / width))
    kept = values > _SLIGHT * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    return Likeness(landmarks, width, root, (np.exp(-_distances(scaled, landmarks) / width) @ root).mean(axis=0))


def _evenly(rows: Floats, count: int) -> Floats:
    return np.asarray(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])


def _distances(rows: Floats, landmarks: Floats) -> Floats:
    """Squared, shape (n, m)."""
    apart = (rows**2).sum(axis=1)[:, None] + (landmarks**2).sum(axis=1) - 2.0 * rows @ landmarks.T
    return np.asarray(np.maximum(apart, 0.0))


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
