"""Feedback: comments, ratings, demonstrations, preferences, rankings. Kept beside the outcomes, never among them."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from infra import tables
from infra.database import insert_new
from infra.errors import BadInput, Conflict, NotFound
from ingestion.demonstrations import check_demonstration
from ingestion.http.bodies import FeedbackBody
from ingestion.loops import load_loop

MOST_RANKED = 50
"""Contents in one ranking."""


def add_feedback(connection: Connection, feedback_id: str, body: FeedbackBody, text_limit: int, now: int) -> bool:
    """Store what was said; returns whether it is new.

    Raises :class:`BadInput` when the value does not fit its kind, :class:`NotFound` for an unknown loop or
    content, :class:`Conflict` for a known id with another body.
    """
    _check(body, text_limit)
    _check_subjects(connection, body)
    row = {
        "feedback_id": feedback_id,
        "kind": body.kind,
        "source": body.source,
        "loop_id": body.loop,
        "decision_id": body.decision_id,
        "content_id": body.content_id,
        "value": body.value | ({"annotator": body.annotator} if body.annotator else {}),
        "created_at": now,
    }
    if insert_new(connection, tables.feedback, [row]):
        return True
    stored = connection.execute(select(tables.feedback).where(tables.feedback.c.feedback_id == feedback_id)).one()
    if any(getattr(stored, name) != value for name, value in row.items() if name != "created_at"):
        raise Conflict(f"Feedback {feedback_id!r} exists with another body; give this one its own id", "/feedback_id")
    return False


def compared(kind: str, value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The contents that feedback compares, with a JSON pointer to each."""
    if kind == "ranking":
        return [(f"/value/ranking/{place}", content) for place, content in enumerate(value["ranking"])]
    names = ("winner", "loser") if kind == "preference" else ()
    return [(f"/value/{name}", str(value[name])) for name in names]


def _check(body: FeedbackBody, text_limit: int) -> None:
    expected = {
        "comment": ("text",),
        "rating": ("rating",),
        "demonstration": (),
        "preference": ("winner", "loser"),
        "ranking": ("ranking",),
    }
    for name in expected[body.kind]:
        if name not in body.value:
            raise BadInput(f"A {body.kind} needs {name!r} in its value; add it", "/value")
    if body.kind == "rating" and not _is_number(body.value["rating"]):
        raise BadInput("'rating' must be a finite number", "/value/rating")
    if body.kind == "ranking" and not _is_order(body.value["ranking"]):
        raise BadInput(f"'ranking' must list 2 to {MOST_RANKED} different contents, the best first", "/value/ranking")
    if body.kind == "preference" and body.value["winner"] == body.value["loser"]:
        raise BadInput("Winner and loser are the same content; a preference is between two", "/value/loser")
    if len(str(body.value).encode()) > text_limit:
        raise BadInput(f"The value holds more than {text_limit} bytes; shorten it", "/value")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_order(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 2 <= len(value) <= MOST_RANKED
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


def _check_subjects(connection: Connection, body: FeedbackBody) -> None:
    if body.loop is not None:
        load_loop(connection, body.loop)
    if body.kind == "demonstration":
        check_demonstration(connection, body.loop, body.value)
    named = [("/content_id", body.content_id)] if body.content_id is not None else []
    named += compared(body.kind, body.value)
    for pointer, content_id in named:
        query = select(tables.contents.c.content_id).where(tables.contents.c.content_id == content_id)
        if connection.scalar(query) is None:
            raise NotFound(f"No content {content_id!r}; register it with POST /v1/contents", pointer)
