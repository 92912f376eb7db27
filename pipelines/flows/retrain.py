"""The retrain flow: dataset → fit → calibrate → evaluate → register → gate → promote.

Without a server (``rewardloop retrain <loop>``) Prefect starts a temporary one; with ``PREFECT_API_URL`` set, or
from a deployment (``prefect.yaml``), the same flow runs under that server. What the steps do is in
``pipelines/learning.py``; a run that dies between two of them changes nothing that serves, and the next finishes.

Nothing is cached or persisted by Prefect: a step's result is a model or a data set, and repeating it is the
safe thing to do. Only steps that talk to the tracking store or the database are tried again.
"""

import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec

from infra.errors import RewardloopError
from infra.services import prepare_environment
from infra.settings import load_settings

prepare_environment(load_settings())  # Prefect reads its settings when it is imported

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from pipelines import learning  # noqa: E402
from reward_models.report import plain  # noqa: E402

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

RETRIED = ("dataset", "register", "gate", "promote")
"""Steps that talk to the database: tried again, because it may have been away for a moment."""


@flow(name="retrain", flow_run_name="retrain-{loop_id}", persist_result=False)
def retrain(loop_id: str) -> dict[str, Any]:
    """Train a loop's next reward model, judge it, and promote it if it earned that."""
    bench = learning.open_bench(load_settings())
    outcome = learning.retrain(bench, loop_id, run=as_task)
    publish(outcome)
    return msgspec.to_builtins(outcome)  # type: ignore[no-any-return]


def as_task(step: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call a step as a Prefect task of its name.

    The task takes no parameters: Prefect would walk through every decision of the data set looking for futures.
    """
    name = step.__name__

    @task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=2 if name in RETRIED else 0,
        retry_delay_seconds=5,
        retry_condition_fn=_may_help,
    )
    def run_step() -> Result:
        return step(*args, **kwargs)

    return run_step()


def publish(outcome: learning.Outcome) -> None:
    """What Prefect's page shows of a run: the description, and every figure."""
    key = re.sub(r"[^a-z0-9]+", "-", f"retrain-{outcome.loop_id}".lower()).strip("-")
    create_markdown_artifact(outcome.description or plain(outcome.sentence), key=key, description=outcome.sentence)
    figures = [{"figure": name, "value": value} for name, value in sorted(outcome.metrics.items())]
    if figures:
        create_table_artifact(figures, key=f"{key}-figures", description="What MLflow holds too")


def _may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether trying again may help: the error tree says so."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RewardloopError) and error.retriable
