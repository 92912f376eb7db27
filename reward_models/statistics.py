"""From the running sums of ``content_stats`` (per metric, in millionths) to counts in reward units.

    newer_counts(connection, counts) -> Counts        arm_counts(rows, content_ids, weights, aging, now) -> ArmCounts
    load_days(connection, loop_id, weights, before) -> counts per day, of every campaign
    load_totals(connection, loop_id, weights) -> counts per campaign, with the contents they are of
    load_beyond(connection, loop_id, weights) -> the same, to be held against what was predicted

    sums = Σ_m w_m·sum_m        sum_squares ≤ (Σ_m |w_m|·√sum_squares_m)²

The second is the triangle inequality: how metrics go together within a decision is not stored, so their squares are
bounded from above, exactly when there is one metric. The default reward of silent decisions is left out: before
maturity nobody knows who is silent, and what all contents share is the level's business (``posterior``).

Rows are by day of decision lately and by week before that, which is all that forgetting and lateness need (``aging``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, cast, func, select, true

from infra import tables
from infra.clock import DAY
from infra.database import chunks
from ingestion.join.statistics import SQUARE_SPLIT
from reward_models.aging import AGELESS, Aging
from reward_models.posterior import ArmCounts

_SUM_UNIT = 1e-6
_SQUARE_UNIT = 1e-8

LATELY = 14
"""Days before the newest that are kept apart; earlier ones are added up by weeks."""
_WEEK = 7


class StatRow(NamedTuple):
    """``content_stats`` of one content and metric under one model version, summed over ``days`` days from ``day`` on."""

    content_id: str
    metric: str
    exposures: int
    sum: int
    sum_squares: float
    expected: int
    day: int = 0
    """Since 1970."""
    days: int = 1


Statistics = dict[str, dict[str, list[StatRow]]]
"""Rows by campaign id, then by model version (empty for none)."""


class Counts(NamedTuple):
    """What is known of the running campaigns, and as of when."""

    statistics: Statistics
    moves: Mapping[str, int]
    """How often each campaign's sums had moved, by campaign id."""
    newest: int
    """The newest day of any decision that is counted: what is lately depends on it."""


NOTHING = Counts({}, {}, -1)


def newer_counts(connection: Connection, counts: Counts) -> Counts:
    """The counts as they are now: of campaigns that have moved since they are read again, of all once a day."""
    newest = connection.scalar(select(func.coalesce(func.max(tables.content_stats.c.bucket), 0))) or 0
    before = counts if newest == counts.newest else NOTHING
    moves = _moves(connection)
    moved = [name for name, count in moves.items() if before.moves.get(name) != count]
    kept = {name: rows for name, rows in before.statistics.items() if name in moves and name not in moved}
    read = _load(connection, newest - LATELY, None if len(moved) == len(moves) else moved)
    return Counts(kept | read, moves, newest)


def _moves(connection: Connection) -> dict[str, int]:
    """Of every running campaign."""
    campaigns, moved = tables.campaigns.c, tables.campaign_moves.c
    query = (
        select(campaigns.campaign_id, func.coalesce(moved.moves, 0))
        .outerjoin_from(tables.campaigns, tables.campaign_moves, campaigns.campaign_id == moved.campaign_id)
        .where(campaigns.state == "running")
    )
    return dict(connection.execute(query).tuples().all())


def _load(connection: Connection, recent: int, some: Sequence[str] | None) -> Statistics:
    """Rows of these campaigns; None: of all that run. Days up to ``recent`` are added up by weeks."""
    bucket, campaigns = tables.content_stats.c.bucket, tables.campaigns.c
    query = _summed(case((bucket > recent, bucket), else_=bucket - bucket % _WEEK)).where(campaigns.state == "running")
    parts = [query] if some is None else [query.where(campaigns.campaign_id.in_(few)) for few in chunks(some, 500)]
    found: Statistics = {}
    for part in parts:
        for campaign_id, version, row in _rows(connection, part):
            wide = row if row.day > recent else row._replace(days=min(_WEEK, recent + 1 - row.day))
            found.setdefault(campaign_id, {}).setdefault(version, []).append(wide)
    return found


def load_days(connection: Connection, loop_id: str, weights: Mapping[str, float], before: int) -> list[ArmCounts]:
    """Counts per day and content, (days, k), of every campaign of a loop, from its first to its last day that ended
    before ``before`` (microseconds), whatever models served.

    Expected is what the customers of the day make of it: the prediction less its mean for the content under that model.
    So a content is the same under all models, and what a model has learned of it is no drift.
    """
    ended = tables.content_stats.c.bucket < before // DAY
    groups = _of_loop(connection, loop_id, ended)
    return [_by_day(groups[campaign_id], weights)[1] for campaign_id in sorted(groups)]


def load_totals(
    connection: Connection, loop_id: str, weights: Mapping[str, float]
) -> dict[str, tuple[list[str], ArmCounts]]:
    """By campaign, running or not: its contents that were shown, and their counts in all, (k,). Expected as in
    :func:`load_days`."""
    found = {}
    for campaign_id, versions in _of_loop(connection, loop_id, true()).items():
        contents, days = _by_day(versions, weights)
        parts = (days.exposures, days.sums, days.sum_squares, days.expected)
        found[campaign_id] = (contents, ArmCounts(*(part.sum(axis=0) for part in parts)))
    return found


def load_beyond(
    connection: Connection, loop_id: str, weights: Mapping[str, float]
) -> dict[str, tuple[list[str], ArmCounts]]:
    """By campaign, running or not: its contents that were shown, and their counts in all, (k,).

    Expected is the prediction of the model that served, in proportion to what all its decisions earned: a model that is
    wrong about a campaign's level says nothing of its contents by that. Without one it is the mean of the decisions.
    """
    found = {}
    for campaign_id, versions in _of_loop(connection, loop_id, true(), tables.content_stats.c.bucket * 0).items():
        contents = sorted({row.content_id for rows in versions.values() for row in rows})
        parts = [in_proportion(arm_counts(versions[version], contents, weights)) for version in sorted(versions)]
        found[campaign_id] = (contents, reduce(add, parts))
    return found


def in_proportion(counts: ArmCounts) -> ArmCounts:
    """Counts whose predictions are as high as what was earned, in all."""
    earned, expected = float(counts.sums.sum()), counts.expected
    if float(expected.sum()) <= 0.0:
        expected = counts.exposures
    total = float(expected.sum())
    return replace(counts, expected=expected * (earned / total if total > 0.0 else 0.0))


def arm_counts(
    rows: Iterable[StatRow],
    content_ids: Sequence[str],
    weights: Mapping[str, float],
    aging: Aging = AGELESS,
    now: int = 0,
) -> ArmCounts:
    """Counts aligned with ``content_ids``, shape (k,), of the reward ``{metric: weight}``, as old as they are at ``now``.

    Rows of other contents and of metrics outside the reward are skipped. Rows must be of one model version: the
    predictions of another are not comparable. The rows of every metric repeat exposures and prediction; those of the
    metric that has counted longest are taken.
    """
    index = {content_id: position for position, content_id in enumerate(content_ids)}
    column = {metric: position for position, metric in enumerate(weights)}
    table, aged = np.zeros((4, len(column), len(index))), aging.at(now)
    for row in rows:
        if row.metric in column and row.content_id in index:
            kept = aged.kept(row.day, row.days)
            there = kept * aged.arrived(row.content_id, row.day, row.days)
            numbers = (there * row.exposures, kept * row.sum, kept * row.sum_squares, there * row.expected)
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


def _summed(day: ColumnElement[Any]) -> Select[Any]:
    """Sums per campaign, version, content, metric and ``day``, in this order: whoever adds the rows up gets the same
    to the last digit."""
    stats = tables.content_stats.c
    key = (stats.campaign_id, stats.model_version, stats.content_id, stats.metric, day.label("day"))
    added = (stats.exposures, stats.sum, stats.sum_squares, stats.sum_squares_high, stats.expected)
    return (
        select(*key, *(cast(func.sum(column), BigInteger) for column in added))
        .join(tables.campaigns, tables.campaigns.c.campaign_id == stats.campaign_id)
        .group_by(*key)
        .order_by(*key)
    )


def _rows(connection: Connection, query: Select[Any]) -> Iterable[tuple[str, str, StatRow]]:
    for campaign_id, version, content_id, metric, day, exposures, total, low, high, expected in connection.execute(
        query
    ):
        squares = low + float(SQUARE_SPLIT) * high
        yield campaign_id, version, StatRow(content_id, metric, exposures, total, squares, expected, day)


def _of_loop(
    connection: Connection,
    loop_id: str,
    which: ColumnElement[bool],
    day: ColumnElement[Any] = tables.content_stats.c.bucket,
) -> dict[str, dict[str, list[StatRow]]]:
    """Rows of a loop's campaigns, by campaign and model version, each of one ``day``."""
    of_loop = tables.campaigns.c.loop_id == loop_id
    groups: dict[str, dict[str, list[StatRow]]] = {}
    for campaign_id, version, row in _rows(connection, _summed(day).where(of_loop, which)):
        groups.setdefault(campaign_id, {}).setdefault(version, []).append(row)
    return groups


def _by_day(versions: Mapping[str, Sequence[StatRow]], weights: Mapping[str, float]) -> tuple[list[str], ArmCounts]:
    """The contents, sorted, and their counts, (days, k)."""
    every = [row for rows in versions.values() for row in rows]
    contents = sorted({row.content_id for row in every})
    days = range(min(row.day for row in every), max(row.day for row in every) + 1)
    return contents, reduce(
        add, (_of_version(versions[version], contents, days, weights) for version in sorted(versions))
    )


def _of_version(
    rows: Iterable[StatRow], contents: Sequence[str], days: Sequence[int], weights: Mapping[str, float]
) -> ArmCounts:
    cells = [f"{day} {content_id}" for day in days for content_id in contents]
    counts = arm_counts([row._replace(content_id=f"{row.day} {row.content_id}") for row in rows], cells, weights)
    shape = (len(days), len(contents))
    parts = (counts.exposures, counts.sums, counts.sum_squares, counts.expected)
    shown, sums, squares, expected = (part.reshape(shape) for part in parts)
    usual = expected.sum(axis=0) / np.maximum(shown.sum(axis=0), 1.0)
    return ArmCounts(shown, sums, squares, expected - shown * usual)
