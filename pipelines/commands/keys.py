"""Commands for API keys: who may call the API, and what."""

from typing import Annotated, Any

import typer
from sqlalchemy import Row

from infra.clock import DAY, format_time
from infra.database import reading, writing
from ingestion.keys import DEFAULT_RATE, SCOPES, create_key, list_keys, revoke_key, rotate_key
from pipelines.commands.workspace import JsonOption, err, open_workspace, print_json, print_table

GROUP = """API keys. With REWARDLOOP_API_KEYS=required every call under /v1 needs one.

Example: rewardloop keys create newsletter --scope rank --loop emails"""

Name = Annotated[str, typer.Argument(help="Name of the connection: the source of its events.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("create")(create)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    group.command("list")(list_)
    app.add_typer(group, name="keys")


def create(
    name: Name,
    scope: Annotated[list[str], typer.Option(help=f"What it may do: {', '.join(SCOPES)}. May be repeated.")],
    loop: Annotated[list[str] | None, typer.Option(help="A loop it is limited to. May be repeated.")] = None,
    rate: Annotated[str, typer.Option(help="Most requests.")] = DEFAULT_RATE,
) -> None:
    """Make a key and print it. It is shown this once: only a hash is stored.

    Example: rewardloop keys create newsletter --scope rank --loop emails --rate 200/second
    """
    workspace = open_workspace()
    with writing(workspace.engine) as connection:
        key = create_key(connection, workspace.secrets, name, scope, loop or (), rate, workspace.clock())
    _show(key)


def rotate(
    name: Name,
    days: Annotated[int, typer.Option(min=0, help="How long its other keys go on working.")] = 7,
) -> None:
    """Make a new key for a connection, with the rights of its newest; its others end after some days.

    Example: rewardloop keys rotate newsletter --days 2
    """
    workspace = open_workspace()
    now = workspace.clock()
    with writing(workspace.engine) as connection:
        key = rotate_key(connection, workspace.secrets, name, now + days * DAY, now)
    _show(key)


def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, from `list`.", show_default=False)]) -> None:
    """End a key at once.

    Example: rewardloop keys revoke abcdefghijkl
    """
    workspace = open_workspace()
    with writing(workspace.engine) as connection:
        revoke_key(connection, key_id, workspace.clock())
    err().print(f"Key {key_id} is revoked; servers know within a second.", highlight=False)


def list_(as_json: JsonOption = False) -> None:
    """Every key ever made: its connection, rights, age and last use. Secrets are not stored.

    Example: rewardloop keys list
    """
    with reading(open_workspace().engine) as connection:
        keys = [_described(row) for row in list_keys(connection)]
    if as_json:
        print_json(keys)
        return
    print_table(
        "API keys",
        ["name", "key id", "scopes", "loops", "rate", "made", "last used", "ends", "state"],
        [["-" if cell is None else cell for cell in key.values()] for key in keys],
    )


def _show(key: str) -> None:
    typer.echo(key)
    err().print("Keep it now: it is not shown again. Servers know it within a second.", highlight=False)


def _described(row: Row[Any]) -> dict[str, Any]:
    return {
        "name": row.name,
        "key_id": row.key_id,
        "scopes": ", ".join(row.scopes),
        "loops": ", ".join(row.loops) or "all",
        "rate": row.rate,
        "created_at": format_time(row.created_at),
        "last_used_at": row.last_used_at and format_time(row.last_used_at),
        "expires_at": row.expires_at and format_time(row.expires_at),
        "state": row.state,
    }
