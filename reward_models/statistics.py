"""From the running sums of ``content_stats`` (per metric, in millionths) to counts in reward units.

    load_statistics(connection) -> Statistics        arm_counts(rows, content_ids, weights) -> ArmCounts

    sums = Σ_m w_m·sum_m        sum_squares ≤ (Σ_m |w_m|·√sum_squares_m)²

The second is the triangle inequality: how metrics go together within a decision is not stored, so their squares are
bounded from above, exactly when there is one metric. The default reward of silent decisions is left out: before
maturity nobody knows who is silent, and what all contents share is the shift's business (``posterior``).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import BigInteger, Connection, cast, func, select

from infra import tables
from ingestion.statistics import SQUARE_SPLIT
from reward_models.posterior import ArmCounts

_SUM_UNIT = 1e-6
_SQUARE_UNIT = 1e-8


class StatRow(NamedTuple):
    """``content_stats`` of one content and metric under one model version, summed over days."""

    content_id: str
    metric: str
    exposures: int
    sum: int
    sum_squares: float
    expected: int


Statistics = dict[str, dict[str, list[StatRow]]]
"""Rows by campaign id, then by model version (empty for none)."""


def load_statistics(connection: Connection) -> Statistics:
    """Every running campaign's rows."""
    stats, campaigns = tables.content_stats.c, tables.campaigns.c
    key = (stats.campaign_id, stats.model_version, stats.content_id, stats.metric)
    added = (stats.exposures, stats.sum, stats.sum_squares, stats.sum_squares_high, stats.expected)
    query = (
        select(*key, *(cast(func.sum(column), BigInteger) for column in added))
        .join(tables.campaigns, campaigns.campaign_id == stats.campaign_id)
        .where(campaigns.state == "running")
        .group_by(*key)
    )
    found: Statistics = {}
    for campaign_id, model_version, content_id, metric, exposures, total, low, high, expected in connection.execute(
        query
    ):
        row = StatRow(content_id, metric, exposures, total, low + float(SQUARE_SPLIT) * high, expected)
        found.setdefault(campaign_id, {}).setdefault(model_version, []).append(row)
    return found


def arm_counts(rows: Iterable[StatRow], content_ids: Sequence[str], weights: Mapping[str, float]) -> ArmCounts:
    """Counts aligned with ``content_ids``, shape (k,), of the reward ``{metric: weight}``.

    Rows of other contents and of metrics outside the reward are skipped. Rows must be of one model version: the
    predictions of another are not comparable. The rows of every metric repeat exposures and prediction; those of the
    metric that has counted longest are taken.
    """
    index = {content_id: position for position, content_id in enumerate(content_ids)}
    column = {metric: position for position, metric in enumerate(weights)}
    table = np.zeros((4, len(column), len(index)))
    for row in rows:
        if row.metric in column and row.content_id in index:
            numbers = (row.exposures, row.sum, row.sum_squares, row.expected)
            table[:, column[row.metric], index[row.content_id]] += numbers
    exposures, sums, squares, expected = table
    weight = np.array(list(weights.values()))
    longest = exposures.argmax(axis=0)[None, :]
    return ArmCounts(
        exposures=np.take_along_axis(exposures, longest, axis=0)[0],
        sums=_SUM_UNIT * (weight @ sums),
        sum_squares=(np.abs(weight) @ np.sqrt(_SQUARE_UNIT * squares)) ** 2,
        expected=_SUM_UNIT * np.take_along_axis(expected, longest, axis=0)[0],
    )
