"""The report flow: what every loop earned in its last week, for people: a page, pictures, and a run in MLflow."""

from typing import Annotated

from pydantic import Field

from infra.settings import load_settings
from ingestion.loops import LoopId
from pipelines.flows.paper import EVERY_LOOP, Paper, joined
from pipelines.flows.shape import as_flow, as_task, each
from pipelines.flows.steps.loops import chosen_loops
from pipelines.flows.steps.weekly import make_report, paper_of
from pipelines.learning import open_bench


@as_flow(
    "report", minutes=120, paper=lambda paper: paper, after="Reports made before stay; the next run makes the rest."
)
def report(loop_id: LoopId | None = None, days: Annotated[int, Field(ge=1, le=366)] = 7) -> Paper:
    """What a loop earned, per campaign: lift, contents, what works, what to decide and what to doubt.

    Args:
        loop_id: The loop; empty: every loop.
        days: How many whole days, up to the last midnight UTC.
    """
    bench = open_bench(load_settings())
    papers, failures = each(
        chosen_loops(bench.engine, loop_id), lambda loop: paper_of(as_task(make_report, bench, loop, days))
    )
    return joined(loop_id or EVERY_LOOP, papers, failures)
