"""Demonstrations that show a choice: which content a person took, among which, for whom.

    {chosen: content id, candidates: [content id, …], context?: {name: value}}

Who chose is the feedback's ``annotator``.
The other form, ``{slots: {slot: text}}``, is copy that somebody wrote; it shows no choice.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, select

from infra import tables
from infra.errors import BadInput, NotFound
from ingestion.fields import Features

MOST = 500
"""Candidates of one choice."""
_CONTEXT: TypeAdapter[Any] = TypeAdapter(Features)


def check_demonstration(connection: Connection, loop_id: str | None, value: Mapping[str, Any]) -> None:
    """Raises :class:`BadInput` for a value that is neither copy nor a choice among at least two contents of one campaign
    of the loop, :class:`NotFound` for contents that are not registered."""
    if "candidates" not in value and "chosen" not in value:
        _check_slots(value)
        return
    candidates = value.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(name, str) for name in candidates):
        raise BadInput("'candidates' must be a list of content ids: what there was to choose from", "/value/candidates")
    if not 2 <= len(set(candidates)) == len(candidates) <= MOST:
        raise BadInput(f"A choice is among 2 to {MOST} candidates, each named once", "/value/candidates")
    if value.get("chosen") not in candidates:
        raise BadInput("'chosen' must be one of the candidates", "/value/chosen")
    if loop_id is None:
        raise BadInput("A choice needs the 'loop' that it was made in; add it", "/loop")
    _check_contents(connection, loop_id, candidates)
    _check_context(value)


def _check_slots(value: Mapping[str, Any]) -> None:
    if "slots" not in value:
        raise BadInput(
            "A demonstration needs 'slots' in its value, copy that was written, or 'candidates' and 'chosen', what was "
            "taken among what there was; add them",
            "/value",
        )


def _check_contents(connection: Connection, loop_id: str, candidates: list[str]) -> None:
    contents, campaigns = tables.contents.c, tables.campaigns.c
    query = (
        select(contents.content_id, contents.campaign_id, campaigns.loop_id)
        .join(tables.campaigns, campaigns.campaign_id == contents.campaign_id)
        .where(contents.content_id.in_(candidates))
    )
    found = connection.execute(query).all()
    missing = sorted(set(candidates) - {row.content_id for row in found})
    if missing:
        raise NotFound(f"No content {missing[0]!r}; register it with POST /v1/contents", "/value/candidates")
    if len({row.campaign_id for row in found}) > 1 or found[0].loop_id != loop_id:
        raise BadInput(f"The candidates must be of one campaign of loop {loop_id!r}", "/value/candidates")


def _check_context(value: Mapping[str, Any]) -> None:
    try:
        _CONTEXT.validate_python(value.get("context", {}))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadInput(
            f"'context' must be what the customer was known by, name and value: {reason}", "/value/context"
        ) from error
