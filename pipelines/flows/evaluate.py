"""The evaluate flow: what any policy would have earned in any period. Nothing that serves is touched."""

from datetime import datetime

from infra.settings import load_settings
from ingestion.loops import LoopId, PolicySettings
from pipelines.flows.paper import Paper
from pipelines.flows.shape import as_flow, as_task
from pipelines.flows.steps.loops import micros
from pipelines.flows.steps.valuing import Question, gather, paper_of, value
from pipelines.learning import open_bench


@as_flow("evaluate", minutes=180, paper=lambda paper: paper, after="Nothing was changed.")
def evaluate(
    loop_id: LoopId,
    version: str | None = None,
    policy: PolicySettings | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Paper:
    """What a policy would have earned in a period, against what ran and against the baseline.

    Decisions that the model learned from are left out, so a period before its cutoff has nothing to say.

    Args:
        loop_id: The loop, for example `email-subjects`.
        version: Model version; empty: the one that serves, else the newest.
        policy: How predictions become probabilities; empty: as the version serves.
        since: Decisions from then on; empty: from where the version stopped learning. Without a zone it is UTC.
        until: Decisions before then; empty: until now.
    """
    bench = open_bench(load_settings())
    question = Question(loop_id, version, policy, micros(since), micros(until))
    return paper_of(as_task(value, as_task(gather, bench, question)))
