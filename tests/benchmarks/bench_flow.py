"""Retrain flow: what Prefect costs, over the same functions called plainly.

Pairs of three runs in a row, in changing order, on copies of one data folder: the flow under a running Prefect server (tasks,
states, logs, two artifacts), and ``pipelines.learning.retrain`` with its steps called as they are. MLflow is away in both:
each run would log to it alike. What is compared is a run of a process that has imported everything, as in a worker that
retrains many loops; what a process costs that a worker starts for one run is shown beside it: the import of Prefect.

Counted is the processor's time of this process, of all that it starts and of Prefect's server, so that what else the machine does
is left out; seconds on the clock are among the figures. Overhead = flow − plain, per pair; the median is told, with its range over the pairs.
"""

import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import track

from infra.database import open_database
from infra.logs import configure_logs
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.spending import Meter, Spent
from tests.pipelines.worlds import NOW, populate
from tests.stack.prefect_server import PrefectServer

PAIRS, DECISIONS = 4, 5_000
QUICK_PAIRS, QUICK_DECISIONS = 2, 3_000
GOAL_SECONDS = 5.0
"""What nobody minds who retrains once an hour."""
IN_A_ROW = 3
SETTLE_SECONDS = 15.0
"""After runs in a row, counted too: the server still writes down what it was told, which must not be put to the others' account."""
AWAY = "http://127.0.0.1:9"
LOOP = "subjects"


def main() -> None:
    """Print the pairs, the overhead, and the JSON line."""
    configure_logs("error")  # that MLflow is away is known
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    quick = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
    pairs, decisions = (QUICK_PAIRS, QUICK_DECISIONS) if quick else (PAIRS, DECISIONS)
    with tempfile.TemporaryDirectory(prefix="rewardloop-flow-") as folder:
        home = world(Path(folder) / "home", decisions)
        server = PrefectServer(Path(folder) / "server")
        server.start()
        try:
            os.environ |= server.environment(home, REWARDLOOP_CLOCK="simulated", REWARDLOOP_MLFLOW_TRACKING_URI=AWAY)
            measure(home, pairs, decisions)
        finally:
            server.stop()


def measure(home: Path, pairs: int, decisions: int) -> None:
    """All pairs, after one of each that is not counted."""
    plain, flow = runners()
    for number, run in enumerate((plain, flow)):
        spent(run, home, f"warm-{number}")
    found: list[tuple[Spent, Spent]] = []
    for number in track(range(pairs), "pairs", console=Console(stderr=True)):
        order = (plain, flow) if number % 2 else (flow, plain)
        taken = {run: spent(run, home, f"{number}-{place}") for place, run in enumerate(order)}
        found.append((taken[plain], taken[flow]))
    print(f"Retrain of {decisions:,} decisions, seconds of the processor: plainly, as a flow, more")
    for a, b in found:
        print(f"  {a.processor:8.2f} {b.processor:8.2f} {b.processor - a.processor:+8.2f}")
    over = [b.processor - a.processor for a, b in found]
    middle, usual = statistics.median(over), statistics.median(a.processor for a, _ in found)
    goal = Goal(
        "processor seconds that Prefect adds to a retrain", middle, f"<= {GOAL_SECONDS}", (min(over), max(over))
    )
    finish(
        "flow",
        [goal],
        {
            "decisions": decisions,
            "pairs": pairs,
            "plain_seconds": usual,
            "flow_seconds": statistics.median(b.processor for _, b in found),
            "overhead_share": middle / usual,
            "clock_seconds_more": statistics.median(b.clock - a.clock for a, b in found),
            "import_of_prefect_seconds": imported("pipelines.flows.retrain") - imported("pipelines.learning"),
        },
    )


def world(home: Path, decisions: int) -> Path:
    """A data folder with one loop, whose clock stands still."""
    home.mkdir()
    engine = open_database(Settings(home=home).database)
    migrate(engine)
    populate(
        engine, Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))}), decisions=decisions
    )
    engine.dispose()
    (home / "clock").write_text(str(NOW))
    return home


def runners() -> tuple[Callable[[], object], Callable[[], object]]:
    """The plain functions, and the flow. Imported here: Prefect reads its environment then."""
    from infra.settings import load_settings
    from pipelines import learning
    from pipelines.flows.retrain import retrain

    return (lambda: learning.retrain(learning.open_bench(load_settings()), LOOP)), (lambda: retrain(LOOP))


def spent(run: Callable[[], object], home: Path, name: str) -> Spent:
    """What one of ``IN_A_ROW`` runs takes, each on its copy of the folder; each must end with a version."""
    copies = [home.with_name(f"{name}-{number}") for number in range(IN_A_ROW)]
    for copy in copies:
        shutil.copytree(home, copy)
    meter = Meter()
    for copy in copies:
        os.environ["REWARDLOOP_HOME"] = str(copy)
        run()
    clock = meter.read().clock
    time.sleep(SETTLE_SECONDS)
    processor = meter.read().processor
    for copy in copies:
        if not (copy / "models" / LOOP / f"{LOOP}-1").exists():
            raise SystemExit(f"{copy.name}: nothing was trained")
        shutil.rmtree(copy)
    return Spent(processor / IN_A_ROW, clock / IN_A_ROW)


def imported(module: str) -> float:
    """Processor seconds that a fresh interpreter takes to import a module, the less of two."""
    return min(_once(module) for _ in range(2))


def _once(module: str) -> float:
    before = os.times()
    subprocess.run((sys.executable, "-c", f"import {module}"), check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
