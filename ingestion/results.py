"""Results of a campaign so far: how often each content was shown, and what came of it, from ``content_stats``."""

from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, cast, func, select

from infra import tables
from infra.clock import MICROS


class Result(NamedTuple):
    """One content and metric. ``total``: sum of the values, in units; ``successes``: decisions with a value above 0."""

    content_id: str
    metric: str
    exposures: int
    successes: int
    total: float


def campaign_results(connection: Connection, campaign_id: str) -> list[Result]:
    """By content and metric. A content that was never shown has no row."""
    stats = tables.content_stats.c
    sums = [cast(func.sum(column), BigInteger) for column in (stats.exposures, stats.successes, stats.sum)]
    query = (
        select(stats.content_id, stats.metric, *sums)
        .where(stats.campaign_id == campaign_id)
        .group_by(stats.content_id, stats.metric)
        .order_by(stats.content_id, stats.metric)
    )
    return [
        Result(content_id, metric, exposures, successes, total / MICROS)
        for content_id, metric, exposures, successes, total in connection.execute(query)
        if exposures > 0
    ]
