"""``generate`` writes copy for a campaign; ``copy`` is the queue of what waits for approval.

Generating imports LightGBM and Prefect, which takes seconds: only when it runs, `--help` should not.
"""

from typing import Annotated, Any

import msgspec
import typer

from infra.clock import MICROS
from infra.database import reading, writing
from infra.services import prepare_environment
from ingestion.contents import set_approval
from ingestion.copy.reviews import MOST, Waiting, waiting
from ingestion.copy.slots import as_read
from pipelines.commands.workspace import JsonOption, Workspace, open_workspace, out, print_json, print_table
from pipelines.generation.purse import spent

GROUP = """Copy that waits for approval: list, approve and reject it.

Example: rewardloop copy queue --loop email-subjects"""

CampaignArgument = Annotated[str, typer.Argument(help="The campaign's id.", show_default=False)]
Contents = Annotated[list[str], typer.Argument(help="Ids of contents.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it stands in the audit.")]
Who = Annotated[str, typer.Option("--as", help="Who says so; it stands in the audit.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(generate)
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    for command in (queue, approve, reject):
        group.command()(command)
    app.add_typer(group, name="copy")


def generate(
    campaign: CampaignArgument,
    count: Annotated[int, typer.Option(min=1, help="Contents to keep.")] = 8,
    candidates: Annotated[int, typer.Option(min=1, help="Drafts per content that is kept.")] = 8,
    slot: Annotated[
        list[str] | None, typer.Option(help="What is written; without it `subject`. May be repeated.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the copy, like `en-GB`.", show_default=False)] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Only this prompt; may be repeated. Without it all, by what they earned.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=20, help="Earlier winners, and losers, that are shown.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Write copy for a campaign from its brief, hold it against the loop's rules, and keep the best of it.

    It is written by the server of REWARDLOOP_GENERATOR_URL, else from templates. What is kept waits for approval, unless the
    loop approves automatically.

    Example: rewardloop generate black-friday --count 5

    Example: rewardloop generate black-friday --slot subject --slot preheader --locale en-GB --prompt ask
    """
    workspace = open_workspace()
    prepare_environment(workspace.settings)
    from pipelines.flows.generate import generate as flow
    from pipelines.generation.steps import loop_of
    from pipelines.learning import open_bench

    made = flow(
        loop_id=loop_of(open_bench(workspace.settings), campaign),
        campaign_id=campaign,
        count=count,
        candidates=candidates,
        slots=tuple(slot or ("subject",)),
        locale=locale,
        examples=examples,
        prompts=tuple(prompt or ()),
    )
    if as_json:
        print_json(made)
        return
    _print(made)
    if made["micros"]:
        _say(told_month(workspace, made["loop_id"]))


def told_month(workspace: Workspace, loop: str) -> str:
    """What a loop has spent this month, and on how much."""
    settings = workspace.settings
    micros, cap = spent(workspace.engine, settings, loop, workspace.clock()), settings.generator_month_budget
    of = "" if cap is None else f" of {cap:,.2f}"
    return f"This month {loop} has spent {micros / MICROS:,.4f}{of} {settings.generator_currency}."


def queue(
    loop: Annotated[str | None, typer.Option(help="Only of this loop.", show_default=False)] = None,
    campaign: Annotated[str | None, typer.Option(help="Only of this campaign.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Most contents that are listed.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List copy that waits for approval, with what the guardrails said.

    Example: rewardloop copy queue --campaign black-friday
    """
    with reading(open_workspace().engine) as connection:
        found = waiting(connection, loop=loop, campaign=campaign, limit=limit)
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    rows = [(one.content_id, one.campaign_id, _text(one), _origin(one), _remarks(one)) for one in found]
    print_table("Copy that waits for approval", ["content", "campaign", "copy", "written by", "remarks"], rows)
    if found:
        _say("Approve with: rewardloop copy approve <content> …   reject with: rewardloop copy reject <content> …")


def approve(contents: Contents, reason: Reason = "", who: Who = "cli") -> None:
    """Approve copy: it is a candidate within a second, once its campaign runs.

    Example: rewardloop copy approve c-0a1b2c c-3d4e5f --as ann
    """
    _decide(contents, "approved", reason, who)


def reject(contents: Contents, reason: Reason = "", who: Who = "cli") -> None:
    """Reject copy: it is no candidate, and stays on record.

    Example: rewardloop copy reject c-0a1b2c --reason "off brand"
    """
    _decide(contents, "rejected", reason, who)


def _decide(contents: list[str], approval: Any, reason: str, who: str) -> None:
    workspace = open_workspace()
    with writing(workspace.engine) as connection:
        before = {name: set_approval(connection, name, approval, who, reason, workspace.clock()) for name in contents}
    for name, state in before.items():
        _say(f"{name} was {state} and is {approval}.")


def _print(made: dict[str, Any]) -> None:
    _say(made["sentence"])
    prompts = [
        (one["name"], f"{one['probability']:.0%}", one["written"], one["passed"], one["kept"])
        for one in made["prompts"]
    ]
    print_table("Prompts", ["prompt", "share", "drafts", "within the rules", "kept"], prompts, numbers=(1, 2, 3, 4))
    kept = [
        (one["content_id"], one["text"], one["prompt"], one["approval"], _number(one["expected"]))
        for one in made["kept"]
    ]
    if kept:
        print_table("Kept", ["content", "copy", "prompt", "state", "expected per 1,000"], kept, numbers=(4,))
    if made["tokens"]:
        _say(f"It took {made['tokens']:,} tokens and cost {made['micros'] / 1e6:.4f} {made['currency']}.")
    for failure in made["failures"]:
        _say(f"Not written: {failure}")


def _number(expected: float | None) -> str:
    return "" if expected is None else f"{1_000 * expected:,.4g}"


def _text(one: Waiting) -> str:
    return "\n".join(f"{slot}: {text}" if len(one.slots) > 1 else text for slot, text in as_read(one.slots))


def _origin(one: Waiting) -> str:
    return " by ".join(filter(None, (one.prompt_id, one.generator)))


def _remarks(one: Waiting) -> str:
    return "; ".join(filter(None, (*(verdict.reason for verdict in one.verdicts), one.nearness)))


def _say(sentence: str) -> None:
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
