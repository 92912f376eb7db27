"""``credit``: which part of the copy, and which of several sends, earned it."""

from pathlib import Path
from typing import Annotated

import typer

from infra.errors import BadInput
from ingestion.metrics import parse_duration
from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace

KEYS = ("campaign", "content")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(credit)


def credit(
    loop: LoopArgument,
    content: Annotated[
        list[str] | None, typer.Option(help="Draw the credit over this content; may be repeated.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the copy with its credit into this HTML file.", show_default=False)
    ] = None,
    sends: Annotated[bool, typer.Option("--sends", help="Which send earned it: six models side by side.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="With --sends: what was earned; default: the first metric of money.")
    ] = None,
    by: Annotated[str, typer.Option(help=f"With --sends: compare by {' or '.join(KEYS)}.")] = KEYS[0],
    lookback: Annotated[str, typer.Option(help="With --sends: how long a send may lie before a purchase.")] = "30d",
    half_life: Annotated[str, typer.Option(help="With --sends: half-life of time decay.")] = "7d",
    as_json: JsonOption = False,
) -> None:
    """What earned it: slots, phrases and copy factors of the copy, or with --sends the sends before each purchase.

    Example: rewardloop credit email-subjects --content june-3
    Example: rewardloop credit email-subjects --sends --metric revenue --lookback 14d
    """
    from pipelines import crediting  # LightGBM takes seconds to import

    workspace = open_workspace()
    if sends:
        if by not in KEYS:
            raise BadInput(f"--by is {' or '.join(KEYS)}, not {by!r}")
        spans = (duration("--lookback", lookback), duration("--half-life", half_life))
        crediting.print_sends(workspace, loop, metric, "content" if by == "content" else "campaign", *spans, as_json)
    else:
        crediting.print_copy(workspace, loop, content or [], html, as_json)


def duration(option: str, text: str) -> int:
    """Microseconds. Raises :class:`BadInput` for what is no duration, or none at all."""
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise BadInput(f"{option}: {error}") from None
    if not found:
        raise BadInput(f"{option} must be longer than nothing")
    return found
