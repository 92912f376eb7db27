"""What is known of the copy of a loop: for credit and for exports.

sends_of(connection, definition)      how often each was shown, past results included
contexts_of(connection, loop_id)      contexts of the newest decisions
serving_model(workspace, loop)        the champion, else the newest version, verified; null without any
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from infra import tables
from infra.database import reading
from ingestion.loops import LoopDefinition
from pipelines.commands.workspace import Workspace
from reward_models import registry
from reward_models.boosted import RewardModel

CONTEXTS = 50
"""Newest decisions whose contexts stand for all."""


def sends_of(connection: Connection, definition: LoopDefinition) -> dict[str, int]:
    """Decisions that showed each content, and exposures of past results."""
    stats, past, campaigns = tables.content_stats.c, tables.historical_results.c, tables.campaigns
    shown = (
        select(stats.content_id, func.sum(stats.exposures))
        .join(campaigns, campaigns.c.campaign_id == stats.campaign_id)
        .where(campaigns.c.loop_id == definition.loop, stats.metric == next(iter(definition.reward)))
        .group_by(stats.content_id)
    )
    found = {name: int(count) for name, count in connection.execute(shown)}
    imported = select(past.content_id, func.sum(past.exposures)).where(past.loop_id == definition.loop)
    for name, count in connection.execute(imported.group_by(past.content_id)):
        found[name] = found.get(name, 0) + int(count)
    return found


def contexts_of(connection: Connection, loop_id: str, most: int = CONTEXTS) -> list[Mapping[str, Any]]:
    """Contexts of the loop's newest decisions; one that says nothing where there are none."""
    c = tables.decisions.c
    newest = select(c.context).where(c.loop_id == loop_id).order_by(c.decided_at.desc(), c.decision_id).limit(most)
    return list(connection.scalars(newest)) or [{}]


def serving_model(workspace: Workspace, loop_id: str) -> RewardModel | None:
    """The model that serves the loop, else the newest that was trained. Raises :class:`ModelRefused` for damaged files."""
    with reading(workspace.engine) as connection:
        champion = registry.champion(connection, loop_id)
        versions = registry.versions(connection, loop_id)
    if champion is None and not versions:
        return None
    version, digest = (
        (champion.version, champion.digest) if champion is not None else (versions[0].version, versions[0].digest)
    )
    folder = registry.path_of(workspace.settings.bundles, loop_id, version)
    model = registry.load_verified(folder, digest)
    with reading(workspace.engine) as connection:
        return registry.with_vectors(connection, model, loop_id, version)
