"""``rank-audience``: the choice for every customer of a file.

It imports ``pipelines/audiences`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from infra.errors import BadInput
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json, print_table, progress

if TYPE_CHECKING:
    from pipelines.audiences.deciding import Report

MOST_REASONS = 20


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("rank-audience")(rank_audience)


def rank_audience(
    campaign: Annotated[str, typer.Option(help="The campaign's id.", show_default=False)],
    source: Annotated[
        Path, typer.Option("--input", help="CSV, NDJSON or Parquet: who it goes to.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--send", help="Name of this send; the same again decides nobody twice.")
    ] = None,
    destination: Annotated[
        Path | None, typer.Option("--output", help="File to write; .csv, .ndjson or .parquet.", show_default=False)
    ] = None,
    loop: Annotated[str | None, typer.Option(help="The campaign's loop, to be sure of it.", show_default=False)] = None,
    unit: Annotated[str, typer.Option(help="Column that names the customer.")] = "unit",
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to carry into the output; it is no context. May be repeated.")
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ADDRESS: a column `link.NAME` of addresses that record the click. May be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a send that was begun.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only count: nothing is stored or written.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose for every customer of a file, store each choice with its probability, and write it with token and links.

    The column `unit` names the customer; every other is context, under its own name. Cut off, go on with --resume: nobody
    is decided twice. Rows that cannot be used are written beside the output, with their line and the reason.

    Example: rewardloop rank-audience --campaign june --input customers.csv --send june-1 --output sends.csv
    """
    if not dry and (destination is None or name is None):
        raise BadInput("Give --output, the file to write, and --send, the name of the send; or --dry-run")
    links = dict(map(_link, link or []))
    from ingestion.files.audience import Columns
    from pipelines.audiences.deciding import Desk, Send, decide

    workspace = open_workspace()
    send = Send(
        name=name or "dry-run",
        campaign=campaign,
        source=source,
        destination=None if dry else destination,
        loop=loop,
        columns=Columns(unit, tuple(keep or ())),
        links=links,
        resume=resume,
    )
    desk = Desk(workspace.engine, workspace.secrets, workspace.settings, workspace.clock)
    with progress() as bar:
        task = bar.add_task(f"deciding for {source.name}", total=None)
        report = decide(desk, send, lambda _rows, done, size: bar.update(task, completed=done, total=size))
    if as_json:
        print_json({"dry_run": dry, **msgspec.to_builtins(report)})
    else:
        _print(report, dry)


def _link(said: str) -> tuple[str, str]:
    name, equals, url = said.partition("=")
    if not equals or not name or not url:
        raise BadInput(f"--link {said[:60]!r} is not NAME=ADDRESS; write --link shop=https://shop.example.com/june")
    return name, url


def _print(report: "Report", dry: bool) -> None:
    chosen = sum(report.contents.values())
    rows = [(name, f"{count:,}", f"{count / chosen:.1%}") for name, count in sorted(report.contents.items())]
    title = f"{'Dry run of a send' if dry else 'Send ' + report.send} of {report.campaign}"
    print_table(title, ["content", "customers", "share"], rows, [1, 2])
    print_table("Rows", ["", "rows"], [(name, f"{count:,}") for name, count in _counts(report)], [1])
    if report.nothing_because:
        _print_reasons("Nothing is sent to", [(why, n, None) for why, n in report.nothing_because.items()])
    if report.complaints:
        told = [(why, one.rows, one.first_line) for why, one in report.complaints.items()]
        _print_reasons("Rows that cannot be used", told)
    if report.output is not None:
        out().print(f"Written: {report.output}", highlight=False, markup=False, soft_wrap=True)
    if report.rejects is not None:
        out().print(f"Rejected rows: {report.rejects}", highlight=False, markup=False, soft_wrap=True)
    if dry:
        out().print("Nothing was stored.")


def _counts(report: "Report") -> list[tuple[str, int]]:
    counts = [
        ("decided", report.decided),
        ("decided before", report.stored_before),
        ("the same customer again", report.repeated),
        ("nothing to decide", report.refused),
        ("rejected", report.rejected),
        ("in all", report.rows),
        ("of these in the holdout", report.holdout),
    ]
    return [(name, count) for name, count in counts if count or name in ("decided", "rejected", "in all")]


def _print_reasons(title: str, reasons: Sequence[tuple[str, int, int | None]]) -> None:
    """The most common reasons, with the first line where it is known."""
    most = sorted(reasons, key=lambda one: -one[1])[:MOST_REASONS]
    rows = [(why, f"{count:,}", "" if line is None else f"{line:,}") for why, count, line in most]
    print_table(title, ["reason", "rows", "first line"], rows, [1, 2])
