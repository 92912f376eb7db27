"""``diff``: two contents, word by word, and what each change was worth where it was tested."""

from typing import Annotated

import typer

from pipelines.commands.workspace import JsonOption, open_workspace

Content = Annotated[str, typer.Argument(help="Id of a content.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(diff)


def diff(first: Content, second: Content, as_json: JsonOption = False) -> None:
    """Show what differs between two contents, word by word, and what each change was worth where it was tested alone.

    Example: rewardloop diff june-1 june-2
    """
    from pipelines import variants

    variants.diff(open_workspace(), first, second, as_json)
