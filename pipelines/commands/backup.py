"""``backup`` and ``restore``: an installation copied while it runs, and brought back."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from infra.settings import clock_of, load_settings
from pipelines.backups import Manifest, back_up, restore
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("backup")(backup)
    app.command("restore")(restore_backup)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder for the back-up.", show_default=False)],
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Copy the secrets file too; the back-up is then as secret as it is.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy database, models, MLflow's runs and waiting clicks, while everything runs.

    Example: rewardloop backup /backups/2026-11-22
    """
    workspace = open_workspace()
    opened = workspace.settings, workspace.engine, workspace.secrets
    manifest = back_up(*opened, folder, workspace.clock(), with_secrets)
    workspace.engine.dispose()
    if as_json:
        print_json(msgspec.to_builtins(manifest))
        return
    _say(f"{folder}: the installation as of batch {manifest.batch_no:,}, {len(manifest.files):,} files.")
    if not with_secrets:
        _say(f"Keep a copy of the secrets elsewhere: {workspace.settings.secrets_path}. Without them it is of no use.")


def restore_backup(
    folder: Annotated[Path, typer.Argument(help="The back-up's folder.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give up what the database holds now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring this installation back to a back-up. Stop its processes first, start them afterwards: workers read the topics
    from where the back-up stood.

    Example: rewardloop restore /backups/2026-11-22
    """
    settings = load_settings()
    manifest = restore(settings, folder, clock_of(settings)(), overwrite)
    if as_json:
        print_json(msgspec.to_builtins(manifest))
    else:
        _say(_back(manifest))


def _back(manifest: Manifest) -> str:
    where = f"Back at batch {manifest.batch_no:,}, as of {manifest.made_at}."
    return (
        f"{where} Start the processes."
        if not manifest.offsets
        else f"{where} Start the worker: it reads the topics on."
    )


def _say(sentence: str) -> None:
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
