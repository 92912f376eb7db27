"""Commands of whoever runs an installation: schema, loops, quarantine, kill switch, tokens, a check-up."""

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
