"""The watch flow: every loop looked over, findings with a severity. One that asks to act ends the run as failed."""

from typing import Annotated

from pydantic import Field

from infra.settings import load_settings
from ingestion.loops import LoopId
from pipelines.flows.paper import EVERY_LOOP, Paper, joined
from pipelines.flows.shape import as_flow, as_task, each
from pipelines.flows.steps.loops import chosen_loops
from pipelines.flows.steps.watching import LOOKS, gather, keep, paper_of, report
from pipelines.learning import open_bench


@as_flow("watch", minutes=120, paper=lambda paper: paper, after="Nothing was changed.")
def watch(loop_id: LoopId | None = None, days: Annotated[int, Field(ge=1, le=366)] = 28) -> Paper:
    """Look over drift, calibration, sample ratio, join rate, freshness, guardrails, fading copy and the ledger.

    Ends as failed when something needs a person at once, so that whoever is told of failures hears of it.

    Args:
        loop_id: The loop; empty: every loop.
        days: How many days back.
    """
    bench = open_bench(load_settings())

    def look(loop: str) -> Paper:
        seen = as_task(gather, bench, loop, days)
        watched = report(seen, [finding for one in LOOKS for finding in as_task(one, seen)])
        keep(bench, watched)
        return paper_of(watched)

    papers, failures = each(chosen_loops(bench.engine, loop_id), look)
    return joined(loop_id or EVERY_LOOP, papers, failures)
