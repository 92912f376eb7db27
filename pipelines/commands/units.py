"""The command that hashes customers' ids, for teams that write to topics. It needs the secrets file only."""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from infra.errors import BadInput
from infra.secrets import load_secrets
from infra.settings import load_settings
from ingestion.fields import can_name

Ids = Annotated[list[str], typer.Argument(help="Customers' ids; `-` reads them from stdin, one per line.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(unit)


def unit(
    ids: Ids,
    before: Annotated[
        bool, typer.Option("--before", help="Under the secret before the one in use: what goes into `unit_before`.")
    ] = False,
) -> None:
    """Print the keyed hash that stands for each customer: what goes into `unit` on topics.

    Example: rewardloop unit customer-4711
    """
    secrets = load_secrets(load_settings())
    for number, id_ in enumerate(_read(ids), 1):
        if not can_name(id_):
            raise BadInput(f"Customer id {number} is not a text of 1 to 256 characters; correct it")
        hashed = secrets.unit_before(id_) if before else secrets.unit(id_)
        if hashed is None:
            raise BadInput("There is one unit secret only; without a rotation under way leave unit_before out")
        typer.echo(hashed)


def _read(ids: Iterable[str]) -> Iterable[str]:
    return (line.rstrip("\r\n") for line in sys.stdin) if list(ids) == ["-"] else ids
