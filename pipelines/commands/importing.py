"""``rewardloop import``: past experiments and reports from CSV or Parquet."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ingestion.imports import Importer, Report, dry_run, run_import
from ingestion.mappings import load_mapping
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json, print_table, progress


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("import")(import_)


def import_(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet, gzipped or not.", show_default=False)],
    mapping: Annotated[Path, typer.Option(help="TOML file that says what the columns are.", show_default=False)],
    dry: Annotated[bool, typer.Option("--dry-run", help="Only count: recognised, ignored, rejected and why.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import past decisions or results from a file.

    The same import again changes nothing; one that was cut off goes on where it stopped.

    Example: rewardloop import --mapping docs/examples/hillstrom.toml hillstrom.csv
    """
    workspace = open_workspace()
    importer = Importer(workspace.engine, workspace.secrets, workspace.settings, workspace.clock)
    declared = load_mapping(mapping)
    with progress() as bar:
        task = bar.add_task(f"reading {file.name}", total=None)
        run = dry_run if dry else run_import
        report = run(importer, declared, file, lambda done, size: bar.update(task, completed=done, total=size))
    if as_json:
        print_json(_document(report, dry))
    else:
        _print(report, dry)


def _document(report: Report, dry: bool) -> dict[str, Any]:
    return {"dry_run": dry, "rows": report.tally.rows, **msgspec.to_builtins(report)}


def _print(report: Report, dry: bool) -> None:
    tally = report.tally
    first = "recognised" if dry else "imported"
    columns = ["rows", first, "already there", "ignored", "rejected" if dry else "in quarantine"]
    row = [tally.rows, tally.applied, tally.duplicate, tally.ignored, tally.quarantined]
    title = f"{'Dry run of import' if dry else 'Import'} {report.name}"
    print_table(title, columns, [[f"{count:,}" for count in row]], numbers=range(5))
    if report.complaints:
        rows = [(f"{c.rows:,}", c.first_row, c.example) for c in report.complaints.values()]
        print_table("Rows that cannot be used", ["rows", "first", "why (of the first)"], rows, numbers=(0, 1))
    if report.resumed_at:
        out().print(f"Went on after row {report.resumed_at:,}, where the last run stopped.")
    if dry:
        out().print("Nothing was stored.")
    else:
        out().print(f"Next: rewardloop train {report.loop}, rewardloop evaluate {report.loop}", highlight=False)
