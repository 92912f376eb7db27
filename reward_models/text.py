"""What the words say: a linear score from contrasts between texts of the same campaign.

Steps:
1. Terms: TF-IDF of words and signs (1–3 in a row, with marks for begin and end) and of characters inside words (2–5),
   sublinear, of unit length each. Factors: what a marketer can see (``factors.py``), each centred and scaled to its
   spread over the texts. Embeddings, where there are some (``embeddings.py``): unit vectors less their mean; nothing for
   a text without one. Blocks are multiplied by their ``_SHARES``.
2. Centre texts and targets within each campaign: what differs *between* campaigns (story, audience, season) says
   nothing about copy.
3. Ridge on the relative deviation d of the reward:  min_w Σ v·(d − (x − x̄)·w)² + α‖w‖², by conjugate gradients.
   v = τ² / (τ² + σ²): σ² is the variance of d from sampling, τ² that of true differences between texts of a campaign,
   by moments (DerSimonian & Laird 1986). A text seen a million times is one example of copy, not a thousand.
4. α with the least error on held-out folds (folds never split a component of campaign and text).
5. The held-out scores are what the booster is trained on. One slope, fitted on them, puts scores of fold fits and
   of the full fit on the scale of the target.

A text's score is x·w, not centred, when fitting the booster and when serving alike: it depends on nothing but
the text. Terms, weights and blocks were chosen on the Upworthy tests of the weeks with faulty randomisation, where no
ranking that is reported is judged; there factors took the correlation with observed deviations from 0.35 to 0.40, while random
features, latent topics, trees on the factors and other targets (log, ranks) added nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, csr_matrix, hstack
from scipy.sparse.linalg import LinearOperator, cg
from sklearn.feature_extraction.text import TfidfVectorizer

from reward_models.factors import NAMES, measured
from reward_models.levels import centred
from reward_models.vectors import NO_VECTORS, Vectors

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHAS = (300.0, 100.0, 30.0, 10.0, 5.0, 2.5, 1.25)
"""Strengths of the ridge that are tried, strongest first (each fit starts from the one before)."""

LEAST_TEXTS = 20
"""Fewer distinct texts than this teach nothing about words."""

LEAST_SPREAD = 0.05
"""Least τ: texts of a campaign are never taken to be more alike than this, relative to its level."""

_TERMS = 60_000
"""Most terms of each kind."""

_SHARES = {"words": 1.0, "pieces": 0.5, "factors": 0.15, "embedding": 1.0}
"""What each block is multiplied by: the larger, the less the ridge shrinks it."""

_FAR = 5.0
"""No factor counts as further from its mean than this, in standard deviations."""

BEGIN, END = "⟨", "⟩"
"""Marks around a text, so that its first and its last word are terms of their own."""
WORDS: dict[str, Any] = {
    "analyzer": "word",
    "ngram_range": (1, 3),
    "token_pattern": r"(?u)[^\W_]+(?:['’][^\W\d_]+)?|[^\w\s]",
}
PIECES: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (2, 5)}


@dataclass(frozen=True)
class TextModel:
    """Terms with their idf, factors with their mean and spread, and the weights of words, pieces, factors, embedding.

    ``embedder``: the model that made the embeddings, empty without; ``centre``: their mean. Scores are in units of the
    relative reward.
    """

    words: tuple[str, ...]
    pieces: tuple[str, ...]
    idf: Floats
    mean: Floats
    spread: Floats
    weights: Floats
    embedder: str = ""
    centre: Floats = field(default_factory=lambda: np.zeros(0))

    def score(self, texts: Sequence[str], vectors: Vectors = NO_VECTORS) -> Floats:
        """x·w per text, shape (k,); nan for an empty text. Vectors by another embedder count as none."""
        scores = np.full(len(texts), np.nan)
        present = [index for index, text in enumerate(texts) if text.strip()]
        if present:
            found = [texts[index] for index in present]
            scores[present] = self.by_terms(found) + self.by_factors(found).sum(axis=1)
            if self.embedder and vectors.model == self.embedder:
                block = _centred(vectors.of(found, len(self.centre)), self.centre)
                scores[present] += block @ self._weights[2]
        return scores

    def by_terms(self, texts: Sequence[str]) -> Floats:
        """The part of the score that words and pieces make, shape (k,)."""
        words, pieces = self._vectorizers
        return np.asarray(_terms(words.transform(_marked(texts)), pieces.transform(texts)) @ self._weights[0])

    def term_effects(self, text: str) -> tuple[dict[str, float], dict[str, float]]:
        """What each term of one text adds to its score: words and signs in a row, then pieces of words. Together they
        sum to :meth:`by_terms`."""
        words, pieces = self._vectorizers
        cut, weights = len(self.words), self._weights[0]
        of_words = _effects(_SHARES["words"] * words.transform(_marked([text])), weights[:cut], self.words)
        return of_words, _effects(_SHARES["pieces"] * pieces.transform([text]), weights[cut:], self.pieces)

    def by_factors(self, texts: Sequence[str]) -> Floats:
        """The part of the score that each factor makes against a text of average factors, shape (k, factors)."""
        return _standardised(_measured(texts), self.mean, self.spread) * self._weights[1]

    def document(self) -> dict[str, Any]:
        """As JSON; :func:`read_text_model` reads it back to the same numbers."""
        return {
            "words": self.words,
            "pieces": self.pieces,
            "idf": self.idf.tolist(),
            "factors": NAMES,
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
            "weights": self.weights.tolist(),
            "embedder": self.embedder,
            "centre": self.centre.tolist(),
        }

    @property
    def _weights(self) -> tuple[Floats, Floats, Floats]:
        """Of terms, of factors and of the embedding."""
        cut = len(self.words) + len(self.pieces)
        end = cut + len(self.mean)
        return self.weights[:cut], self.weights[cut:end], self.weights[end:]

    @cached_property
    def _vectorizers(self) -> tuple[TfidfVectorizer, TfidfVectorizer]:
        cut = len(self.words)
        return (
            _fixed(WORDS, self.words, self.idf[:cut]),
            _fixed(PIECES, self.pieces, self.idf[cut:]),
        )


@dataclass(frozen=True)
class TextFit:
    """``out_of_fold``: scores of the fitted texts by models that saw nothing of their component; ``fitted``: by
    ``model``. Shape (k,) each."""

    model: TextModel
    out_of_fold: Floats
    fitted: Floats
    alpha: float
    slope: float


def read_text_model(document: dict[str, Any]) -> TextModel:
    """The inverse of :meth:`TextModel.document`. Raises ``ValueError`` when it was made with other factors."""
    if tuple(document["factors"]) != NAMES:
        raise ValueError("its text model measures other copy factors than this version")
    names = ("idf", "mean", "spread", "weights", "centre")
    idf, mean, spread, weights, centre = (np.array(document[name], dtype=np.float64) for name in names)
    words, pieces = tuple(document["words"]), tuple(document["pieces"])
    return TextModel(words, pieces, idf, mean, spread, weights, document["embedder"], centre)


def fit_text(
    texts: Sequence[str],
    campaigns: Ints,
    deviation: Floats,
    sampling: Floats,
    folds: Ints,
    vectors: Vectors = NO_VECTORS,
) -> TextFit | None:
    """Fit on k texts: campaign code, relative deviation of the reward, its variance from sampling (above 0) and the
    fold of each, shape (k,).

    None when there is nothing to contrast: too few texts, or one text per campaign.
    """
    if len(set(texts)) < LEAST_TEXTS or len(np.unique(campaigns)) == len(texts) or len(np.unique(folds)) < 2:
        return None
    words = TfidfVectorizer(min_df=2, max_features=_TERMS, sublinear_tf=True, **WORDS)
    pieces = TfidfVectorizer(min_df=min(3, len(texts)), max_features=_TERMS, sublinear_tf=True, **PIECES)
    try:
        terms = _terms(words.fit_transform(_marked(texts)), pieces.fit_transform(texts))
    except ValueError:  # no term occurs often enough
        return None
    factors = _measured(texts)
    mean, spread = _short(factors.mean(axis=0)), _short(factors.std(axis=0))
    embedding = vectors.of(texts, vectors.size)
    known = np.isfinite(embedding).all(axis=1)
    centre = _short(embedding[known].mean(axis=0)) if known.any() else np.zeros(0)
    blocks = [_standardised(factors, mean, spread), _centred(embedding[:, : len(centre)], centre)]
    X = _joined(terms, csr_matrix(np.hstack(blocks)))
    between = spread_between(campaigns, deviation, sampling)
    contrasts = _Contrasts(X, campaigns, deviation, between**2 / (between**2 + sampling))
    alpha, held_out = contrasts.cross_validate(folds)
    slope = contrasts.slope(held_out)
    full = contrasts.ridge(contrasts.weights, alpha, np.zeros(X.shape[1])) * slope
    model = TextModel(
        tuple(words.get_feature_names_out().tolist()),
        tuple(pieces.get_feature_names_out().tolist()),
        _short(np.concatenate([words.idf_, pieces.idf_])),
        mean,
        spread,
        _short(full),
        vectors.model if len(centre) else "",
        centre,
    )
    return TextFit(model, held_out * slope, np.asarray(X @ model.weights), alpha, slope)


def spread_between(campaigns: Ints, deviation: Floats, sampling: Floats) -> float:
    """τ: standard deviation of the true deviations within campaigns, by moments; at least ``LEAST_SPREAD``."""
    certainty = 1.0 / sampling
    total = np.bincount(campaigns, certainty)
    shown = total > 0
    excess = float(certainty @ centred(deviation, campaigns, certainty) ** 2) - (len(deviation) - int(shown.sum()))
    room = float((total[shown] - np.bincount(campaigns, certainty**2)[shown] / total[shown]).sum())
    return max(LEAST_SPREAD, float(np.sqrt(max(0.0, excess / room)))) if room > 0 else LEAST_SPREAD


class _Contrasts:
    """Texts of the same campaign against each other."""

    def __init__(self, X: csr_array, campaigns: Ints, deviation: Floats, weights: Floats) -> None:
        self.X, self.campaigns, self.deviation, self.weights = X, campaigns, deviation, weights
        self.transposed = csr_array(X.T)

    def cross_validate(self, folds: Ints) -> tuple[float, Floats]:
        """The best α and the held-out scores under it."""
        scores = np.zeros((len(ALPHAS), len(folds)))
        for fold in np.unique(folds):
            held = folds == fold
            start = np.zeros(self.X.shape[1])
            for row, alpha in enumerate(ALPHAS):
                start = self.ridge(np.where(held, 0.0, self.weights), alpha, start)
                scores[row, held] = (self.X @ start)[held]
        errors = [self._error(row) for row in scores]
        best = int(np.argmin(errors))
        return ALPHAS[best], scores[best]

    def ridge(self, weights: Floats, alpha: float, start: Floats) -> Floats:
        """Coefficients of the centred ridge with these row weights, by conjugate gradients from ``start``."""

        def normal(w: Floats) -> Floats:
            return np.asarray(self.transposed @ (weights * centred(self.X @ w, self.campaigns, weights)) + alpha * w)

        size = self.X.shape[1]
        target = self.transposed @ (weights * centred(self.deviation, self.campaigns, weights))
        solution, _ = cg(LinearOperator((size, size), matvec=normal), target, x0=start, rtol=1e-3, maxiter=200)
        return np.asarray(solution)

    def slope(self, scores: Floats) -> float:
        """Slope of the deviation on the scores within campaigns; never below 0."""
        score, target = (centred(values, self.campaigns, self.weights) for values in (scores, self.deviation))
        power = float(self.weights @ score**2)
        return max(0.0, float(self.weights @ (score * target)) / power) if power > 0 else 0.0

    def _error(self, scores: Floats) -> float:
        rest = centred(self.deviation - scores, self.campaigns, self.weights)
        return float(self.weights @ rest**2)


def _marked(texts: Sequence[str]) -> list[str]:
    return [f"{BEGIN} {text} {END}" for text in texts]


def _measured(texts: Sequence[str]) -> Floats:
    return np.array([measured(text) for text in texts])


def _terms(words: csr_matrix, pieces: csr_matrix) -> csr_matrix:
    return hstack([_SHARES["words"] * words, _SHARES["pieces"] * pieces], format="csr")


def _effects(row: csr_matrix, weights: Floats, names: Sequence[str]) -> dict[str, float]:
    """Value times weight of each term of one row."""
    return {names[index]: float(value * weights[index]) for index, value in zip(row.indices, row.data, strict=True)}


def _standardised(factors: Floats, mean: Floats, spread: Floats) -> Floats:
    """Factors in standard deviations from the mean, times the block's share; 0 for one that never varied."""
    scaled = np.divide(factors - mean, spread, out=np.zeros_like(factors), where=spread > 0)
    return _SHARES["factors"] * np.clip(scaled, -_FAR, _FAR)


def _centred(embedding: Floats, centre: Floats) -> Floats:
    """Vectors less their mean, times the block's share; 0 where there is none."""
    return _SHARES["embedding"] * np.nan_to_num(embedding - centre)


def _joined(terms: csr_matrix, rest: csr_matrix) -> csr_array:
    return csr_array(hstack([terms, rest], format="csr"))


def _fixed(options: dict[str, Any], terms: tuple[str, ...], idf: Floats) -> TfidfVectorizer:
    vectorizer = TfidfVectorizer(vocabulary=list(terms), sublinear_tf=True, **options)
    vectorizer.idf_ = idf
    return vectorizer


def _short(values: Floats) -> Floats:
    """Six significant digits: what the bundle stores is exactly what is used."""
    return np.array([float(f"{value:.6g}") for value in values])
