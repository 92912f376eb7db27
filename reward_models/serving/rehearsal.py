"""A rehearsal before the first request: a decision in every running campaign, and one commit that is taken back.

What is made on first use is made here: the encoding of the copy, the posteriors, the statements and the connection.
Nothing is stored.
"""

from sqlalchemy import Engine

from infra.database import writing
from infra.errors import RewardloopError
from infra.logs import log
from infra.secrets import Secrets
from ingestion.events import Decision
from reward_models.serving.decision_log import insert_decisions
from reward_models.serving.ranker import Request, rank
from reward_models.serving.recent import exposures_of
from reward_models.serving.snapshot import Snapshot

CAMPAIGNS = 200
"""Most campaigns that are rehearsed, those that were shown most."""
_ID = "rehearsal"


class _TakenBack(Exception):
    """Ends the transaction of the rehearsal."""


def rehearse(snapshot: Snapshot, engine: Engine, secrets: Secrets, now: int) -> int:
    """Decide and nearly store; returns in how many campaigns. What cannot be decided says so when it is asked for."""
    campaigns = [one for one in snapshot.campaigns.values() if one.state == "running" and one.loop_id in snapshot.loops]
    decisions: list[Decision] = []
    for campaign in sorted(campaigns, key=lambda one: -_shown(snapshot, one.campaign_id))[:CAMPAIGNS]:
        request = Request(
            decision_id=_ID,
            request_digest="0" * 64,
            loop_id=campaign.loop_id,
            campaign_id=campaign.campaign_id,
            decided_at=now,
        )
        try:
            decisions.append(rank(snapshot, request, secrets, max(1, len(campaign.contents) + 1)))
        except RewardloopError as error:
            log.info("not_rehearsed", campaign=campaign.campaign_id, reason=str(error))
    if decisions:
        _nearly_store(engine, decisions[0])
    return len(decisions)


def _shown(snapshot: Snapshot, campaign_id: str) -> int:
    return sum(map(exposures_of, snapshot.statistics.get(campaign_id, {}).values()))


def _nearly_store(engine: Engine, decision: Decision) -> None:
    try:
        with writing(engine) as connection:
            insert_decisions(connection, [decision])
            raise _TakenBack
    except _TakenBack:
        pass
    except RewardloopError as error:
        log.warning("not_rehearsed", reason=str(error))
