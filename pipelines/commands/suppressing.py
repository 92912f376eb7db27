"""Commands for the list of customers who must not be sent anything."""

import csv
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from infra.clock import format_time
from infra.database import reading, writing
from infra.errors import BadInput
from ingestion.audit import record
from ingestion.fields import can_name
from ingestion.loops import load_loop
from ingestion.people.suppressions import CHUNK, EVERY_LOOP, changed_since, lift, suppress
from pipelines.commands.workspace import Workspace, err, open_workspace

GROUP = """Customers who must not be sent anything: `/v1/rank` answers them `no_send`, with the reason.

Who unsubscribes or complains is put on the list by the event (`suppression` in the loop's definition).

Example: rewardloop suppress add customer-4711 --reason "asked by phone\""""

Ids = Annotated[
    list[str] | None, typer.Argument(help="Customers' ids, in clear; `-` reads them from stdin, one per line.")
]
FromFile = Annotated[Path | None, typer.Option("--file", help="CSV file of ids: its first column, or the one named.")]
Column = Annotated[
    str | None, typer.Option(help="Column of the file that holds the ids; then its first line is the header.")
]
Loop = Annotated[str | None, typer.Option(help="One loop alone; default: every loop.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=GROUP, rich_markup_mode=None)
    group.command("add")(add)
    group.command("remove")(remove)
    group.command("list")(list_)
    app.add_typer(group, name="suppress")


def add(
    ids: Ids = None,
    file: FromFile = None,
    column: Column = None,
    loop: Loop = None,
    reason: Annotated[str, typer.Option(help="Why, in a word or two.")] = "listed",
) -> None:
    """Put customers on the list. The same again changes nothing, so that a file may be read again.

    Example: rewardloop suppress add --file unsubscribed.csv --column email --reason "old list"
    """
    if not 0 < len(reason) <= 64:
        raise BadInput("The reason has 1 to 64 characters; shorten it")
    workspace, read, new = _opened(loop), 0, 0
    for customers in _some(_customers(ids, file, column)):
        with writing(workspace.engine) as connection:
            units = [workspace.secrets.unit(customer) for customer in customers]
            new += len(suppress(connection, units, loop or EVERY_LOOP, reason, workspace.clock()))
        read += len(customers)
    err().print(f"{new:,} of {read:,} customers are newly suppressed; servers know within a second.", highlight=False)


def remove(ids: Ids = None, file: FromFile = None, column: Column = None, loop: Loop = None) -> None:
    """Take customers off the list: they asked for it, or were on it by mistake.

    Example: rewardloop suppress remove customer-4711
    """
    workspace, read, lifted = _opened(loop), 0, 0
    for customers in _some(_customers(ids, file, column)):
        known = [workspace.secrets.every_unit(customer) for customer in customers]
        with writing(workspace.engine) as connection:
            now = workspace.clock()
            were = lift(connection, [unit for every in known for unit in every], loop, now)
            count = sum(not were.isdisjoint(every) for every in known)
            details = {"loop": loop, "customers": count}
            record(connection, "cli", "unsuppress", loop or "every loop", details, now)
        read, lifted = read + len(customers), lifted + count
    err().print(f"{lifted:,} of {read:,} customers were taken off the list.", highlight=False)


def list_(ids: Ids = None, file: FromFile = None, column: Column = None) -> None:
    """Print who is suppressed, as CSV: hash, loop (empty: every loop), reason, since. With ids: those of them who are.

    Example: rewardloop suppress list customer-4711
    """
    workspace = open_workspace()
    asked = None
    if ids or file is not None:
        asked = {unit: id_ for id_ in _customers(ids, file, column) for unit in workspace.secrets.every_unit(id_)}
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["customer", "loop", "reason", "since"])
    with reading(workspace.engine) as connection:
        for entries in changed_since(connection, 0):
            for entry in entries:
                if entry.holds and entry.suppressed_at is not None and (asked is None or entry.unit in asked):
                    name = entry.unit if asked is None else asked[entry.unit]
                    writer.writerow([name, entry.scope, entry.reason, format_time(entry.suppressed_at)])


def _opened(loop: str | None) -> Workspace:
    workspace = open_workspace()
    if loop is not None:
        with reading(workspace.engine) as connection:
            load_loop(connection, loop)
    return workspace


def _customers(ids: Iterable[str] | None, file: Path | None, column: str | None) -> Iterator[str]:
    """Ids as they are given, checked."""
    if (not ids) == (file is None):
        raise BadInput("Give customers' ids, or a --file of them")
    found = _of_file(file, column) if file is not None else iter(ids or ())
    if ids == ["-"]:
        found = (line.rstrip("\r\n") for line in sys.stdin)
    for number, id_ in enumerate(found, 1):
        if not can_name(id_):
            raise BadInput(f"Customer id {number} is not a text of 1 to 256 characters; correct it")
        yield id_


def _of_file(path: Path, column: str | None) -> Iterator[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            place = 0
            if column is not None:
                header = next(rows, [])
                if column not in header:
                    raise BadInput(f"{path} has no column {column!r}; it has {', '.join(header) or 'none'}")
                place = header.index(column)
            yield from (row[place] for row in rows if len(row) > place)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a CSV file in UTF-8 ({error})") from None


def _some(customers: Iterator[str]) -> Iterator[list[str]]:
    while some := list(islice(customers, CHUNK)):
        yield some
