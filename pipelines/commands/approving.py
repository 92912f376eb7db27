"""``approve`` and ``report``: a person's word about a model, and what the week brought.

Each command imports what it needs when it runs: LightGBM, MLflow and charts take seconds to import.
"""

from typing import Annotated

import msgspec
import typer

from infra.clock import DAY, parse_time
from infra.errors import BadInput
from infra.services import prepare_environment
from pipelines.commands.workspace import (
    GATE_REFUSED,
    JsonOption,
    LoopArgument,
    err,
    open_workspace,
    out,
    print_json,
    print_table,
)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(approve)
    app.command()(report)


def approve(
    loop: LoopArgument,
    version: Annotated[
        str | None, typer.Argument(help="The version; without it the newest that passed.", show_default=False)
    ] = None,
    by: Annotated[str, typer.Option(help="Who says so, for the audit.")] = "cli",
    reject: Annotated[bool, typer.Option("--reject", help="Say no instead: the version will not serve.")] = False,
    requests: Annotated[
        bool, typer.Option("--requests", help="Answer what was asked for in MLflow, instead of naming a version.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Approve a version that passed its gate: it serves from now on. A version that served before is the way back.

    Ends with exit code 3 when a request from MLflow was refused.

    Example: rewardloop approve email-subjects email-subjects-3 --by ann
    """
    if requests and (version or reject):
        raise BadInput("--requests answers what was asked for in MLflow; name no version with it")
    if reject and version is None:
        raise BadInput("Name the version to reject")
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    from pipelines import approvals, learning

    bench = learning.open_bench(workspace.settings)
    if requests:
        answers = approvals.take_requests(bench, loop)
        if as_json:
            print_json([{"version": a.version, "accepted": a.accepted, "sentence": a.sentence} for a in answers])
        elif answers:
            print_table("Requests", ["version", "answer"], [(answer.version, answer.sentence) for answer in answers])
        else:
            out().print("Nothing was asked for in MLflow.")
        if any(not answer.accepted for answer in answers):
            raise typer.Exit(GATE_REFUSED)
        return
    if reject and version is not None:
        outcome = approvals.reject(bench, loop, version, by)
    else:
        outcome = approvals.approve(bench, loop, version, by)
    if as_json:
        print_json(msgspec.to_builtins(outcome))
    else:
        said = f"{version} is rejected." if reject else f"{outcome.version} serves now."
        out().print(said, markup=False, highlight=False, soft_wrap=True)


def report(
    loop: LoopArgument,
    until: Annotated[
        str | None,
        typer.Option(help="First day after the period, as 2026-11-16; without it today.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days it covers.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Make a loop's weekly report: a page with charts, as PDF where there is a browser, and a run in MLflow.

    Example: rewardloop report email-subjects
    """
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    from pipelines.learning import open_bench
    from pipelines.reporting.facts import period_until
    from pipelines.reporting.making import weekly

    end = workspace.clock() if until is None else _day(until)
    with err().status("reading") as status:
        made = weekly(open_bench(workspace.settings), loop, period_until(end, days), status.update)
    if as_json:
        print_json(
            {"page": str(made.page), "run": made.run_id, "metrics": made.report.metrics, "told": made.report.told}
        )
        return
    for question, said in made.report.told.items():
        out().print(f"{question}. {' '.join(said)}", markup=False, highlight=False, soft_wrap=True)
    out().print(f"Open {made.page}", markup=False, highlight=False, soft_wrap=True)


def _day(text: str) -> int:
    try:
        found = parse_time(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a day; write it like 2026-11-16") from None
    return found - found % DAY
