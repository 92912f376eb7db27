"""``train``, ``evaluate``, ``score``: a reward model from what is known, its proof, and its use."""

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
