"""Whether the people who judge agree, beyond chance.

    alpha(units, metric) -> float          Krippendorff's alpha: 1 all agree, 0 as by chance, below 0 they contradict each other
    of_pairs(comparisons) -> Agreement     over pairs of contents: which of the two; with Cohen's kappa of every two people

    α = 1 − D_o / D_e,   D_o = Σ_u Σ_{i≠j} δ(v_ui, v_uj) / (m_u − 1) / n,   D_e = Σ_{i≠j} δ(v_i, v_j) / (n (n − 1))

δ is [a ≠ b] for names and (a − b)² for ratings; units judged once are left out (Krippendorff 2011). κ = (p_o − p_e) / (1 − p_e) over what both
judged (Cohen 1960); the mean weighs each two people by what they share.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from reward_models.preferences.judgements import Comparison, Rating

Metric = Literal["nominal", "interval"]


@dataclass(frozen=True)
class Agreement:
    """nan where nothing was judged twice. ``shared``: units judged by two people at least."""

    alpha: float
    kappa: float
    shared: int
    annotators: int

    @property
    def word(self) -> str:
        """In words, by Krippendorff's own bounds."""
        if not self.shared or np.isnan(self.alpha):
            return "nobody judged what somebody else did"
        if self.alpha >= 0.8:
            return "they agree"
        return (
            "they agree roughly" if self.alpha >= 0.667 else "they agree little: ask more people, or ask more clearly"
        )


def of_pairs(comparisons: Sequence[Comparison]) -> Agreement:
    """Units are pairs of contents; who compared a pair several times counts with what was said most, undecided not at all."""
    said: dict[tuple[str, str], dict[str, float]] = {}
    for one in comparisons:
        unit = (min(one.winner, one.loser), max(one.winner, one.loser))
        votes = said.setdefault(unit, {})
        votes[one.annotator] = votes.get(one.annotator, 0.0) + (one.weight if one.winner == unit[0] else -one.weight)
    units = [{who: float(np.sign(vote)) for who, vote in votes.items() if vote} for votes in said.values()]
    return _agreement(units, "nominal")


def of_ratings(ratings: Sequence[Rating]) -> Agreement:
    """Units are contents, values are ratings."""
    said: dict[str, dict[str, float]] = {}
    for one in ratings:
        said.setdefault(one.content, {})[one.annotator] = one.value
    return _agreement(list(said.values()), "interval")


def alpha(units: Iterable[Sequence[float]], metric: Metric) -> float:
    """Krippendorff's, of the values that each unit was given; nan where nothing can differ."""
    shared = [np.asarray(values, dtype=np.float64) for values in units if len(values) > 1]
    if not shared:
        return float("nan")
    everything = np.concatenate(shared)
    n = len(everything)
    observed = sum(_differences(values, metric) / (len(values) - 1) for values in shared) / n
    expected = _differences(everything, metric) / (n * (n - 1))
    return 1.0 - observed / expected if expected > 0 else float("nan")


def kappa(first: Sequence[float], second: Sequence[float]) -> float:
    """Cohen's, of two people's values for the same units; nan where both said one thing only."""
    n = len(first)
    same = sum(a == b for a, b in zip(first, second, strict=True)) / n
    left, right = Counter(first), Counter(second)
    chance = sum(left[value] * right[value] for value in left) / n**2
    return (same - chance) / (1.0 - chance) if chance < 1.0 else float("nan")


def _agreement(units: Sequence[Mapping[str, float]], metric: Metric) -> Agreement:
    shared = [unit for unit in units if len(unit) > 1]
    people = sorted({who for unit in units for who in unit})
    return Agreement(
        alpha([list(unit.values()) for unit in shared], metric), _mean_kappa(shared), len(shared), len(people)
    )


def _mean_kappa(units: Sequence[Mapping[str, float]]) -> float:
    together: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for unit in units:
        for one, other in combinations(sorted(unit), 2):
            together.setdefault((one, other), []).append((unit[one], unit[other]))
    found = [(kappa(*zip(*values, strict=True)), len(values)) for values in together.values()]
    known = [(value, size) for value, size in found if not np.isnan(value)]
    return float(np.average([v for v, _ in known], weights=[size for _, size in known])) if known else float("nan")


def _differences(values: np.ndarray[tuple[int], np.dtype[np.float64]], metric: Metric) -> float:
    """Σ_{i≠j} δ."""
    n = len(values)
    if metric == "interval":
        return float(2.0 * (n * (values**2).sum() - values.sum() ** 2))
    _, counts = np.unique(values, return_counts=True)
    return float(n**2 - (counts.astype(np.float64) ** 2).sum())
