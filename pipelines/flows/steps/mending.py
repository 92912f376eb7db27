"""History put right: a new definition, quarantined records replayed, attributions and outcomes computed anew.

Every step is whole or nothing, and harmless to repeat: a definition and its re-scoring are one transaction, records are
replayed some hundred per transaction (those done are not held any more), a loop is re-scored in one batch.
"""

from infra.leases import lease
from ingestion.join import backfill
from ingestion.loops import LoopDefinition
from pipelines.commands.workspace import Workspace
from pipelines.flows.paper import Paper
from pipelines.replaying import held_now, replay
from reward_models.report import plain

ACTOR = "flow"
SHOWN = 200
"""Reasons in the table, at most."""


def redefine(workspace: Workspace, definition: LoopDefinition) -> Paper:
    """Put the definition in force; where it measures differently, history is re-scored in the same transaction."""
    loop_id = definition.loop
    with lease(workspace.engine, f"retrain:{loop_id}"):
        version = backfill.redefine(workspace.engine, definition, workspace.clock(), ACTOR)
    return Paper(
        subject=loop_id,
        state="done",
        sentence=f"Version {version} of its definition is in force, and its history is measured by it.",
        rows=({"step": "redefine", "found": f"version {version}"},),
    )


def replay_held(workspace: Workspace) -> Paper:
    """Replay everything that is held; what still cannot be used stays, with the reason of today."""
    applied, refused = 0, dict[int, str]()
    for ids in held_now(workspace):
        done, still = replay(workspace, ids)
        applied += len(done)
        refused |= still
    rows = [{"step": "replay", "found": f"record {id_}: {why}"} for id_, why in list(refused.items())[:SHOWN]]
    return Paper(
        subject="quarantine",
        state="done",
        sentence=f"{applied:,} records replayed, {len(refused):,} still cannot be used.",
        text="\n".join(f"- {plain(row['found'])}" for row in rows),
        rows=tuple(rows),
    )


def rescore(workspace: Workspace, loop_id: str) -> Paper:
    """Compute a loop's attributions, outcomes and content statistics anew from the facts."""
    with lease(workspace.engine, f"retrain:{loop_id}"):
        batch_no = backfill.backfill(workspace.engine, loop_id, workspace.clock())
    sentence = f"Attributions, outcomes and statistics were computed anew in batch {batch_no:,}."
    return Paper(
        subject=loop_id, state="done", sentence=sentence, rows=({"step": "rescore", "found": f"batch {batch_no}"},)
    )
