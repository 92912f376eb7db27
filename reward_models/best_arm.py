"""Which content of a campaign is the best, with an error that was fixed beforehand, however often one looks.

A campaign that ends should stop exploring once it knows. The comparison is made within days (and within what one
model version served), because the level moves from day to day while the shares move too:

    d_ab = Σ_t v_t·(r_at − r_bt) / Σ_t v_t        v_t = 1 / (σ_a²/n_at + σ_b²/n_bt)        V_ab = Σ_t v_t

r is observed minus predicted reward per decision, so that a content shown to better customers gains nothing by it.
V_ab is the information about the difference. b is beaten by a when

    (d_ab + ε)·V_ab / √(V_ab + ρ)  ≥  √(2·ln((K − 1)/δ) + ln(1 + V_ab/ρ)),        d_ab + ε > 0

the boundary of a normal mixture martingale (Robbins 1970; Howard et al. 2021, eq. 14), divided among the K − 1 pairs
in which the true best can lose: the probability that a content ever wins over all others which is worse than the best
by more than ε is at most δ, at every moment, under any policy that chooses by the past. ρ is where the boundary is
tightest: the information of 500 decisions on each side. The variances are estimated, so nobody is judged before
``LEAST`` decisions; decisions of one customer are taken as independent (a campaign sends few to each).

The policy that finds it soonest while it pays for itself is ``top_two`` (``policies.py``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from infra.errors import BadInput
from ingestion.join.statistics import SQUARE_SPLIT
from reward_models.posterior import ArmCounts
from reward_models.statistics import StatRow, arm_counts

Floats = npt.NDArray[np.float64]

LEAST = 100
"""Decisions of each content before it is judged."""
_TIGHTEST = 500.0
"""Decisions on each side at which the boundary is tightest."""
_PSEUDO = 50.0
"""Decisions that the variance of all contents counts for in that of each."""


@dataclass(frozen=True)
class Verdict:
    """What is known of K contents. ``gap``: how much each is below the leader; ``reach``: half the width of its
    confidence sequence; ``beaten``: worse than the leader, or no better by ε; shape (K,) each. The leader is never beaten.

    ``winner``: the leader once all others are beaten, else null.
    """

    leader: int
    winner: int | None
    exposures: Floats
    mean: Floats
    gap: Floats
    reach: Floats
    beaten: npt.NDArray[np.bool_]


def identify(days: Sequence[ArmCounts], error: float = 0.05, tolerance: float = 0.0) -> Verdict:
    """Judge contents by their counts, one :class:`ArmCounts` of shape (K,) per day and model version.

    error: δ, in (0, 1); tolerance: ε, in reward units. Raises :class:`BadInput` without a count.
    """
    if not days or not len(days[0].exposures):
        raise BadInput("There is nothing to compare: no content of this campaign has been shown")
    n = np.array([day.exposures for day in days])
    residual = np.divide([day.sums - day.expected for day in days], n, out=np.zeros_like(n), where=n > 0.0)
    variance = _variances(days)
    exposures = n.sum(axis=0)
    mean = np.divide(sum(day.sums for day in days), exposures, out=np.zeros(len(exposures)), where=exposures > 0.0)
    leader = _leader(n, residual, variance)
    gap, information = _against(leader, n, residual, variance)
    level = np.log((len(exposures) - 1) / error) if len(exposures) > 1 else 0.0
    rho = _TIGHTEST / (2.0 * float(variance.mean()))
    reach = _reach(information, rho, level)
    judged = (exposures >= LEAST) & (exposures[leader] >= LEAST)
    beaten = judged & (gap + tolerance >= reach)
    beaten[leader] = False
    settled = bool(np.delete(beaten, leader).all()) and bool(exposures[leader] >= LEAST)
    gap[leader] = reach[leader] = 0.0
    return Verdict(leader, leader if settled else None, exposures, mean, gap, reach, beaten)


def load_days(
    connection: Connection, campaign_id: str, content_ids: Sequence[str], weights: Mapping[str, float]
) -> list[ArmCounts]:
    """Counts of a campaign by day and model version, aligned with ``content_ids``; days on which one was shown."""
    stats = tables.content_stats.c
    key = (stats.bucket, stats.model_version)
    columns = (stats.content_id, stats.metric, stats.exposures, stats.sum, stats.sum_squares, stats.sum_squares_high)
    query = select(*key, *columns, stats.expected).where(stats.campaign_id == campaign_id).order_by(*key)
    found: dict[tuple[int, str], list[StatRow]] = {}
    for bucket, version, content_id, metric, exposures, total, low, high, expected in connection.execute(query):
        row = StatRow(content_id, metric, exposures, total, low + float(SQUARE_SPLIT) * high, expected)
        found.setdefault((bucket, version), []).append(row)
    return _shown(arm_counts(rows, content_ids, weights) for rows in found.values())


def _shown(days: Iterable[ArmCounts]) -> list[ArmCounts]:
    return [day for day in days if day.exposures.any()]


def _variances(days: Sequence[ArmCounts]) -> Floats:
    """Variance of one decision's reward per content, shape (K,), leaning on that of all contents."""
    n, total, squares = (
        np.sum([getattr(day, name) for day in days], axis=0) for name in ("exposures", "sums", "sum_squares")
    )
    within = np.maximum(squares - np.divide(total**2, n, out=np.zeros_like(total), where=n > 0.0), 0.0)
    pooled = float(within.sum()) / max(1.0, float(n.sum()) - 1.0)
    if pooled == 0.0:
        raise BadInput("All rewards so far are equal, so no content can be told from another; wait for outcomes")
    return np.asarray((_PSEUDO * pooled + within) / (_PSEUDO + n))


def _leader(n: Floats, residual: Floats, variance: Floats) -> int:
    """The content with the highest mean, days compared within themselves: each day's residuals less their mean."""
    weight = n / variance
    level = (weight * residual).sum(axis=1) / weight.sum(axis=1)
    total = weight.sum(axis=0)
    above = np.divide(
        (weight * (residual - level[:, None])).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0
    )
    return int(np.argmax(np.where(total > 0.0, above, -np.inf)))


def _against(leader: int, n: Floats, residual: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Difference of the leader to each content within days, and the information about it, shape (K,) each."""
    inverse = np.divide(variance, n, out=np.full_like(n, np.inf), where=n > 0.0)
    information = 1.0 / (inverse[:, [leader]] + inverse)
    total = information.sum(axis=0)
    gain = (information * (residual[:, [leader]] - residual)).sum(axis=0)
    return np.divide(gain, total, out=np.zeros_like(gain), where=total > 0.0), total


def _reach(information: Floats, rho: float, level: float) -> Floats:
    """Half the width of the mixture's confidence sequence, in reward units; infinite without information."""
    height = np.sqrt((information + rho) * (2.0 * level + np.log1p(information / rho)))
    return np.asarray(np.divide(height, information, out=np.full(len(information), np.inf), where=information > 0.0))
