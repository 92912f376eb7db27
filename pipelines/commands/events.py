"""Commands about stored events: labels, put on and taken back."""

from typing import Annotated

import typer

from ingestion.bots import BOT, put_label
from ingestion.join.outcomes import EXCLUDING_LABELS
from pipelines.commands.workspace import open_workspace, out

GROUP = f"""Labels of stored events. Events labelled {" or ".join(EXCLUDING_LABELS)} are kept and not counted.

Example: rewardloop events unlabel redirect 0198f6f2-7a51-7cc0-a52d-3f0d8e3b2c11"""

Source = Annotated[str, typer.Argument(help="Source of the event: `http`, `redirect` …", show_default=False)]
EventId = Annotated[str, typer.Argument(help="The event.", show_default=False)]
Word = Annotated[
    str, typer.Option("--label", help=f"The label: {', '.join(f'`{word}`' for word in EXCLUDING_LABELS)} or another.")
]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the label.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("label")(label)
    group.command("unlabel")(unlabel)
    app.add_typer(group, name="events")


def label(source: Source, event_id: EventId, word: Word = BOT, reason: Reason = "") -> None:
    """Put a label on an event: it holds until somebody takes it back.

    Example: rewardloop events label http click-17 --label test --reason "our own inbox"
    """
    _say(source, event_id, word, True, reason)
    out().print(f"Event {event_id} of {source} is labelled {word}.", markup=False, highlight=False)


def unlabel(source: Source, event_id: EventId, word: Word = BOT, reason: Reason = "") -> None:
    """Take a label back: the event counts again, and no sweep puts the label back.

    Example: rewardloop events unlabel redirect 0198f6f2-7a51-7cc0-a52d-3f0d8e3b2c11 --reason "a fast reader"
    """
    _say(source, event_id, word, False, reason)
    out().print(f"Event {event_id} of {source} is not labelled {word} any more.", markup=False, highlight=False)


def _say(source: str, event_id: str, word: str, applies: bool, reason: str) -> None:
    workspace = open_workspace()
    put_label(
        workspace.engine,
        workspace.secrets,
        source,
        event_id,
        word,
        applies,
        f"cli: {reason}".rstrip(": "),
        workspace.clock(),
    )
