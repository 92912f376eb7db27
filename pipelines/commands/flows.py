"""``retrain`` and ``promote``: the next model, through the gate."""

from typing import Annotated, Any

import msgspec
import typer

from infra.database import reading
from infra.services import prepare_environment
from ingestion.loops import load_loop
from pipelines.commands.workspace import GATE_REFUSED, JsonOption, LoopArgument, open_workspace, out, print_json

VersionArgument = Annotated[
    str | None, typer.Argument(help="The version; without it the newest that passed.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("retrain")(retrain)
    app.command("promote")(promote)


def retrain(loop: LoopArgument, as_json: JsonOption = False) -> None:
    """Train, judge and, if it earned that, promote a loop's next model.

    Example: rewardloop retrain email-subjects
    """
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    with reading(workspace.engine) as connection:
        load_loop(connection, loop)  # an unknown loop is one sentence, not a failed flow
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
