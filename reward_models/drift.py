"""Drift: are today's decisions like those the champion learned from, and does what it promised arrive?

contexts   per feature, shares of its values before and now (numbers by tenths of the earlier ones, rare words together):
           PSI = Σ (now − before)·ln(now/before), less (k − 1)(1/n + 1/m), what k shares of n and m rows show by chance.
           Above 0.1 worth a look, above 0.25 another population (Siddiqi 2006; the correction: Yurdakul 2018)
promises   d = reward − prediction over rows the model has not seen, clustered by unit:
           z = Σ d / √Σ_u (Σ_{d of u} d)²
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from reward_models.contexts import Contexts, Values
from reward_models.folds import codes_of
from reward_models.health import p_value

Floats = npt.NDArray[np.float64]

LOOK = 0.1
SHIFTED = 0.25
"""A population stability index above it is another population."""
LEAST_ROWS = 200
"""Fewer rows on either side say nothing of shares."""
_WORDS = 30
"""Words told apart; rarer ones are one."""
_HALF = 0.5
"""Added to every count, so that no share is 0."""


@dataclass(frozen=True)
class Shift:
    """How far the values of one feature moved. ``index``: the PSI beyond chance, at least 0."""

    feature: str
    index: float


@dataclass(frozen=True)
class Kept:
    """What was promised and what arrived, per row. ``p``: of a difference so large by chance."""

    rows: int
    promised: float
    arrived: float
    p: float


def shifts(before: Contexts, now: Contexts) -> tuple[Shift, ...]:
    """Every feature, the furthest moved first; none where either side has fewer than ``LEAST_ROWS`` rows."""
    if min(before.size, now.size) < LEAST_ROWS:
        return ()
    names = {**before.columns, **now.columns}
    found = [Shift(name, _index(*_counts(before, now, name))) for name in names]
    return tuple(sorted(found, key=lambda shift: (-shift.index, shift.feature)))


def kept(promised: Floats, reward: Floats, clusters: Sequence[str]) -> Kept | None:
    """What became of the promises for n rows; None where nothing varies."""
    gaps = reward - promised
    by_unit = np.bincount(codes_of(tuple(clusters)), gaps) if len(gaps) else gaps
    spread = float((by_unit**2).sum())
    if not spread:
        return None
    return Kept(len(gaps), float(promised.mean()), float(reward.mean()), p_value(float(gaps.sum()) / sqrt(spread)))


def _counts(before: Contexts, now: Contexts, name: str) -> tuple[Floats, Floats]:
    """How often each value occurs on either side; the last is absence."""
    sides = [side.columns.get(name) for side in (before, now)]
    if any(side is not None and side.textual for side in sides):
        tables = [_words(side) for side in sides]
    else:
        tables = [_tenths(side, sides[0]) for side in sides]
    values = list(dict.fromkeys(value for table in tables for value in table))
    common = sorted(values, key=lambda value: -sum(table.get(value, 0) for table in tables))[:_WORDS]
    return _row(tables[0], common, before.size), _row(tables[1], common, now.size)


def _row(table: dict[str, int], common: Sequence[str], size: int) -> Floats:
    listed = [table.get(value, 0) for value in common]
    rare = sum(table.values()) - sum(listed)
    return np.array([*listed, rare, size - sum(table.values())], dtype=np.float64)


def _words(values: Values | None) -> dict[str, int]:
    return {} if values is None else dict(values.counts(str))


def _tenths(values: Values | None, reference: Values | None) -> dict[str, int]:
    if values is None:
        return {}
    numbers, known = values.numbers(), np.empty(0)
    if reference is not None:
        known = reference.numbers()
    known = known[np.isfinite(known)]
    edges = np.unique(np.quantile(known, np.arange(1, 10) / 10)) if len(known) else np.empty(0)
    places, times = np.unique(np.searchsorted(edges, numbers[np.isfinite(numbers)], side="left"), return_counts=True)
    return {str(place): int(count) for place, count in zip(places, times, strict=True)}


def _index(before: Floats, now: Floats) -> float:
    used = (before + now) > 0
    k, n, m = int(used.sum()), float(before.sum()), float(now.sum())
    p = (before[used] + _HALF) / (n + _HALF * k)
    q = (now[used] + _HALF) / (m + _HALF * k)
    moved = float(((q - p) * np.log(q / p)).sum())
    return max(0.0, moved - (k - 1) * (1.0 / n + 1.0 / m))
