"""Demonstrations: who chose which content among which, for whom.

Stored as feedback of the kind ``demonstration`` (``ingestion/feedback.py``) with ``{chosen, candidates, context?, annotator?}``;
demonstrations that only hold copy somebody wrote (``{slots}``) show no choice and are left out.

    load_demonstrations(connection, loop_id, until=None) -> list of Demonstration, oldest first
    believable(connection, loop_id) -> the contents that what they imply is believed of
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from infra import tables
from ingestion.contents import content_of
from ingestion.copy.stored import copy_of
from ingestion.events import Content


@dataclass(frozen=True)
class Demonstration:
    """One choice. ``chosen``: index among the candidates, of which there are at least two."""

    demonstration_id: str
    by: str
    """Who chose; empty where nobody said."""
    context: Mapping[str, Any]
    candidates: tuple[Content, ...]
    chosen: int
    at: int
    """Microseconds."""


def load_demonstrations(connection: Connection, loop_id: str, until: int | None = None) -> list[Demonstration]:
    """The choices that people made in a loop, stored by ``until`` (microseconds)."""
    c = tables.feedback.c
    wanted = [c.loop_id == loop_id, c.kind == "demonstration", c.source == "HUMAN"]
    wanted += [c.created_at <= until] if until is not None else []
    rows = connection.execute(select(tables.feedback).where(*wanted).order_by(c.created_at, c.feedback_id)).all()
    chosen = [row for row in rows if "candidates" in row.value]
    known = copy_of(connection, loop_id) if chosen else {}
    return [
        Demonstration(
            demonstration_id=row.feedback_id,
            by=str(row.value.get("annotator", "")),
            context=row.value.get("context", {}),
            candidates=tuple(known[name] for name in row.value["candidates"]),
            chosen=row.value["candidates"].index(row.value["chosen"]),
            at=row.created_at,
        )
        for row in chosen
    ]


def believable(connection: Connection, loop_id: str) -> list[Content]:
    """The approved contents of the campaigns of a loop that are not over: what choices imply is believed of them."""
    contents, campaigns = tables.contents, tables.campaigns
    query = (
        select(contents)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(campaigns.c.loop_id == loop_id, campaigns.c.state != "ended", contents.c.approval == "approved")
        .order_by(contents.c.campaign_id, contents.c.content_id)
    )
    return [content_of(row) for row in connection.execute(query)]
