"""``make faults``: every fault in its long form, a table, and a last line that says pass or fail.

python -m tests.stack.faults --seed 5 --only kill_at_random --only commit_unknown --short
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.deploy.kafka import why_not
from infra.logs import configure_logs
from tests.stack.faults.runner import Line, perform
from tests.stack.faults.scenarios import SCENARIOS, Scenario
from tests.stack.faults.trial import Stage

COUNTS = ("lost", "doubled", "phantom", "misjoined", "altered", "unaccounted")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios asked for; 0 when every one passed."""
    given = _options().parse_args(arguments)
    if reason := why_not():
        sys.stderr.write(f"{reason}\n")
        return 2
    configure_logs("error")
    console = Console(width=None if sys.stdout.isatty() else 150)
    chosen = [SCENARIOS[name] for name in given.only or SCENARIOS]
    console.print(f"seed {given.seed}: {len(chosen)} faults, {'short' if given.short else 'long'} form")
    started = time.monotonic()
    lines, broken = _perform(console, chosen, given.seed, given.short)
    console.print(_table(lines))
    for line in lines:
        for complaint in line.complaints:
            console.print(f"{line.fault}: {complaint}", markup=False, highlight=False)
    failed = [line.fault for line in lines if not line.passed] + broken
    what = f"seed {given.seed}, {sum(line.injections for line in lines):,} injections, "
    what += f"{sum(line.records for line in lines):,} records, {(time.monotonic() - started) / 60:.1f} minutes"
    console.print(f"FAIL: {', '.join(failed)} ({what})" if failed else f"pass: {len(lines)} faults ({what})")
    return 1 if failed else 0


def _perform(console: Console, chosen: Sequence[Scenario], seed: int, short: bool) -> tuple[list[Line], list[str]]:
    """The lines of those that came to an end, and the names of those that did not."""
    lines, broken = [], []
    with _progress(console) as progress, Stage() as stage:
        task = progress.add_task("faults", total=len(chosen))
        for scenario in chosen:
            progress.update(task, description=scenario.name)
            try:
                lines.append(perform(stage, scenario, scenario.short if short else scenario.long, seed))
                progress.console.print(_said(lines[-1]), markup=False, highlight=False)
            except Exception:
                broken.append(scenario.name)
                what = f"{scenario.name}: {traceback.format_exc()}"
                progress.console.print(what[:8_000], markup=False, highlight=False)
            progress.advance(task)
    return lines, broken


def _said(line: Line) -> str:
    verdict = "ok" if line.passed else "WRONG"
    return (
        f"{line.fault:<26}{verdict:<7}{line.injections:>8,} injections {line.records:>9,} records {line.seconds:7.1f} s"
    )


def _table(lines: Sequence[Line]) -> Table:
    table = Table(title="Faults")
    table.add_column("fault")
    for name in ("injections", "records", "seconds", *COUNTS):
        table.add_column(name.replace("misjoined", "mis-joined"), justify="right")
    table.add_column("identical")
    for line in lines:
        counts = [str(getattr(line, name)) for name in COUNTS]
        numbers = (f"{line.injections:,}", f"{line.records:,}", f"{line.seconds:.1f}", *counts)
        table.add_row(line.fault, *numbers, "yes" if line.identical else "NO")
    return table


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.stack.faults", description="Break everything, lose nothing.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000), help="of world and faults")
    parser.add_argument("--only", action="append", choices=tuple(SCENARIOS), help="this fault; may be repeated")
    parser.add_argument("--short", action="store_true", help="the short form, as in the tests")
    return parser


if __name__ == "__main__":
    sys.exit(main())
