"""``rewardloop import``: past experiments and reports from CSV or Parquet."""

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
