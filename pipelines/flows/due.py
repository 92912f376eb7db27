"""The retrain-when-due flow: answers what was asked for in MLflow, counts which loops have enough new matured outcomes,
and retrains those.

What happens is in the database, so that is what is asked, once an hour: a missed run loses nothing. With a Prefect server the
event of ``matured.py`` starts it at once for the loop it names.
"""

from infra.database import reading
from infra.errors import Conflict
from infra.settings import load_settings
from ingestion.loops import LoopId, load_loop
from pipelines.approvals import try_requests
from pipelines.flows.paper import EVERY_LOOP, Paper, joined
from pipelines.flows.retrain import retrain
from pipelines.flows.shape import as_flow, as_task, each
from pipelines.flows.steps.due import Due, look
from pipelines.flows.steps.loops import chosen_loops
from pipelines.learning import Bench, open_bench


@as_flow(
    "retrain-when-due",
    minutes=720,
    paper=lambda paper: paper,
    after="What serves did not change; the next run asks again.",
)
def retrain_when_due(loop_id: LoopId | None = None) -> Paper:
    """Retrain the loops for which enough outcomes matured since their newest version, or whose version is old.

    How many are enough, and how old is old: `REWARDLOOP_RETRAIN_OUTCOMES` and `REWARDLOOP_RETRAIN_DAYS`. Approvals that
    were asked for in MLflow are answered first.

    Args:
        loop_id: The loop; empty: every loop.
    """
    bench = open_bench(load_settings())
    papers, failures = each(chosen_loops(bench.engine, loop_id), lambda loop: _retrain_if_due(bench, loop))
    return joined(loop_id or EVERY_LOOP, papers, failures)


def count_outcomes(bench: Bench, loop_id: str) -> Due:
    """How many outcomes matured since the newest version."""
    with reading(bench.engine) as connection:
        definition, _ = load_loop(connection, loop_id)
        return look(connection, definition, bench.settings, bench.clock())


def _retrain_if_due(bench: Bench, loop_id: str) -> Paper:
    as_task(try_requests, bench, loop_id)
    found = as_task(count_outcomes, bench, loop_id)
    state, sentence = "not due", found.sentence
    if found.due:
        try:
            ended = retrain(loop_id)
            state, sentence = ended["state"], f"{found.sentence} {ended['sentence']}"
        except Conflict:
            state, sentence = "running", "A retrain of it is running already."
    rows = ({"new outcomes": found.new, "state": state, "finding": sentence},)
    return Paper(subject=loop_id, state=state, sentence=sentence, rows=rows)
