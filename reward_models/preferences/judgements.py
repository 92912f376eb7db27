"""What people said about contents, as comparisons: of two contents, by one person.

    load_judgements(connection, loop_id) -> Judgements      from the stored feedback: preferences, rankings, ratings
    judgements_of(said, campaigns) -> Judgements            the same from values

A preference is one comparison. A ranking of k contents is k(k−1)/2, each weighing 2/k, so that a list of ten does not speak with the weight of
forty-five people. Ratings become comparisons of the contents that the same person rated differently in the same campaign, with the same weights. Only
contents of one campaign are compared. Feedback of language models is kept apart by its source.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import Connection, or_, select

from infra import tables
from ingestion.copy.stored import campaigns_of
from ingestion.loops import load_loop

KINDS = ("preference", "ranking", "rating")
UNNAMED = "unnamed"
"""The annotator of feedback that does not say whose it is."""


@dataclass(frozen=True)
class Comparison:
    """``annotator`` put ``winner`` above ``loser``. ``weight``: of one ranking or set of ratings, what one comparison counts."""

    campaign: str
    winner: str
    loser: str
    annotator: str
    weight: float = 1.0


@dataclass(frozen=True)
class Rating:
    """What one person gave one content."""

    campaign: str
    content: str
    annotator: str
    value: float


@dataclass(frozen=True)
class Judgements:
    """Everything said about the contents of a loop, by one source. ``unknown``: mentions of contents that are not the loop's."""

    comparisons: tuple[Comparison, ...]
    ratings: tuple[Rating, ...]
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.comparisons)


def load_judgements(connection: Connection, loop_id: str, source: str = "HUMAN") -> Judgements:
    """From the feedback table, oldest first: what names this loop, or none. Raises :class:`NotFound` for an unknown loop."""
    load_loop(connection, loop_id)
    campaigns = campaigns_of(connection, loop_id)
    c = tables.feedback.c
    query = select(c.kind, c.content_id, c.value).where(
        c.kind.in_(KINDS), c.source == source, or_(c.loop_id == loop_id, c.loop_id.is_(None))
    )
    rows = connection.execute(query.order_by(c.created_at, c.feedback_id)).all()
    return judgements_of([(row.kind, row.content_id, row.value) for row in rows], campaigns)


def judgements_of(
    said: Iterable[tuple[str, str | None, Mapping[str, Any]]], campaigns: Mapping[str, str]
) -> Judgements:
    """Rows of kind, content and value; ``campaigns`` of the contents that count."""
    comparisons: list[Comparison] = []
    ratings: dict[tuple[str, str], Rating] = {}
    unknown = 0
    for kind, content, value in said:
        annotator = str(value.get("annotator") or UNNAMED)
        if kind == "rating":
            if content not in campaigns or content is None:
                unknown += 1
                continue
            ratings[annotator, content] = Rating(campaigns[content], content, annotator, float(value["rating"]))
            continue
        order = (
            [str(value["winner"]), str(value["loser"])] if kind == "preference" else list(map(str, value["ranking"]))
        )
        if len({campaigns.get(each) for each in order}) != 1 or order[0] not in campaigns:
            unknown += 1
            continue
        comparisons += _of_order(campaigns[order[0]], order, annotator)
    rated = tuple(ratings.values())
    return Judgements((*comparisons, *of_ratings(rated)), rated, unknown)


def of_ratings(ratings: Sequence[Rating]) -> list[Comparison]:
    """Comparisons of what one person rated differently in one campaign; the newest rating of a content counts."""
    by_person: dict[tuple[str, str], list[Rating]] = {}
    for rating in ratings:
        by_person.setdefault((rating.annotator, rating.campaign), []).append(rating)
    found = []
    for (annotator, campaign), rated in by_person.items():
        for one, other in combinations(rated, 2):
            if one.value != other.value:
                high, low = (one, other) if one.value > other.value else (other, one)
                found.append(Comparison(campaign, high.content, low.content, annotator, 2.0 / len(rated)))
    return found


def _of_order(campaign: str, order: Sequence[str], annotator: str) -> list[Comparison]:
    weight = 2.0 / len(order)
    return [Comparison(campaign, high, low, annotator, weight) for high, low in combinations(order, 2)]
