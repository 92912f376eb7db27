"""Commands for rates between currencies."""

from pathlib import Path
from typing import Annotated

import typer

from infra.clock import format_time
from infra.database import reading
from ingestion.exchange import Word, format_rate, known_rates
from ingestion.files.rate_files import UnreadableRates, read_rates
from ingestion.join.restating import Imported, import_rates
from pipelines.commands.workspace import JsonOption, err, open_workspace, out, print_json, print_table, progress

GROUP = """Rates between currencies: metrics with `convert` count amounts in other currencies at the rate of their time.

Example: rewardloop rates import rates.csv --source "European Central Bank\""""

SHOWN = 1_000
"""Most rates that are listed as a table."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("import")(import_)
    group.command("list")(list_)
    app.add_typer(group, name="rates")


def import_(
    file: Annotated[Path, typer.Argument(help="CSV: from, to, valid_from, rate.", show_default=False)],
    source: Annotated[str | None, typer.Option(help="Where the rates are from; default: the file's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import rates, and restate the outcomes that they change. The same again changes nothing.

    One unit of `from` is worth `rate` units of `to`, from `valid_from` on until the next time of the two. A rate for a time
    that is known corrects it; what was trained on before can still be rebuilt.

    Example: rewardloop rates import rates.csv --source "European Central Bank"
    """
    workspace = open_workspace()
    now = workspace.clock()
    try:
        rates = read_rates(file, now)
    except UnreadableRates as error:
        for line in error.lines:
            err().print(line, markup=False, highlight=False, soft_wrap=True)
        raise
    with progress() as bar:
        bar.add_task("restating outcomes", total=None)
        found = import_rates(workspace.engine, rates, source or file.name[:256], "cli", now)
    if as_json:
        print_json(found)
        return
    out().print(
        f"{found.new:,} rates are new, {found.known:,} were known; {found.restated:,} decisions were joined anew"
        f"{'' if found.batch_no is None else f' in batch {found.batch_no:,}'}.",
        highlight=False,
    )
    _advise(found)


def _advise(found: Imported) -> None:
    if not found.loops:
        out().print('No metric converts yet: add "convert": true to those that shall.', highlight=False, markup=False)


def list_(
    from_currency: Annotated[str | None, typer.Option("--from", help="Only from this currency.")] = None,
    to_currency: Annotated[str | None, typer.Option("--to", help="Only to this currency.")] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Corrected rates too; the one that holds comes first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the rates, with who imported them, when, from where and in which batch.

    Example: rewardloop rates list --from USD --to EUR
    """
    workspace = open_workspace()
    with reading(workspace.engine) as connection:
        words = list(known_rates(connection, from_currency, to_currency, every=every))
    if as_json:
        print_json([_document(word) for word in words])
    elif words:
        rows = [[str(cell) for cell in _document(word).values()] for word in words[-SHOWN:]]
        print_table("Rates", list(_document(words[0])), rows, numbers=(3, 4))
        if len(words) > SHOWN:
            out().print(
                f"The last {SHOWN:,} of {len(words):,}; --json prints all, --from and --to fewer.", highlight=False
            )
    else:
        out().print("There are no such rates.")


def _document(word: Word) -> dict[str, str | int]:
    return {
        "from": word.from_currency,
        "to": word.to_currency,
        "valid_from": format_time(word.valid_from),
        "rate": format_rate(word.rate),
        "batch": word.batch_no,
        "source": word.source,
        "imported_by": word.imported_by,
        "imported_at": format_time(word.imported_at),
    }
