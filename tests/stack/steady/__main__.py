"""``make steady``: damaged models, dependencies that are away, too much work: a table of each, and a last line that says
pass or fail.

python -m tests.stack.steady --only damage --only outage --short
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.logs import configure_logs
from tests.stack.faults.database import Database
from tests.stack.faults.waiting import TooLong
from tests.stack.steady import damage, outage, overload
from tests.stack.steady.servers import serving
from tests.stack.steady.world import install

Faults = list[str]
SECONDS = 15.0
"""How long each load lasts."""
BODY_SECONDS = 3.0
"""How long bodies may take here, so that a run does not wait for those that do not come."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts asked for; 0 when all is as promised."""
    given = _options().parse_args(arguments)
    configure_logs("error")
    console = Console(width=None if sys.stdout.isatty() else 170)
    faults: Faults = []
    began = time.monotonic()
    for name in given.only or PARTS:
        faults += PARTS[name](console, given.short)
    for fault in faults:
        console.print(fault, markup=False, highlight=False)
    minutes = (time.monotonic() - began) / 60
    console.print(f"FAIL: {len(faults)} faults ({minutes:.1f} minutes)" if faults else f"pass ({minutes:.1f} minutes)")
    return 1 if faults else 0


def _damage(console: Console, short: bool) -> Faults:
    table = _table(
        "Damaged bundles: with the registered digest, and with a digest of their own",
        *("file", "damage", "bundles", "wrong digest: loaded", "server died", "hung"),
        *("refused: unreadable", "anatomy", "golden rows", "parser killed or hung"),
        *("loaded: unharmed", "wrong leaf", "led astray", "other numbers"),
    )
    faults: Faults = []
    for line in damage.survey(damage.SHORT if short else damage.LONG):
        killed = line.refused["killed the parser"] + line.refused["hung the parser"]
        refused = (line.refused["unreadable"], line.refused["anatomy"], line.refused["golden rows"], killed)
        loaded = (line.unharmed, line.wrong_in_leaf, line.astray, line.wrong_whole)
        counts = (line.bundles, line.passed_the_digest, line.deaths, line.hangs, *refused, *loaded)
        table.add_row(line.file, line.damage, *map(str, counts))
        faults += line.faults
    console.print(table)
    return faults


def _outage(console: Console, short: bool) -> Faults:
    columns = ("scenario", "asked", "failed", "stored", "baseline", "what else", "holds")
    table = _table("What is away, what changes, what stops, while questions come", *columns)
    faults: Faults = []
    with tempfile.TemporaryDirectory() as home, Database() as database:
        try:
            for line in outage.survey(database, Path(home) / "home", outage.SHORT if short else outage.LONG):
                counts = (line.asked, line.failed, line.durable, line.baseline)
                table.add_row(line.scenario, *map(str, counts), line.note, "NO" if line.faults else "yes")
                faults += [f"{line.scenario}: {fault}" for fault in line.faults]
        except TooLong as late:
            faults.append(f"after {table.row_count} scenarios: {late}")
    console.print(table)
    return faults


def _overload(console: Console, short: bool) -> Faults:
    with tempfile.TemporaryDirectory() as home, Database() as database:
        url = database.new()
        made = install(url, url, Path(home) / "home")
        with serving(made.settings, body_seconds=BODY_SECONDS) as server:
            found = overload.overload(server, overload.questions(), 3.0 if short else SECONDS)
            troubles = overload.each(server, 4 if short else 100, 60.0)
    console.print(_loads(found))
    console.print(f"usual again after {found.recovered:.1f} s", highlight=False)
    table = _table("Callers who bring nothing", "what", "callers", "answers", "slowest s", "others answered", "failed")
    for one in troubles:
        answers = ", ".join(f"{count} × {status}" for status, count in one.answers.items())
        table.add_row(one.kind, str(one.callers), answers, f"{one.slowest:.1f}", str(one.others), str(one.failed))
    console.print(table)
    return [*found.faults, *(fault for one in troubles for fault in one.faults)]


def _loads(found: overload.Overload) -> Table:
    columns = ("questions/s", "answered/s", "p50 ms", "p99 ms", "turned away", "their p99 ms")
    further = ("asked too soon", "their p99 ms", "no answer", "memory MB")
    table = _table("More than a server can do", "load", *columns, *further)
    for line in found.lines:
        times = (f"{line.p50:.1f}", f"{line.p99:.1f}", str(line.shed), f"{line.shed_p99:.1f}")
        rest = (str(line.soon), f"{line.soon_p99:.1f}", str(line.lost), f"{line.memory:.0f}")
        table.add_row(line.load, f"{line.offered:.0f}", f"{line.answered:.0f}", *times, *rest)
    return table


PARTS: dict[str, Callable[[Console, bool], Faults]] = {"damage": _damage, "outage": _outage, "overload": _overload}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if not number else "right", overflow="fold")
    return table


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.stack.steady", description="Break it; it must go on.")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="this part; may be repeated")
    parser.add_argument("--short", action="store_true", help="the short form, as in the tests")
    return parser


if __name__ == "__main__":
    sys.exit(main())
