"""The copy of a loop, as it is stored.

copy_of(connection, loop_id)        every content of its campaigns, by id
campaigns_of(connection, loop_id)   the campaign of each, by id
"""

from sqlalchemy import Connection, select

from infra import tables
from ingestion.events import Content


def copy_of(connection: Connection, loop_id: str) -> dict[str, Content]:
    """What models read of every content, whatever its approval: slots, features and locale. In the order of ids."""
    c, campaigns = tables.contents.c, tables.campaigns
    query = (
        select(c.content_id, c.campaign_id, c.slots, c.features, c.locale)
        .join(campaigns, campaigns.c.campaign_id == c.campaign_id)
        .where(campaigns.c.loop_id == loop_id)
        .order_by(c.content_id)
    )
    return {row.content_id: Content(**row._mapping) for row in connection.execute(query)}


def campaigns_of(connection: Connection, loop_id: str) -> dict[str, str]:
    """The campaign of every content."""
    c, campaigns = tables.contents.c, tables.campaigns
    query = (
        select(c.content_id, c.campaign_id)
        .join(campaigns, campaigns.c.campaign_id == c.campaign_id)
        .where(campaigns.c.loop_id == loop_id)
    )
    return dict(connection.execute(query).tuples().all())
