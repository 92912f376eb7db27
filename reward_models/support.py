"""How far a text is from the texts whose reward is known: what a model says of copy unlike any it has seen is a guess.

    support = fit_support(texts)            None with fewer than ``LEAST`` distinct texts
    support.distance(texts) -> (k,)         in multiples of what is usual: 1 is a text like the others
    support.limit                           beyond it a text is outside

A text is its copy factors and word groups (``factors.py``), the share of its words that no known text has, and how
unlike the nearest known text it is. The distance is Mahalanobis's (1936), (z − z̄)ᵀ S⁻¹ (z − z̄), with Ledoit and Wolf's
shrunk covariance (2004), since there are about as many columns as texts, divided by the median of the known texts, each of
them taken as if it were new: its words and its nearest text are looked for among the others. ``limit`` is the largest that
all but one in a hundred of the known texts keep to.

A predictive variance grows with it: of a linear model, σ²·(1 + h) with h the leverage, in proportion to the distance.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf

from ingestion.copy.near_duplicates import Known
from reward_models.factors import measured
from reward_models.features import plain
from reward_models.lexicon import words

Floats = npt.NDArray[np.float64]

LEAST = 20
"""With fewer distinct texts nothing can be said of what is usual."""
_QUANTILE = 0.99


@dataclass(frozen=True)
class Support:
    """The known texts. ``limit``: the largest usual distance."""

    known: Known
    words: Counter[str]
    """In how many known texts each word is."""
    mean: Floats
    spread: Floats
    precision: Floats
    usual: float
    limit: float

    def distance(self, texts: Sequence[str]) -> Floats:
        """Of new texts, shape (k,)."""
        strange = [(_unknown(text, self.words, 0), self._unlike(text)) for text in texts]
        return self.of_rows(np.array([[*measured(text), *odd] for text, odd in zip(texts, strange, strict=True)]))

    def of_rows(self, rows: Floats) -> Floats:
        """Of texts that are measured already."""
        z = (rows - self.mean) / self.spread
        return np.asarray(np.einsum("ij,jk,ik->i", z, self.precision, z) / self.usual)

    def _unlike(self, text: str) -> float:
        nearest = self.known.nearest(text)
        return 1.0 if nearest is None else 1.0 - nearest[1]


def fit_support(texts: Sequence[str]) -> Support | None:
    """From the texts a model was trained on."""
    distinct = list({plain(text): text for text in texts if text.strip()}.values())
    if len(distinct) < LEAST:
        return None
    held = Counter(word for text in distinct for word in set(words(text)))
    rows = np.array(
        [
            [*measured(text), _unknown(text, held, 1), unlike]
            for text, unlike in zip(distinct, _unlike_others(distinct), strict=True)
        ]
    )
    spread = rows.std(axis=0)
    spread[spread == 0.0] = max(1e-9, float(np.median(spread[spread > 0.0])) if (spread > 0.0).any() else 1.0)
    covariance, _ = ledoit_wolf((rows - rows.mean(axis=0)) / spread)
    draft = Support(Known(), held, rows.mean(axis=0), spread, np.linalg.inv(covariance), 1.0, 0.0)
    found = draft.of_rows(rows)
    usual = float(np.median(found))
    known = Known((str(place), text) for place, text in enumerate(distinct))
    limit = float(np.quantile(found, _QUANTILE)) / usual
    return Support(known, held, draft.mean, spread, draft.precision, usual, limit)


def _unknown(text: str, held: Counter[str], own: int) -> float:
    """Share of a text's words that no known text has. ``own``: 1 for a known text, whose own words do not count."""
    found = words(text)
    return sum(held[word] <= own for word in found) / len(found) if found else 1.0


def _unlike_others(texts: Sequence[str]) -> list[float]:
    """Of each text, 1 less its similarity to the nearest other."""
    known = Known((str(place), text) for place, text in enumerate(texts))
    nearest = (known.nearest(text, but=str(place)) for place, text in enumerate(texts))
    return [1.0 if found is None else 1.0 - found[1] for found in nearest]
