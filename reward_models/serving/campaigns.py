"""Campaigns with their copy, as the ranker knows them.

    load_campaigns(connection, before) -> all of them, by id         load_campaign(connection, campaign_id) -> one

Copy never changes but for its approval. So of all copy only the approval is looked at, and only campaigns in which one
differs, or which have new copy, are read again: what others hold costs little, however much it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Row, select

from infra import tables
from infra.database import chunks
from ingestion.contents import content_of
from ingestion.events import Content


@dataclass(frozen=True)
class Campaign:
    """A campaign with all its contents, sorted by id."""

    campaign_id: str
    loop_id: str
    state: str
    baseline: Mapping[str, Any]
    contents: Mapping[str, Content] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Content id by fingerprint."""

    @cached_property
    def approvals(self) -> dict[str, str]:
        """By content id."""
        return {name: content.approval for name, content in self.contents.items()}


def load_campaigns(connection: Connection, before: Mapping[str, Campaign]) -> dict[str, Campaign]:
    """All campaigns; ``before``: as they were known."""
    rows = connection.execute(select(tables.campaigns)).all()
    approvals = _approvals(connection)
    moved = {row.campaign_id for row in rows if not _is_known(before, row.campaign_id, approvals)}
    copy = _copy(connection, sorted(moved) if len(moved) < len(rows) else None)
    return {
        row.campaign_id: _campaign(row, copy.get(row.campaign_id, ()))
        if row.campaign_id in moved
        else replace(before[row.campaign_id], state=row.state, baseline=row.baseline)
        for row in rows
    }


def load_campaign(connection: Connection, campaign_id: str) -> Campaign | None:
    """One campaign as it is now; None: there is none."""
    row = connection.execute(select(tables.campaigns).where(tables.campaigns.c.campaign_id == campaign_id)).first()
    return None if row is None else _campaign(row, _copy(connection, [campaign_id]).get(campaign_id, ()))


def _is_known(before: Mapping[str, Campaign], campaign_id: str, approvals: Mapping[str, Mapping[str, str]]) -> bool:
    known = before.get(campaign_id)
    return known is not None and known.approvals == approvals.get(campaign_id, {})


def _approvals(connection: Connection) -> dict[str, dict[str, str]]:
    """By campaign, then content."""
    c = tables.contents.c
    found: dict[str, dict[str, str]] = {}
    for campaign_id, content_id, approval in connection.execute(select(c.campaign_id, c.content_id, c.approval)):
        found.setdefault(campaign_id, {})[content_id] = approval
    return found


def _copy(connection: Connection, some: Sequence[str] | None) -> dict[str, list[Row[Any]]]:
    """Rows of contents by campaign, sorted by id, of these campaigns; None: of all."""
    query = select(tables.contents).order_by(tables.contents.c.content_id)
    of_some = (
        [query] if some is None else [query.where(tables.contents.c.campaign_id.in_(few)) for few in chunks(some, 500)]
    )
    found: dict[str, list[Row[Any]]] = {}
    for part in of_some:
        for row in connection.execute(part):
            found.setdefault(row.campaign_id, []).append(row)
    return found


def _campaign(row: Row[Any], copy: Sequence[Row[Any]]) -> Campaign:
    return Campaign(
        row.campaign_id,
        row.loop_id,
        row.state,
        row.baseline,
        {one.content_id: content_of(one) for one in copy},
        {one.fingerprint: one.content_id for one in copy},
    )
