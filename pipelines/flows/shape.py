"""What all flows have in common: how a step becomes a task, what is published, and how a failure is told.

    @as_flow("watch", minutes=30, paper=…, after=…)     a function becomes a Prefect flow of that name
    as_task(step, *arguments)                           a plain step becomes a task of its name, and is run

A flow ends in this order: 1 its body returns a result, 2 the paper made of it is published as two artifacts, 3 people are
told what they must hear of it (``pipelines/notifying``), 4 an alarming paper raises. A body that raises is published and told
too, as a sentence, and raises; a hook writes that sentence into the run's log, with what the failure leaves behind.

Nothing is cached or persisted by Prefect: a step's result is a model or a data set, Prefect would pickle it, and
repeating a step is the safe thing to do. What a step has done is in the database, so that a run that died is taken up
by the next. A step is tried again, with growing pauses, where its error says that this may help.
"""

import re
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import cleandoc
from typing import Any, ParamSpec, TypeVar

import msgspec

from infra.errors import RewardloopError
from infra.services import prepare_environment
from infra.settings import load_settings
from pipelines.flows.paper import EVERY_LOOP, INSTALLATION, Alarm, Paper
from pipelines.notifying.delivery import notify
from pipelines.notifying.notices import failed, notices_of

prepare_environment(load_settings())  # Prefect reads its settings when it is imported

from prefect import Flow, flow, task  # noqa: E402
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.schemas.objects import FlowRun, State  # noqa: E402
from prefect.flows import FlowStateHook  # noqa: E402
from prefect.logging.handlers import APILogWorker  # noqa: E402
from prefect.logging.loggers import flow_run_logger  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402
from prefect.tasks import exponential_backoff  # noqa: E402

from reward_models.report import plain  # noqa: E402

DRAIN_SECONDS = 5.0
"""How long the end of a failed run waits for its log to reach the server: a command ends with it, and nothing is sent later."""
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

RETRIES = 3
PAUSE_SECONDS = 5.0
"""Before the second try; each further pause is twice as long, and up to half as much again by chance."""
LONGEST = 500
"""Rows of a published table."""
LONGEST_REASON = 300
"""Characters of what an unexpected error says."""


def as_flow(
    name: str, *, minutes: int, after: str, paper: Callable[[Result], Paper]
) -> Callable[[Callable[Parameters, Result]], Flow[Parameters, dict[str, Any]]]:
    """Make a flow of a function. Its parameters are described by the ``Args`` of its docstring.

    minutes: after so many it is ended. after: what holds when it failed, in a sentence. paper: what to say of a result.
    """

    def shaped(body: Callable[Parameters, Result]) -> Flow[Parameters, dict[str, Any]]:
        @wraps(body)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> dict[str, Any]:
            try:
                result = body(*args, **kwargs)
            except Exception as error:
                said = Paper(
                    subject=subject_of(flow_run.parameters), state="failed", sentence=f"{reason(error)} {after}"
                )
                publish(name, said)
                notify(load_settings(), [failed(name, said.subject, said.sentence)])
                raise
            said = paper(result)
            publish(name, said)
            notify(load_settings(), notices_of(name, said))
            if said.alarm:
                raise Alarm(said)
            return msgspec.to_builtins(result)  # type: ignore[no-any-return]

        explain = _explaining(name, after)
        return flow(
            name=name,
            description=described(body),
            flow_run_name=lambda: f"{name} {subject_of(flow_run.parameters)}",
            timeout_seconds=60 * minutes,
            persist_result=False,
            on_failure=[explain],
            on_crashed=[explain],
        )(run)

    return shaped


def as_task(step: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call a step as a Prefect task of its name.

    The task takes no parameters: Prefect would walk through every decision of the data set looking for futures.
    """

    @task(
        name=step.__name__,
        description=described(step),
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(PAUSE_SECONDS),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_help,
    )
    def run_step() -> Result:
        return step(*args, **kwargs)

    return run_step()


def each(
    loops: Sequence[str], step: Callable[[str], Paper], failed: tuple[type[Exception], ...] = (Exception,)
) -> tuple[list[Paper], dict[str, str]]:
    """The papers of all loops; one that fails does not stop the others, and is named with its reason."""
    papers, failures = [], {}
    for loop_id in loops:
        try:
            papers.append(step(loop_id))
        except failed as error:
            failures[loop_id] = reason(error)
    return papers, failures


def publish(name: str, paper: Paper) -> None:
    """What Prefect's page shows of a run: a page of Markdown, and a table."""
    key = re.sub(r"[^a-z0-9]+", "-", f"{name}-{paper.subject}".lower()).strip("-")
    page = f"# {plain(name.capitalize())}: {plain(paper.subject)}\n\n**{plain(paper.state)}.** {plain(paper.sentence)}"
    create_markdown_artifact(f"{page}\n\n{paper.text}".rstrip() + "\n", key=key, description=paper.sentence)
    rows = paper.rows[:LONGEST] or ({"state": paper.state, "finding": paper.sentence},)
    create_table_artifact(list(rows), key=f"{key}-table", description=f"{len(paper.rows) or 1} rows")


def reason(error: BaseException) -> str:
    """Why something failed, in a sentence."""
    if isinstance(error, RewardloopError):
        said = str(error)
    elif isinstance(error, TimeoutError):
        said = "It took longer than it may"
    else:
        said = f"Unexpected {type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"
    return said if said.endswith((".", "!", "?")) else f"{said}."


def subject_of(parameters: Any) -> str:
    """What a run is about: its loop, every loop, or what has none."""
    return str(parameters["loop_id"] or EVERY_LOOP) if "loop_id" in parameters else INSTALLATION


def described(step: Callable[..., Any]) -> str:
    """A docstring without the list of its parameters, which Prefect shows beside them."""
    return cleandoc(step.__doc__ or "").split("\nArgs:")[0].strip()


def _explaining(name: str, after: str) -> FlowStateHook[..., Any]:
    def explain(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        """Write why a run failed, and what that leaves behind, into its log."""
        error = state.result(raise_on_failure=False) if state.type.value == "FAILED" else None
        why = reason(error) if isinstance(error, BaseException) else "Its process ended before it did."
        flow_run_logger(flow_run, flow).error("%s of %s: %s %s", name, subject_of(flow_run.parameters), why, after)
        APILogWorker.drain_all(timeout=DRAIN_SECONDS)

    return explain


def _may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether trying again may help: the error tree says so."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RewardloopError) and error.retriable
