"""What is seen of a query: its words, its numbers and its shape, as few columns of equal standing.

1. terms: TF-IDF of words (1 to 2 in a row) and of characters inside words (2 to 5), numbers masked by their kind
2. shape: copy factors (``factors.py``) and what the numbers in it are like, standardised, as a block of their own
3. the ``rank`` strongest directions of both (truncated SVD), scaled so that the mean square length of a query is 1: then the variance of
   a weight is the variance of the reward that the text explains
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from reward_models.factors import measured

Floats = npt.NDArray[np.float64]

RANK = 60
_SHAPE_SHARE = 0.5
"""Length of the shape block beside the terms, whose length is 1."""
_FAR = 4.0
_TERMS = 20_000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class QueryView:
    """How texts become columns, fitted on the queries of one log."""

    words: TfidfVectorizer | None
    pieces: TfidfVectorizer | None
    mean: Floats
    spread: Floats
    directions: TruncatedSVD | None
    scale: float

    @property
    def rank(self) -> int:
        """Columns per query."""
        return len(self.mean) if self.directions is None else int(self.directions.n_components)

    def of(self, queries: Sequence[str]) -> Floats:
        """Columns of the queries, shape (k, rank)."""
        raw = _joined(self, queries)
        found = raw.toarray() if self.directions is None else self.directions.transform(raw)
        return np.asarray(found * self.scale, dtype=np.float64)


def fit_view(queries: Sequence[str], rank: int = RANK) -> QueryView:
    """Fitted on the distinct queries of the training part alone."""
    masked = [_masked(query) for query in queries]
    words = _fitted(masked, ngram_range=(1, 2), min_df=2)
    pieces = _fitted(masked, analyzer="char_wb", ngram_range=(2, 5), min_df=3)
    shape = np.array([_shape(query) for query in queries])
    spread = shape.std(axis=0)
    bare = QueryView(words, pieces, shape.mean(axis=0), spread, None, 1.0)
    raw = _joined(bare, queries)
    if min(raw.shape) > rank + 1:
        directions = TruncatedSVD(rank, random_state=0).fit(raw)
        length = _length(directions.transform(raw))
    else:
        directions, length = None, _length(raw.toarray())
    return QueryView(words, pieces, bare.mean, spread, directions, 1.0 / length if length > 0 else 1.0)


def _length(columns: Floats) -> float:
    return float(np.sqrt((columns**2).sum(axis=1).mean()))


def _fitted(texts: Sequence[str], **options: Any) -> TfidfVectorizer | None:
    try:
        return TfidfVectorizer(sublinear_tf=True, max_features=_TERMS, dtype=np.float64, **options).fit(texts)
    except ValueError:  # no term occurs often enough
        return None


def _joined(view: QueryView, queries: Sequence[str]) -> csr_array:
    masked = [_masked(query) for query in queries]
    terms = [each.transform(masked) * np.sqrt(0.5) for each in (view.words, view.pieces) if each is not None]
    shape = np.array([_shape(query) for query in queries])
    scaled = np.divide(shape - view.mean, view.spread, out=np.zeros_like(shape), where=view.spread > 0)
    block = np.clip(scaled, -_FAR, _FAR) * (_SHAPE_SHARE / np.sqrt(shape.shape[1]))
    return csr_array(hstack([*terms, csr_array(block)], format="csr"))


def _masked(query: str) -> str:
    """Lower case; numbers become words for whole, fraction."""
    return _NUMBER.sub(lambda found: "numfraction" if _fraction(float(found[0])) else "numwhole", query).lower()


def _fraction(value: float) -> bool:
    return value != int(value)


def _shape(query: str) -> list[float]:
    numbers = [float(found) for found in _NUMBER.findall(query)[:50]]
    return [*measured(query), *_of_numbers(numbers), *_of_the_end(query)]


def _of_numbers(numbers: Sequence[float]) -> list[float]:
    large, small = max(numbers, default=0.0), min(numbers, default=0.0)
    return [
        float(len(numbers)),
        float(np.log1p(large)),
        float(np.log1p(small)),
        float(np.log1p(sum(numbers))),
        float(sum(map(_fraction, numbers))),
        float(len(set(numbers)) < len(numbers)),
        float(len(numbers) > 1 and numbers[0] < numbers[1]),
    ]


def _of_the_end(query: str) -> list[float]:
    """The last sentence: what is asked for."""
    last = re.split(r"[.!;]\s", query.strip())[-1]
    return [float(len(last.split())), float(len(_NUMBER.findall(last)))]
