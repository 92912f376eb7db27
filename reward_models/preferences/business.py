"""What customers did with the contents of a loop, beside what people said of them: the input of ``combined.py``.

    load_seen(connection, definition, strengths) -> list of Seen        every content that was compared or shown
    load_deviations(connection, definition) -> by content               what was earned, relative to the campaign

Decisions count with the spread of their rewards, pooled over the campaign. Past results have no spread; they count where the reward is made of
events that happen once or are counted, as Poisson counts, and are left out where it is money.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, Connection, cast, func, select

from infra import tables
from infra.clock import MICROS
from ingestion.copy.stored import campaigns_of
from ingestion.join.statistics import SQUARE_SPLIT
from ingestion.loops import LoopDefinition
from reward_models.preferences.combined import Seen
from reward_models.preferences.strengths import SPREAD, Strengths

_SQUARE_UNIT = 1e-8
_LEAST_SHOWN = 20.0
"""Fewer decisions and past exposures than this in a campaign say nothing of its level."""


@dataclass
class _Sums:
    shown: float = 0.0
    reward: float = 0.0
    squares: float = 0.0


@dataclass
class _Campaign:
    contents: dict[str, _Sums] = field(default_factory=dict)

    def add(self, content: str, shown: float, reward: float, squares: float) -> None:
        """Of one content."""
        sums = self.contents.setdefault(content, _Sums())
        sums.shown, sums.reward, sums.squares = sums.shown + shown, sums.reward + reward, sums.squares + squares


def load_seen(connection: Connection, definition: LoopDefinition, strengths: Strengths) -> list[Seen]:
    """Contents in the order of campaign and id. One that was never shown has no deviation."""
    of_content, found = campaigns_of(connection, definition.loop), load_deviations(connection, definition)
    return [
        Seen(
            campaign,
            content,
            *found.get(content, (float("nan"), float("nan"))),
            strengths.strength.get(content, 0.0),
            strengths.variance.get(content, SPREAD**2),
        )
        for content, campaign in sorted(of_content.items(), key=lambda item: (item[1], item[0]))
        if content in found or content in strengths.strength
    ]


def load_deviations(connection: Connection, definition: LoopDefinition) -> dict[str, tuple[float, float]]:
    """Of each content that was shown: its reward relative to its campaign's, less 1, and the sampling variance of that."""
    campaigns: dict[str, _Campaign] = {}
    _add_decisions(connection, definition, campaigns)
    if all(metric.aggregate in ("any", "count") for metric in definition.metrics if metric.name in definition.reward):
        _add_past(connection, definition, campaigns)
    return {content: seen for sums in campaigns.values() for content, seen in _deviations(sums).items()}


def _deviations(sums: _Campaign) -> Mapping[str, tuple[float, float]]:
    """Relative deviation of each content from its campaign, and the variance of that."""
    shown = sum(one.shown for one in sums.contents.values())
    level = sum(one.reward for one in sums.contents.values()) / shown if shown else 0.0
    if shown < _LEAST_SHOWN or level <= 0.0:
        return {}
    spread = max(sum(one.squares for one in sums.contents.values()) / shown - level**2, 0.01 * level**2)
    return {
        content: (one.reward / one.shown / level - 1.0, spread / (one.shown * level**2))
        for content, one in sums.contents.items()
        if one.shown > 0
    }


def _add_decisions(connection: Connection, definition: LoopDefinition, campaigns: dict[str, _Campaign]) -> None:
    c, named = tables.content_stats.c, tables.campaigns.c
    added = (c.exposures, c.sum, c.sum_squares, c.sum_squares_high)
    query = (
        select(c.campaign_id, c.content_id, c.metric, *(cast(func.sum(column), BigInteger) for column in added))
        .join(tables.campaigns, named.campaign_id == c.campaign_id)
        .where(named.loop_id == definition.loop)
        .group_by(c.campaign_id, c.content_id, c.metric)
    )
    parts: dict[tuple[str, str], tuple[float, float, float]] = {}
    for campaign, content, metric, shown, total, low, high in connection.execute(query):
        if metric not in definition.reward:
            continue
        weight = definition.reward[metric]
        before = parts.get((campaign, content), (0.0, 0.0, 0.0))
        root = abs(weight) * (_SQUARE_UNIT * (low + float(SQUARE_SPLIT) * high)) ** 0.5
        parts[campaign, content] = max(before[0], float(shown)), before[1] + weight * total / MICROS, before[2] + root
    for (campaign, content), (shown, reward, root) in parts.items():
        campaigns.setdefault(campaign, _Campaign()).add(content, shown, reward, root**2)


def _add_past(connection: Connection, definition: LoopDefinition, campaigns: dict[str, _Campaign]) -> None:
    c = tables.historical_results.c
    query = select(c.campaign_id, c.content_id, c.exposures, c.metrics).where(c.loop_id == definition.loop, c.trusted)
    for campaign, content, shown, metrics in connection.execute(query):
        values = {name: metrics.get(name, 0) / MICROS for name in definition.reward}
        reward = sum(definition.reward[name] * value for name, value in values.items())
        squares = sum(definition.reward[name] ** 2 * value for name, value in values.items())
        campaigns.setdefault(campaign, _Campaign()).add(content, float(shown), reward, squares)
