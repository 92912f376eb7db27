"""``export``: examples for fine-tuning, tables for a warehouse."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace, out, print_json, progress

GROUP = """Examples for fine-tuning in TRL's formats, and tables for a warehouse.

Example: rewardloop export dpo email-subjects pairs.jsonl"""

File = Annotated[Path, typer.Argument(help="The file to write: JSON lines, .jsonl.", show_default=False)]
Confidence = Annotated[
    float, typer.Option(min=0.5, max=1.0, help="Least probability, under the posterior, of what an example claims.")
]
Campaigns = Annotated[
    list[str] | None, typer.Option("--campaign", help="Only this campaign; may be repeated.", show_default=False)
]
Phrases = Annotated[
    bool, typer.Option("--phrases", help="Add what each phrase earns, by the serving model: a dense reward.")
]
USUAL = 0.95


EXAMPLES = {
    "sft": """Copy that earns more than its campaign, as conversations to imitate.

    Example: rewardloop export sft email-subjects best.jsonl --confidence 0.9
    """,
    "dpo": """Pairs of copy for one brief, of which the first earns more.

    Example: rewardloop export dpo email-subjects pairs.jsonl --phrases
    """,
    "kto": """Copy with a label: earns more than its campaign, or less.

    Example: rewardloop export kto email-subjects labelled.jsonl
    """,
}
"""The kinds of examples, one command each, and the command's help."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    for kind, said in EXAMPLES.items():
        group.command(kind, help=said)(_examples(kind))
    group.command("parquet")(parquet)
    app.add_typer(group, name="export")


def _examples(kind: str) -> Callable[..., None]:
    """The command of one kind of examples: all take the same options."""

    def examples(
        loop: LoopArgument,
        file: File,
        confidence: Confidence = USUAL,
        campaign: Campaigns = None,
        phrases: Phrases = False,
        as_json: JsonOption = False,
    ) -> None:
        from pipelines.exports import runs  # LightGBM takes seconds to import

        with progress() as bar:
            task = bar.add_task(f"exporting {loop}", total=None)
            card = runs.export_examples(
                open_workspace(),
                loop,
                kind,
                file,
                confidence=confidence,
                campaigns=campaign or (),
                phrases=phrases,
                told=lambda done: bar.update(task, completed=done),
            )
        _tell(card, file, as_json)

    return examples


def parquet(
    loop: LoopArgument,
    folder: Annotated[Path, typer.Argument(help="The folder to write the tables into.", show_default=False)],
    units: Annotated[bool, typer.Option("--units", help="With the customers' keyed hashes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Decisions, outcomes and contents as Parquet. Customers who asked to be forgotten are in none of them.

    Example: rewardloop export parquet email-subjects warehouse/
    """
    from pipelines.exports import runs  # LightGBM takes seconds to import

    with progress() as bar:
        task = bar.add_task(f"exporting {loop}", total=None)
        card = runs.export_tables(open_workspace(), loop, folder, units, lambda done: bar.update(task, completed=done))
    _tell(card, folder, as_json)


def _tell(card: dict[str, Any], where: Path, as_json: bool) -> None:
    if as_json:
        print_json(card)
        return
    rows = ", ".join(f"{each['rows']:,} rows in {each['file']}" for each in card["files"])
    rule = f" {card['rule'].capitalize()}." if "rule" in card else ""
    sentence = f"{where}: {rows}, as of batch {card['as_of']}.{rule}"
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
