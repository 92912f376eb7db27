"""The rehearsal before the first request."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from infra import tables
from infra.database import reading, writing
from ingestion.contents import add_contents, put_campaign, start_campaign
from ingestion.events import Campaign, Content
from ingestion.loops import parse_definition, put_loop
from reward_models.serving.rehearsal import rehearse
from reward_models.serving.snapshot import Snapshots
from tests.pipelines.api import away
from tests.reward_models.serving.worlds import NOW, SECRETS

LOOP = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}


@pytest.fixture
def snapshots(any_engine: Engine, tmp_path: Path) -> Snapshots:
    """Two running campaigns, and one that cannot be decided: it has no approved content."""
    with writing(any_engine) as connection:
        put_loop(connection, parse_definition(LOOP | {"approval": "automatic"}), 1)
        for name in ("june", "july", "draft"):
            put_campaign(connection, Campaign(campaign_id=name, loop_id="mail"))
            if name != "draft":
                copy = [Content(content_id=f"{name}-{one}", campaign_id=name, slots={"subject": one}) for one in "ab"]
                add_contents(connection, name, copy, 20_000, 1)
                start_campaign(connection, name, None, "ann", 1)
    holder = Snapshots(any_engine, tmp_path)
    holder.refresh()
    return holder


def test_every_running_campaign_is_rehearsed(snapshots: Snapshots) -> None:
    """A decision is made in each, its posterior is kept for the first request, and nothing is stored."""
    assert rehearse(snapshots.current, snapshots.engine, SECRETS, NOW) == 2

    with reading(snapshots.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(tables.decisions)) == 0
    assert set(snapshots.current._standings) == {"june", "july"}


def test_a_rehearsal_that_fails_keeps_nobody_from_starting(snapshots: Snapshots) -> None:
    """Without the database the rehearsal ends early, and says so in the log."""
    with away(snapshots.engine):
        assert rehearse(snapshots.current, snapshots.engine, SECRETS, NOW) == 2
