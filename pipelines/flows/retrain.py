"""The retrain flow: dataset → fit → calibrate → evaluate → register → gate → promote.

Without a server (``rewardloop retrain <loop>``) Prefect starts a temporary one; with ``PREFECT_API_URL`` set, or
from a deployment, the same flow runs under that server. What the steps do is in ``pipelines/learning.py``; a run that
dies between two of them changes nothing that serves, and the next finishes.
"""

from infra.settings import load_settings
from ingestion.loops import LoopId
from pipelines import learning
from pipelines.flows.paper import Paper
from pipelines.flows.shape import as_flow, as_task


def paper_of(outcome: learning.Outcome) -> Paper:
    """The version's description, and every figure that MLflow holds."""
    state = {"figure": "state", "value": outcome.state}
    serving = {"figure": "serving", "value": outcome.champion or "the baseline"}
    figures = [{"figure": name, "value": value} for name, value in sorted(outcome.metrics.items())]
    return Paper(
        subject=outcome.loop_id,
        state=outcome.state,
        sentence=outcome.sentence,
        text=outcome.description.partition("\n\n")[2],  # its heading is the page's
        rows=(state, serving, *figures),
    )


@as_flow(
    "retrain", minutes=360, paper=paper_of, after="What serves did not change; the next retrain takes up what was left."
)
def retrain(loop_id: LoopId) -> learning.Outcome:
    """Train a loop's next reward model, judge it, and promote it if it earned that.

    Args:
        loop_id: The loop, for example `email-subjects`.
    """
    return learning.retrain(learning.open_bench(load_settings()), loop_id, run=as_task)
