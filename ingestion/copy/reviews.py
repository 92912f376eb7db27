"""The approval queue: copy that waits for a person, with what the guardrails said of it."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables
from ingestion.contents import read_verdicts
from ingestion.copy.guardrails import Verdict
from ingestion.events import MEASURED

MOST = 500
"""Contents in one look at the queue."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A draft. ``created_at``: microseconds."""

    content_id: str
    campaign_id: str
    loop_id: str
    slots: dict[str, str]
    locale: str | None
    prompt_id: str | None
    generator: str | None
    parameters: dict[str, Any]
    features: dict[str, Any]
    created_at: int
    verdicts: list[Verdict] = []

    @property
    def nearness(self) -> str:
        """How near it is to brief and prompt, in words; empty where it was not measured."""
        told = (f"{name.replace('_', ' ')} {self.features[name]}" for name in MEASURED if name in self.features)
        return ", ".join(told)


def waiting(
    connection: Connection,
    *,
    loop: str | None = None,
    campaign: str | None = None,
    content: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[Waiting]:
    """Drafts of campaigns that have not ended, by content id from ``after`` on; of one loop, campaign or content."""
    contents, campaigns = tables.contents.c, tables.campaigns.c
    columns = [getattr(contents, name) for name in Waiting.__struct_fields__ if name not in ("loop_id", "verdicts")]
    query = (
        select(*columns, campaigns.loop_id)
        .join(tables.campaigns, campaigns.campaign_id == contents.campaign_id)
        .where(contents.approval == "draft", campaigns.state != "ended")
        .order_by(contents.content_id)
        .limit(limit)
    )
    if loop is not None:
        query = query.where(campaigns.loop_id == loop)
    if campaign is not None:
        query = query.where(contents.campaign_id == campaign)
    if content is not None:
        query = query.where(contents.content_id == content)
    if after is not None:
        query = query.where(contents.content_id > after)
    rows = connection.execute(query).all()
    verdicts = read_verdicts(connection, [row.content_id for row in rows])
    return [Waiting(**row._mapping, verdicts=verdicts.get(row.content_id, [])) for row in rows]
