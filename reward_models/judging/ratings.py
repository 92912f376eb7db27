"""The ratings that judges gave: feedback of the kind ``rating``, by judge and content.

    load_ratings(connection, loop_id, source="LLM_JUDGE") -> {judge: {content id: Rating}}

A judge is who its ratings say in ``judge`` (``pipelines/generation/judge.py`` writes rubric, version and model there). As a
feature a rating must be known when a decision is made: so it is among the features that a content is registered with,
and part of that immutable content from then on (``content.judge_…`` is then a column like any other). What is rated
later is evidence about the judge, and no feature: a column filled in afterwards would change what replays score.
"""

from typing import NamedTuple

from sqlalchemy import Connection, select

from infra import tables

UNNAMED = "unnamed"


class Rating(NamedTuple):
    """The mean of what one judge said of a content, and when it did so first (microseconds)."""

    rating: float
    at: int


def load_ratings(connection: Connection, loop_id: str, source: str = "LLM_JUDGE") -> dict[str, dict[str, Rating]]:
    """Ratings of a loop's contents by judge, judges by name."""
    feedback, contents, campaigns = tables.feedback.c, tables.contents, tables.campaigns
    query = (
        select(feedback.content_id, feedback.value, feedback.created_at)
        .join(contents, contents.c.content_id == feedback.content_id)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(campaigns.c.loop_id == loop_id, feedback.kind == "rating", feedback.source == source)
        .order_by(feedback.created_at, feedback.feedback_id)
    )
    said: dict[str, dict[str, list[Rating]]] = {}
    for content_id, value, at in connection.execute(query):
        judge = str(value.get("judge") or UNNAMED)
        said.setdefault(judge, {}).setdefault(content_id, []).append(Rating(float(value["rating"]), at))
    return {judge: {name: _mean(ratings) for name, ratings in said[judge].items()} for judge in sorted(said)}


def _mean(ratings: list[Rating]) -> Rating:
    return Rating(sum(one.rating for one in ratings) / len(ratings), min(one.at for one in ratings))
