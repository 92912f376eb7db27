"""What is known of each content of a campaign, as a posterior: what examples for fine-tuning are chosen by.

    1. counts per day of the days whose outcomes are final, and past results that can be trusted
    2. on each day every content against the day's own level, so that neither season nor targeting speaks for anybody: what
       the models of the day expected is taken off first
    3. posterior of each content's effect (``posterior.py``): shrunk as far as the campaign's contents are alike

    better(a, b) = Φ((m_a − m_b) / √(s_a² + s_b²))        above(a) = Φ((m_a − level) / s_a)

Decisions of one customer are taken as independent. Money in past results is left out: an aggregate does not tell its spread.

    campaigns_of(connection, definition, now) -> one Campaign after the other; memory holds one
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr
from sqlalchemy import Connection, Row, select

from infra import tables
from infra.clock import DAY
from ingestion.join.outcomes import ONE
from ingestion.join.statistics import SQUARE_SPLIT
from ingestion.loops import LoopDefinition
from reward_models.posterior import ArmCounts, Prior, content_effects
from reward_models.statistics import StatRow, arm_counts


class Standing(NamedTuple):
    """One content: its posterior reward per send, and how often it was sent. ``row``: of the table ``contents``."""

    row: Row[Any]
    mean: float
    sd: float
    sends: int


@dataclass(frozen=True)
class Campaign:
    """A campaign's contents that were sent, by id, and what an average send earned."""

    row: Row[Any]
    """Of the table ``campaigns``."""
    level: float
    contents: tuple[Standing, ...]

    def above(self, one: Standing) -> float:
        """Probability that a content earns more than the campaign's level."""
        return _likely(one.mean - self.level, one.sd)


def better(one: Standing, other: Standing) -> float:
    """Probability that one content earns more than another of the same campaign."""
    return _likely(one.mean - other.mean, float(np.hypot(one.sd, other.sd)))


def campaigns_of(
    connection: Connection, definition: LoopDefinition, now: int, only: Sequence[str] = ()
) -> Iterator[Campaign]:
    """The loop's campaigns of which something is known, by id; ``only`` these where some are named."""
    c = tables.campaigns.c
    wanted = [c.loop_id == definition.loop, *([c.campaign_id.in_(only)] if only else [])]
    for row in connection.execute(select(tables.campaigns).where(*wanted).order_by(c.campaign_id)).all():
        campaign = _known(connection, definition, row, now)
        if campaign is not None:
            yield campaign


def standing(days: Sequence[ArmCounts]) -> tuple[float, np.ndarray, np.ndarray]:
    """Level, posterior means and standard deviations, shape (k,), from counts per day."""
    total = sum(float(day.sums.sum()) for day in days)
    sends = sum(float(day.exposures.sum()) for day in days)
    level = total / sends if sends else 0.0
    effects = content_effects(_pooled(days), Prior(abs(level)))
    return level, level + effects.effect, np.asarray(effects.sd)


def _pooled(days: Sequence[ArmCounts]) -> ArmCounts:
    """The days as one, each content against the level of its days."""
    parts = []
    for day in days:
        usual = float((day.sums - day.expected).sum()) / float(day.exposures.sum())
        parts.append(
            ArmCounts(day.exposures, day.sums, day.sum_squares, day.expected + usual * day.exposures),
        )
    return sum(parts[1:], parts[0])


def _known(connection: Connection, definition: LoopDefinition, row: Row[Any], now: int) -> Campaign | None:
    c = tables.contents.c
    contents = connection.execute(
        select(tables.contents).where(c.campaign_id == row.campaign_id).order_by(c.content_id)
    ).all()
    names = [content.content_id for content in contents]
    days = [day for day in _days(connection, definition, row.campaign_id, names, now) if day.exposures.any()]
    if not days or all(not day.sum_squares.any() for day in days):
        return None
    level, means, sds = standing(days)
    sends = np.sum([day.exposures for day in days], axis=0)
    known = (
        Standing(content, float(mean), float(sd), int(shown))
        for content, mean, sd, shown in zip(contents, means, sds, sends, strict=True)
        if shown
    )
    return Campaign(row, level, tuple(known))


def _days(
    connection: Connection, definition: LoopDefinition, campaign_id: str, names: Sequence[str], now: int
) -> Iterator[ArmCounts]:
    stats = tables.content_stats.c
    columns = (stats.content_id, stats.metric, stats.exposures, stats.sum, stats.sum_squares, stats.sum_squares_high)
    last = (now - definition.maturity) // DAY
    query = (
        select(stats.bucket, stats.model_version, *columns, stats.expected)
        .where(stats.campaign_id == campaign_id, stats.bucket < last)
        .order_by(stats.bucket, stats.model_version)
    )
    found: dict[tuple[int, str], list[StatRow]] = {}
    for bucket, version, name, metric, shown, total, low, high, expected in connection.execute(query):
        squares = low + float(SQUARE_SPLIT) * high
        found.setdefault((bucket, version), []).append(StatRow(name, metric, shown, total, squares, expected))
    for rows in found.values():
        yield arm_counts(rows, names, definition.reward)
    yield from _past(connection, definition, campaign_id, names)


def _past(
    connection: Connection, definition: LoopDefinition, campaign_id: str, names: Sequence[str]
) -> Iterator[ArmCounts]:
    """Past results as one day; events that are counted have as many squares as events."""
    if any(definition.metric(name).aggregate not in ("any", "count") for name in definition.reward):
        return
    c, place = tables.historical_results.c, {name: at for at, name in enumerate(names)}
    query = select(c.content_id, c.exposures, c.metrics).where(c.campaign_id == campaign_id, c.trusted.is_(True))
    exposures, sums, squares = np.zeros((3, len(names)))
    for row in connection.execute(query):
        if row.content_id in place:
            exposures[place[row.content_id]] += row.exposures
            sums[place[row.content_id]] += _weighed(row.metrics, definition.reward, 1)
            squares[place[row.content_id]] += _weighed(row.metrics, definition.reward, 2)
    yield ArmCounts(exposures, sums, squares, np.zeros(len(names)))


def _weighed(metrics: Mapping[str, int], weights: Mapping[str, float], power: int) -> float:
    return sum(weight**power * metrics.get(name, 0) / ONE for name, weight in weights.items())


def _likely(apart: float, sd: float) -> float:
    return float(ndtr(apart / sd)) if sd > 0.0 else 0.5
