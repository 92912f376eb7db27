"""Retrain flow: what Prefect costs, over the same functions called plainly.

Pairs, in turn and in changing order, on copies of one data folder: the flow under a running Prefect server (tasks,
states, logs, two artifacts), and ``pipelines.learning.retrain`` with its steps called as they are. MLflow is away in both:
each run would log to it alike. What is compared is a run of a process that has imported everything, as in a worker that
retrains many loops; what a process costs that a worker starts for one run is shown beside it: the import of Prefect.

Overhead = flow − plain, per pair; the median is told, with its range over the pairs.
"""

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
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from tests.benchmarks.harness import Goal, finish
from tests.pipelines.worlds import NOW, populate
from tests.stack.prefect_server import PrefectServer

PAIRS, DECISIONS = 9, 20_000
QUICK_PAIRS, QUICK_DECISIONS = 3, 3_000
GOAL_SECONDS = 5.0
"""What nobody minds who retrains once an hour."""
AWAY = "http://127.0.0.1:9"
LOOP = "subjects"


def main() -> None:
    """Print the pairs, the overhead, and the JSON line."""
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
        seconds(run, home, f"warm-{number}")
    found: list[tuple[float, float]] = []
    for number in track(range(pairs), "pairs", console=Console(stderr=True)):
        order = (plain, flow) if number % 2 else (flow, plain)
        taken = {run: seconds(run, home, f"{number}-{place}") for place, run in enumerate(order)}
        found.append((taken[plain], taken[flow]))
    over = [b - a for a, b in found]
    print(f"Retrain of {decisions:,} decisions, seconds: plainly, as a flow, more")
    for a, b in found:
        print(f"  {a:8.2f} {b:8.2f} {b - a:+8.2f}")
    middle = statistics.median(over)
    goal = Goal("seconds that Prefect adds to a retrain", middle, f"<= {GOAL_SECONDS}", (min(over), max(over)))
    finish(
        "flow",
        [goal],
        {
            "decisions": decisions,
            "pairs": pairs,
            "plain_seconds": statistics.median(a for a, _ in found),
            "flow_seconds": statistics.median(b for _, b in found),
            "overhead_share": middle / statistics.median(a for a, _ in found),
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


def seconds(run: Callable[[], object], home: Path, name: str) -> float:
    """How long a run takes on a copy of the folder; it must end with a promotion."""
    copy = home.with_name(name)
    shutil.copytree(home, copy)
    os.environ["REWARDLOOP_HOME"] = str(copy)
    began = time.perf_counter()
    run()
    taken = time.perf_counter() - began
    if not (copy / "models" / LOOP / f"{LOOP}-1").exists():
        raise SystemExit(f"{name}: nothing was trained")
    shutil.rmtree(copy)
    return taken


def imported(module: str) -> float:
    """Seconds that a fresh interpreter takes to import a module, the best of three."""
    return min(_once(module) for _ in range(3))


def _once(module: str) -> float:
    began = time.perf_counter()
    subprocess.run((sys.executable, "-c", f"import {module}"), check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
