"""``retrain``, ``promote``: the next model, through the gate; ``flows``: every flow, run, served or deployed."""

import os
import sys
from typing import Annotated, Any

import msgspec
import typer

from infra.database import reading
from infra.errors import BadInput, Unavailable
from infra.services import prepare_environment
from ingestion.loops import load_loop
from pipelines.commands.workspace import (
    GATE_REFUSED,
    JsonOption,
    LoopArgument,
    Workspace,
    open_workspace,
    out,
    print_json,
    print_table,
)
from pipelines.flows import deployments
from pipelines.flows.paper import Alarm

GROUP = """The Prefect flows: list, run, serve and deploy them.

Example: rewardloop flows run watch --loop email-subjects"""

VersionArgument = Annotated[
    str | None, typer.Argument(help="The version; without it the newest that passed.", show_default=False)
]
Names = Annotated[list[str] | None, typer.Argument(help="Names of flows; without them all.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("retrain")(retrain)
    app.command("promote")(promote)
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    for command in (list_flows, run, serve, deploy, work):
        group.command(command.__name__.removesuffix("_flows"))(command)
    app.add_typer(group, name="flows")


def retrain(loop: LoopArgument, as_json: JsonOption = False) -> None:
    """Train, judge and, if it earned that, promote a loop's next model.

    Example: rewardloop retrain email-subjects
    """
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    _known(workspace, loop)
    from pipelines.flows.retrain import retrain as flow  # Prefect takes seconds to import

    outcome = flow(loop)
    _print(outcome, as_json)
    if outcome["state"] not in ("promoted", "passed"):
        raise typer.Exit(GATE_REFUSED)


def promote(loop: LoopArgument, version: VersionArgument = None, as_json: JsonOption = False) -> None:
    """Promote a version that passed the gate, or go back to one that served before.

    Example: rewardloop promote email-subjects email-subjects-3
    """
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    from pipelines import learning  # reads the environment that was just set, and takes seconds to import

    outcome = learning.approve(learning.open_bench(workspace.settings), loop, version, actor="cli")
    _print(msgspec.to_builtins(outcome), as_json)


def list_flows(as_json: JsonOption = False) -> None:
    """List the flows, and when they run once they are served or deployed.

    Example: rewardloop flows list
    """
    found = [
        {"flow": one.name, "when (UTC)": one.cron, "event": one.event, "what": one.description}
        for one in deployments.DEPLOYMENTS
    ]
    if as_json:
        print_json(found)
        return
    rows = [(one["flow"], _when(one["when (UTC)"], one["event"]), one["what"]) for one in found]
    print_table("Flows", ["flow", "when (UTC)", "what"], rows)


def _when(cron: str, event: str) -> str:
    return " or at ".join(filter(None, (cron, event))) or "when asked"


def run(
    name: Annotated[str, typer.Argument(help="The flow, as `flows list` names it.", show_default=False)],
    loop: Annotated[str | None, typer.Option(help="The loop; without it every loop.", show_default=False)] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another parameter, as `name=value`; the value is JSON or a text. May be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a flow here and now, under the Prefect server of `rewardloop up` if there is one, else without.

    Ends with exit code 3 when it found something that needs a person at once.

    Example: rewardloop flows run watch --loop email-subjects --set days=7

    Example: rewardloop flows run evaluate --loop email-subjects --set 'policy={"kind": "epsilon", "epsilon": 0.05}'
    """
    chosen = deployments.named([name])[0]
    parameters = _parameters(loop, given or [])
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    if loop is not None:
        _known(workspace, loop)
    flow = chosen.load()
    _check(flow, parameters)
    try:
        document, alarm = flow(**parameters), False
    except Alarm as found:
        document, alarm = msgspec.to_builtins(found.paper), True
    if as_json or "sentence" not in document:
        print_json(document)
    else:
        _print_document(name, document)
    if alarm:
        raise typer.Exit(GATE_REFUSED)


def serve(
    names: Names = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Most runs at once.")] = 2,
) -> None:
    """Run the flows on their schedules, and when they are asked for, until this process is stopped.

    Needs a Prefect server: `rewardloop up` starts one, else set PREFECT_API_URL.

    Example: rewardloop flows serve

    Example: rewardloop flows serve retrain-when-due watch --at-once 1
    """
    deployments.named(names or [])
    _need_server(open_workspace())
    deployments.serve(names or [], at_once)


def deploy(names: Names = None) -> None:
    """Create or update the deployments on the Prefect server, for workers of the pool `rewardloop`.

    Example: rewardloop flows deploy
    """
    deployments.named(names or [])
    _need_server(open_workspace())
    for made in deployments.deploy(names or []):
        out().print(f"{made} is deployed.", markup=False, highlight=False)


def work() -> None:
    """Deploy every flow, and be a worker that runs them: what the container `flows` does.

    Example: rewardloop flows work
    """
    deploy()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", deployments.POOL, "--type", "process"]
    os.execv(sys.executable, command)  # noqa: S606 (our own interpreter; it is to take this process's place)


def _known(workspace: Workspace, loop: str) -> None:
    """An unknown loop is one sentence, not a failed flow."""
    with reading(workspace.engine) as connection:
        load_loop(connection, loop)


def _parameters(loop: str | None, given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {} if loop is None else {"loop_id": loop}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise BadInput(f"{pair!r} is not name=value; write it like --set days=7")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _check(flow: Any, parameters: dict[str, Any]) -> None:
    """Raises :class:`BadInput` for parameters the flow does not take, before a server is started for it."""
    from prefect.exceptions import ParameterTypeError, SignatureMismatchError
    from prefect.utilities.callables import get_call_parameters

    try:
        flow.validate_parameters(get_call_parameters(flow.fn, (), parameters))
    except (ParameterTypeError, SignatureMismatchError, TypeError) as error:
        known = ", ".join(flow.parameters.properties) or "none"
        raise BadInput(
            f"Flow {flow.name!r} does not take that: {' '.join(str(error).split())} It takes: {known}"
        ) from None


def _need_server(workspace: Workspace) -> None:
    prepare_environment(workspace.settings)
    if not os.environ.get("PREFECT_API_URL"):
        raise Unavailable(
            "No Prefect server: start one with `rewardloop up`, or set PREFECT_API_URL to the address of its API, "
            "like http://127.0.0.1:4200/api"
        )


def _print_document(name: str, document: dict[str, Any]) -> None:
    out().print(document["sentence"], markup=False, highlight=False, soft_wrap=True)
    rows = document.get("rows", ())
    if rows:
        columns = list(rows[0])
        print_table(name, columns, [[row.get(column, "") for column in columns] for row in rows])


def _print(outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    console = out()
    console.print(_HEADLINES[outcome["state"]].format(**outcome), markup=False, highlight=False, soft_wrap=True)
    console.print(outcome["sentence"], markup=False, highlight=False, soft_wrap=True)


_HEADLINES = {
    "promoted": "{version} serves now.",
    "passed": "{version} passed and waits for approval: rewardloop promote {loop_id} {version}",
    "failed": "{version} was not promoted; {champion} stays.",
    "refused": "{version} was not judged; {champion} stays.",
    "waiting": "Nothing was trained.",
}
