"""The promote flow: a person's yes to a version that passed, or the way back to one that served before."""

from infra.settings import load_settings
from ingestion.loops import LoopId
from pipelines import learning
from pipelines.flows.paper import Paper
from pipelines.flows.shape import as_flow, as_task

ACTOR = "flow"


def paper_of(outcome: learning.Outcome) -> Paper:
    """Which version serves now, with the verdict it had."""
    rows = ({"loop": outcome.loop_id, "version": outcome.version, "state": outcome.state, "serving": outcome.champion},)
    sentence = f"{outcome.champion} serves now. {outcome.sentence}".rstrip()
    return Paper(subject=outcome.loop_id, state=outcome.state, sentence=sentence, text=outcome.description, rows=rows)


@as_flow("promote", minutes=10, paper=paper_of, after="What serves did not change.")
def promote(loop_id: LoopId, version: str | None = None) -> learning.Outcome:
    """Promote a version that passed the gate, or go back to one that served before. It is audited as `flow`.

    Args:
        loop_id: The loop, for example `email-subjects`.
        version: The version; empty: the newest that passed and waits.
    """
    bench = learning.open_bench(load_settings())
    return as_task(learning.approve, bench, loop_id, version, ACTOR)
