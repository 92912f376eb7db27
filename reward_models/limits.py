"""Limits on shares: what a person allows a content, kept in every pmf that a policy draws from.

    "limits": {"c-brand": {"least": 0.2}, "c-discount": {"most": 0.1, "budget": 5000}}

1. bounds: each candidate's least and most share; the exploration floor counts as a least share where it has room
2. ``within``: the distribution nearest to the policy's own that keeps them
3. budget: a content whose sends are used up is no candidate (``reward_models/serving/ranker.py``)

Nearest is meant in relative entropy, so that candidates which touch no bound keep their ratios:

    q_k = min(high_k, max(low_k, c·p_k)),   c such that Σ q = 1      (Kullback-Leibler projection on a box)

The sum is piecewise linear in c and never falls, so c is found between two of its breakpoints, exactly. A mass that
no c can place (every candidate below its bound has probability 0) goes to the free room in equal parts of it.

Bounds that cannot all be kept, as when most candidates are excluded, give way in proportion: shares of at least
0.6 and 0.6 become a half each, two of at most 0.3 a half each. They hold in every single decision, and so in the
whole send; a holdout keeps its baseline. In a slate they hold for the first position.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ingestion.loops import ContentLimits

Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-12
"""Mass below which nothing is left to place."""
_LEAST = 1e-200
"""Smaller probabilities have no breakpoint of their own: it would be infinite."""


class Bounds(NamedTuple):
    """Least and most share of each candidate, shape (n,) each; feasible: Σ low ≤ 1 ≤ Σ high, low ≤ high."""

    low: Floats
    high: Floats


def stored(limits: Mapping[str, ContentLimits], content_ids: Sequence[str]) -> dict[str, list[float]]:
    """``{content_id: [least, most]}`` of the candidates that have any: what a decision keeps for its replay."""
    of = {name: limits[name] for name in content_ids if name in limits}
    return {name: [one.least, one.most] for name, one in of.items() if one.least > 0.0 or one.most < 1.0}


def bounds(shares: Mapping[str, Sequence[float]], content_ids: Sequence[str]) -> Bounds | None:
    """Bounds of these candidates from what is stored; null where none of them has a limit."""
    if not any(name in shares for name in content_ids):
        return None
    low = np.array([shares[name][0] if name in shares else 0.0 for name in content_ids])
    high = np.array([shares[name][1] if name in shares else 1.0 for name in content_ids])
    if low.sum() > 1.0:
        low = low / low.sum()
    high = np.maximum(high, low)
    if high.sum() < 1.0:
        high = high / high.sum()
    return Bounds(low, high)


def within(p: Floats, limits: Bounds, floor: float) -> Floats:
    """The distribution nearest to ``p`` that keeps the bounds, shape (n,). The floor gives way to a bound."""
    spare = max(0.0, 1.0 - float(limits.low.sum())) / len(p)
    low = np.minimum(np.maximum(limits.low, min(floor, spare)), limits.high)
    q = np.clip(_factor(p, low, limits.high) * p, low, limits.high)
    room, rest = limits.high - q, 1.0 - float(q.sum())
    if rest > _ROUNDING and room.sum() > 0.0:
        q = q + room * min(1.0, rest / float(room.sum()))
    return np.asarray(q / q.sum())


def _factor(p: Floats, low: Floats, high: Floats) -> float:
    """c with Σ clip(c·p, low, high) = 1, or the last breakpoint where the sum stays below 1."""

    def total(c: float) -> float:
        return float(np.clip(c * p, low, high).sum())

    drawn = p > _LEAST
    breaks = np.sort(np.concatenate([[0.0], low[drawn] / p[drawn], high[drawn] / p[drawn]]))
    if total(breaks[-1]) <= 1.0:
        return float(breaks[-1])
    left, right = 0, len(breaks) - 1
    while right - left > 1:
        middle = (left + right) // 2
        left, right = (middle, right) if total(breaks[middle]) <= 1.0 else (left, middle)
    below, above = total(breaks[left]), total(breaks[right])
    if above <= below:  # the least shares leave nothing: they sum to one
        return float(breaks[left])
    return float(breaks[left] + (breaks[right] - breaks[left]) * (1.0 - below) / (above - below))


def read(constraints: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
    """The limits among a stored decision's constraints; none in rows older than limits."""
    found: Mapping[str, Sequence[float]] = constraints.get("limits", {})
    return found
