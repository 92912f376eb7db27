"""The backfill flow: history under a new definition, with replayed records, or attributed anew."""

from infra.errors import BadInput
from ingestion.loops import LoopDefinition, LoopId
from pipelines.commands.workspace import open_workspace
from pipelines.flows.paper import EVERY_LOOP, Paper, joined
from pipelines.flows.shape import as_flow, as_task, each
from pipelines.flows.steps.loops import chosen_loops
from pipelines.flows.steps.mending import redefine, replay_held, rescore


@as_flow("backfill", minutes=360, paper=lambda paper: paper, after="What was done stays; the next run does the rest.")
def backfill(
    loop_id: LoopId | None = None, definition: LoopDefinition | None = None, replay_quarantine: bool = False
) -> Paper:
    """Measure history anew: under a new definition, with quarantined records replayed, or as attribution is today.

    Args:
        loop_id: The loop; empty: every loop.
        definition: A definition of this loop to put in force first, as `rewardloop loops show` prints it.
        replay_quarantine: Whether to replay what is held in quarantine first.
    """
    workspace = open_workspace()
    if definition is not None and definition.loop != (loop_id or definition.loop):
        raise BadInput(f"The definition is of loop {definition.loop!r}, not of {loop_id!r}; correct one of them")
    first = [as_task(replay_held, workspace)] if replay_quarantine else []
    if definition is not None:
        return joined(definition.loop, [*first, as_task(redefine, workspace, definition)], {})
    papers, failures = each(chosen_loops(workspace.engine, loop_id), lambda loop: as_task(rescore, workspace, loop))
    return joined(loop_id or EVERY_LOOP, [*first, *papers], failures)
