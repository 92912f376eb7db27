"""``rewardloop import``: past experiments and reports from CSV or Parquet, and vendors' events from JSON."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from infra.errors import BadInput
from infra.secrets import CONNECTION, Secrets
from ingestion.connectors import CONNECTORS
from ingestion.files.imports import Importer, Report, dry_run, run_import
from ingestion.files.mappings import load_mapping
from ingestion.files.vendor_files import VendorReport, import_deliveries
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json, print_table, progress


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("import")(import_)


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="CSV or Parquet; with --format JSON or JSON lines. Gzipped or not.", show_default=False),
    ],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file that says what the columns are.", show_default=False)
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"Instead of a mapping, whose payloads: {', '.join(CONNECTORS)}."),
    ] = None,
    connection: Annotated[
        str | None, typer.Option(help="With --format: the webhook whose events they are; default: the format's name.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only count: recognised, ignored, rejected and why.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import past decisions or results from a table, or a vendor's events from a file of its payloads.

    The same import again changes nothing; one that was cut off goes on where it stopped.

    Example: rewardloop import --mapping docs/examples/hillstrom.toml hillstrom.csv
    Example: rewardloop import --format segment --dry-run calls.jsonl.gz
    """
    if (mapping is None) == (format_ is None):
        raise BadInput("Say what the file is: --mapping with a TOML file for a table, or --format with a vendor's name")
    if format_ is not None:
        _import_payloads(file, format_, connection or format_, dry, as_json)
    elif mapping is not None:
        _import_table(file, mapping, dry, as_json)


def _import_table(file: Path, mapping: Path, dry: bool, as_json: bool) -> None:
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


def _import_payloads(file: Path, connector: str, connection: str, dry: bool, as_json: bool) -> None:
    if connector not in CONNECTORS:
        raise BadInput(f"There is no format {connector!r}; there are {', '.join(CONNECTORS)}")
    workspace = open_workspace()
    _check_connection(connection, connector, workspace.secrets)
    importer = Importer(workspace.engine, workspace.secrets, workspace.settings, workspace.clock)
    with progress() as bar:
        task = bar.add_task(f"reading {file.name}", total=None)
        report = import_deliveries(
            importer, connector, connection, file, dry, lambda done, size: bar.update(task, completed=done, total=size)
        )
    if as_json:
        print_json(_payloads_document(report, dry))
    else:
        _print_payloads(report, dry)


def _check_connection(connection: str, connector: str, secrets: Secrets) -> None:
    """The source of the events: a webhook of that format, or the name of one that may come."""
    webhook = secrets.webhooks.get(connection)
    if webhook is not None and webhook.connector != connector:
        raise BadInput(f"Webhook {connection!r} is read as {webhook.connector!r}; give --format {webhook.connector}")
    if not re.fullmatch(CONNECTION, connection):
        raise BadInput(f"--connection {connection[:64]!r} cannot be a source; use letters, digits, '.', '_' and '-'")


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


def _payloads_document(report: VendorReport, dry: bool) -> dict[str, Any]:
    counted = {
        "recognised": report.recognised.total(),
        "ignored": report.ignored.total(),
        "rejected": sum(complaint.records for complaint in report.rejected.values()),
    }
    reasons = {"types": report.recognised, "ignored_because": report.ignored, "rejected_because": report.rejected}
    stored = {} if dry else {name: getattr(report, name) for name in ("applied", "duplicate", "pending")}
    named = {"dry_run": dry, "format": report.connector, "connection": report.connection, "records": report.records}
    return {**named, **counted, **stored, **msgspec.to_builtins(reasons)}


def _print_payloads(report: VendorReport, dry: bool) -> None:
    counts = _payloads_document(report, dry)
    names = ["records", "recognised", "ignored", "rejected", *(() if dry else ("applied", "duplicate", "pending"))]
    title = f"{'Dry run of import' if dry else 'Import'} of {report.connector} as {report.connection}"
    print_table(title, names, [[f"{counts[name]:,}" for name in names]], numbers=range(len(names)))
    whys = [("event", number, kind) for kind, number in report.recognised.most_common()]
    whys += [("ignored", number, reason) for reason, number in report.ignored.most_common()]
    whys += [("rejected", complaint.records, reason) for reason, complaint in report.rejected.items()]
    if whys:
        print_table("What they are", ["", "records", "type or reason"], whys, numbers=(1,))
    if dry:
        out().print("Nothing was stored.")
