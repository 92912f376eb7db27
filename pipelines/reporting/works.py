"""What works: what copy factors and phrases do to the reward, with their uncertainty, for all customers or a segment.

Contents are compared inside their campaign, never across. With y the reward of a content relative to its campaign's
level and x a factor, both less their weighted campaign means:

    slope = Σ w·x·y / Σ w·x²     se² = 1/Σ w·x²     w = 1/(sampling variance of y + τ²)

τ is how much contents differ for reasons no factor tells (by moments). Many factors are looked at, and the largest of
many is large by chance. So of m intervals each is as wide as R of m need, R being how many the procedure of Benjamini &
Hochberg (1995) finds at 5 %:

    effect ± z(1 − R·0.05/(2·m))·se          (Benjamini & Yekutieli 2005: of those that leave out 0, 5 % miss the truth)

A factor is taken alone: one that comes with another shares its credit. That is what a person may try, not a law.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipelines.reporting.facts import Effect, Interval
from reward_models.factors import NAMES, measured
from reward_models.text import spread_between

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_TOLD = 12
"""Effects of a kind that are told, the surest first."""
MOST_PHRASES = 400
MISSED = 0.05
"""Of the effects that are called sure, so many may be none."""
SAME = 0.95
"""Two columns that correlate more are one finding."""
LEAST_WITH = 3
"""Contents that must have a phrase or factor, and that must not."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
_MEASURES = {
    "characters": "longer (characters)",
    "words": "more words",
    "word_length": "longer words",
    "sentences": "more sentences",
    "reading_ease": "easier to read",
    "upper_share": "more capitals",
    "sentiment": "more positive",
}
"""Factors that are more or less: their effect is that of one standard deviation more."""


@dataclass(frozen=True)
class Results:
    """K contents of a loop: campaign number, text, reward per decision, its sampling variance, level of the campaign.
    Only contents that were shown, in campaigns with a level above 0."""

    campaign: Ints
    text: tuple[str, ...]
    mean: Floats
    variance: Floats
    level: Floats

    def __len__(self) -> int:
        return len(self.text)


def what_works(results: Results, segment: str = "", most: int = MOST_TOLD) -> tuple[Effect, ...]:
    """The effects that stand out most, factors before phrases; nothing with too few contents."""
    if len(results) < 2 * LEAST_WITH:
        return ()
    order = sorted(range(len(NAMES)), key=lambda place: NAMES[place] in _MEASURES)  # of twins yes and no is told first
    factors = np.array([measured(text) for text in results.text])[:, order]
    names = [_told(NAMES[place]) for place in order]
    scaled = np.array([NAMES[place] in _MEASURES for place in order])
    spread = factors.std(axis=0)
    factors[:, scaled] /= np.where(spread > 0.0, spread, 1.0)[scaled]
    phrases, having = _phrases(results.text)
    return (
        *_effects(results, factors, names, "factor", segment, most),
        *_effects(results, having, [f"“{phrase}”" for phrase in phrases], "phrase", segment, most),
    )


def _effects(
    results: Results, table: Floats, names: Sequence[str], kind: str, segment: str, most: int
) -> tuple[Effect, ...]:
    deviation, sampling = results.mean / results.level - 1.0, results.variance / results.level**2
    weight = 1.0 / (sampling + spread_between(results.campaign, deviation, sampling) ** 2)
    x, y = (_centred(part, results.campaign, weight) for part in (table, deviation[:, None]))
    information = (weight[:, None] * x**2).sum(axis=0)
    varies = _varies(table, results.campaign)
    if not varies.any():
        return ()
    slope = (weight[:, None] * x * y).sum(axis=0)[varies] / information[varies]
    noise = 1.0 / information[varies]
    z = np.abs(slope) / np.sqrt(noise)
    reach = _reach(z) * np.sqrt(noise)
    names = [name for name, kept in zip(names, varies, strict=True) if kept]
    having = (table != 0.0).sum(axis=0)[varies]
    surest = np.argsort(-np.round(z, 6), kind="stable")
    order = _different(np.sqrt(weight[:, None]) * x[:, varies], surest, most)
    return tuple(
        Effect(
            names[place],
            "factor" if kind == "factor" else "phrase",
            segment,
            Interval(float(slope[place]), float(slope[place] - reach[place]), float(slope[place] + reach[place])),
            int(having[place]),
        )
        for place in order
    )


def _reach(z: Floats) -> float:
    """Standard errors that the intervals reach, from the |z| of all that were looked at."""
    p = np.sort(2.0 * stats.norm.sf(z))
    found = np.flatnonzero(p <= MISSED * np.arange(1, len(p) + 1) / len(p))
    share = (found[-1] + 1 if len(found) else 1) / len(p)
    return float(stats.norm.isf(MISSED * share / 2.0))


def _different(columns: Floats, order: Iterable[int], most: int) -> list[int]:
    """The first ``most`` of the order, without columns that say the same as one before."""
    length = np.sqrt((columns**2).sum(axis=0))
    kept: list[int] = []
    for place in order:
        alike = np.abs(columns[:, place] @ columns[:, kept]) / (length[place] * length[kept])
        if not (alike > SAME).any():
            kept.append(int(place))
        if len(kept) == most:
            break
    return kept


def _varies(table: Floats, campaign: Ints) -> npt.NDArray[np.bool_]:
    """Columns with enough contents off their campaign's most common value, and enough on it."""
    usual = np.array([np.median(table[campaign == one], axis=0) for one in range(int(campaign.max()) + 1)])
    off = (np.abs(table - usual[campaign]) > 1e-9).sum(axis=0)
    return np.asarray(((off >= LEAST_WITH) & (len(table) - off >= LEAST_WITH)) | (off > len(table) / 2), dtype=np.bool_)


def _centred(table: Floats, campaign: Ints, weight: Floats) -> Floats:
    count = int(campaign.max()) + 1
    total = np.bincount(campaign, weight, count)
    means = np.array([np.bincount(campaign, weight * column, count) for column in table.T]).T / total[:, None]
    return np.asarray(table - means[campaign])


def _phrases(texts: Sequence[str]) -> tuple[list[str], Floats]:
    """Words and pairs of words that enough contents have, and which have them, shape (K, phrases)."""
    sets = [_grams(text) for text in texts]
    count = Counter(gram for grams in sets for gram in grams)
    common = [
        gram
        for gram, number in sorted(count.items(), key=lambda item: (-item[1], item[0]))
        if LEAST_WITH <= number <= len(texts) - LEAST_WITH
    ][:MOST_PHRASES]
    return common, np.array([[float(gram in grams) for gram in common] for grams in sets]).reshape(len(texts), -1)


def _grams(text: str) -> set[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    return {*words, *(f"{one} {other}" for one, other in pairwise(words))}


def _told(name: str) -> str:
    """A group of words keeps its ``words:``, as some are called like a factor."""
    return _MEASURES.get(name, name.replace("_", " "))
