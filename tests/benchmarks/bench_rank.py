"""POST /v1/rank with everything on against `mlflow models serve` and bare scoring: throughput, latency, cost.

The product is the real server process, one worker, over a durable PostgreSQL: API keys required, decision stored before
it is answered, exact propensities, posterior, holdout, statistics counted every second. The model (``rank_world.py``)
has 300 trees of 31 leaves and 60 features, 40 of them the content's. In the same run, one after another:

- `mlflow models serve` with the same model and the same rows, as JSON;
- bare apps (``floors.py``) that only score: LightGBM and compiled trees, with rows that come as JSON and with rows that
  are there already. The second is the stricter floor: it is asked nothing and answers only scores.

*Closed loop* at 1, 16 and 64 connections; *open loop* at fixed rates, latency counted from when a request was due.
CPU per request is the server's own, and PostgreSQL's beside it: on a busy machine it says more than rates do.

``REWARDLOOP_BENCH_QUICK=1`` takes a tenth of everything.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Thread

import msgspec
import psycopg

from infra.settings import Settings
from tests.benchmarks import floors, load, rank_servers, rank_world
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.load import Load, Plan
from tests.benchmarks.rank_growth import known_contents, snapshot_cost, stored_decisions
from tests.benchmarks.rank_servers import Server, Target
from tests.benchmarks.rank_world import SIZES, World
from tests.benchmarks.servers import durable_postgres

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SECONDS = 0.8 if QUICK else 2.5
REPEATS = 1 if QUICK else 2
CONNECTIONS = (1, 16, 64)
RATES = (100, 300) if QUICK else (100, 300, 600, 1_000)
"""Of the open loop, requests per second."""
KNOWN = (10, 1_000, 10_000) if QUICK else (10, 1_000, 100_000)
STORED = (10_000, 50_000) if QUICK else (10_000, 300_000)
BODIES = 200 if QUICK else 1_000
COMMITS = 100
MIDDLE = 50
MLFLOW = "mlflow models serve"
PRODUCT = "Rewardloop"
FLOORS = {
    "LightGBM, rows at hand": ("lightgbm", "ready"),
    "LightGBM, rows as JSON": ("lightgbm", "rows"),
    "compiled trees, rows at hand": ("compiled", "ready"),
    "compiled trees, rows as JSON": ("compiled", "rows"),
    "masked trees, rows at hand": ("masks", "ready"),
}


@dataclass
class Cell:
    """What the repeats of one measurement found."""

    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Microseconds per request, of the server's processes."""
    database: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Medians: requests per second, milliseconds, microseconds."""
        found = {name: median(getattr(one, name) for one in self.loads) for name in ("rate", "p50", "p99", "failed")}
        found["cpu_us"] = round(median(self.cpu), 1)
        return found | ({"database_us": round(median(self.database), 1)} if any(self.database) else {})


Cells = dict[tuple[str, int, int], Cell]
"""By server, candidates and connections."""


def main() -> None:
    """Run the benchmark, or one measurement of it when called by itself."""
    if len(sys.argv) == 4 and sys.argv[1] == "snapshot":
        print(msgspec.json.encode(snapshot_cost(Path(sys.argv[2]), sys.argv[3])).decode())
        return
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as name, durable_postgres() as postgres:
        folder = Path(name)
        world = rank_world.make()
        rank_world.save(world, folder)
        floors.compile_trees(folder)
        settings = rank_world.installation(folder / "main", postgres, world)
        header = rank_world.key_header(settings)
        with ExitStack() as running:
            targets = _targets(running, folder, world, settings, header)
            cells = _closed(targets)
            product = targets[PRODUCT]
            opened = {str(rate): _ask(product, MIDDLE, 64, rate).figures() for rate in RATES}
            commit = _commit(settings)
            drafts = _drafts(folder, product, header)
            memory = round(product.server.memory_mb())
            workers = _two(running, settings, product)
            stored = stored_decisions(settings, STORED, lambda: _cost(product))
        known = known_contents(folder, postgres, world, KNOWN, _cost, _drafts)
    figures = {
        "closed loop, by server, candidates and connections": {
            ", ".join(map(str, key)): cell.figures() for key, cell in cells.items()
        },
        f"open loop, {MIDDLE} candidates, by requests per second": opened,
        "commit of one decision by itself, milliseconds": commit,
        "5 unseen drafts of 300 words, one connection": drafts,
        "memory of the server, MB": memory,
        f"two workers, {MIDDLE} candidates, 2 x 16 connections": workers,
        "CPU microseconds per request, by stored decisions": stored,
        "by contents known": known,
    }
    finish("rank", [*_against_mlflow(cells), *_against_floors(cells), *_flatness(stored, known)], figures)


def _targets(running: ExitStack, folder: Path, world: World, settings: Settings, header: str) -> dict[str, Target]:
    """Every server, started, with its requests."""
    questions = {
        size: load.write_requests(folder / f"rank-{size}", "/v1/rank", rank_world.questions(size, BODIES), header)
        for size in SIZES
    }
    rows = {size: rank_world.rows_of(world, size, 20) for size in SIZES}
    found = {PRODUCT: Target(running.enter_context(rank_servers.product(settings)), questions)}
    invoked = {MIDDLE: load.write_requests(folder / "mlflow-requests", "/invocations", rows[MIDDLE])}
    found[MLFLOW] = Target(running.enter_context(rank_servers.mlflow_models_serve(folder)), invoked)
    servers: dict[str, Server] = {}
    for name, (kind, way) in FLOORS.items():
        if kind == "compiled" and not (folder / "trees.so").exists():
            continue
        server = servers.get(kind) or running.enter_context(rank_servers.floor(folder, kind))
        servers[kind] = server
        bodies = {size: some if way == "rows" else [b"{}"] for size, some in rows.items()}
        found[name] = Target(
            server,
            {
                size: load.write_requests(
                    folder / f"{kind}-{way}-{size}", "/rows" if way == "rows" else f"/ready/{size}", some
                )
                for size, some in bodies.items()
            },
        )
    return found


def _closed(targets: Mapping[str, Target]) -> Cells:
    """Every server in turn, in every repeat."""
    cells: Cells = {}
    for _ in range(REPEATS):
        for connections in CONNECTIONS:
            for size in SIZES:
                for name, target in targets.items():
                    if size in target.requests:
                        cell = cells.setdefault((name, size, connections), Cell())
                        _measure(target, size, connections, cell)
                        _say(f"{name}, {size} candidates, {connections} connections", cell.loads[-1], cell.cpu[-1])
    return cells


def _measure(target: Target, size: int, connections: int, cell: Cell, rate: float = 0.0) -> None:
    server = target.server
    cpu, database = server.cpu_seconds(), server.database_seconds()
    found = load.run(Plan(server.address, target.requests[size], connections, SECONDS, rate))
    asked = found.sent
    cell.loads.append(found)
    cell.cpu.append((server.cpu_seconds() - cpu) / asked * 1e6)
    cell.database.append((server.database_seconds() - database) / asked * 1e6)


def _ask(target: Target, size: int, connections: int, rate: float = 0.0) -> Cell:
    cell = Cell()
    _measure(target, size, connections, cell, rate)
    return cell


def _cost(target: Target) -> float:
    """CPU microseconds of a request, the server's and the database's."""
    figures = _ask(target, MIDDLE, 16).figures()
    return round(figures["cpu_us"] + figures.get("database_us", 0.0), 1)


def _two(running: ExitStack, settings: Settings, first: Target) -> dict[str, float]:
    """Requests per second of one server and of two over the same database, each asked by a generator of its own."""
    second = Target(running.enter_context(rank_servers.product(settings)), first.requests)
    one = _ask(first, MIDDLE, 16).loads[0].rate
    cells = (Cell(), Cell())
    threads = [
        Thread(target=_measure, args=(target, MIDDLE, 16, cell))
        for target, cell in zip((first, second), cells, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"one": one, "two": round(sum(cell.loads[0].rate for cell in cells), 1)}


def _commit(settings: Settings) -> dict[str, float]:
    """A row as large as a decision, inserted and committed alone: what no answer at one connection can be quicker than."""
    text = "x" * 10_000
    seconds = []
    with psycopg.connect(settings.database, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS benchmark_commits (id serial PRIMARY KEY, row text)")
        for _ in range(COMMITS):
            begun = time.perf_counter()
            connection.execute("INSERT INTO benchmark_commits (row) VALUES (%s)", [text])
            seconds.append(time.perf_counter() - begun)
        connection.execute("DROP TABLE benchmark_commits")
    ordered = sorted(seconds)
    return {"p50": round(ordered[COMMITS // 2] * 1e3, 3), "p99": round(ordered[-1 - COMMITS // 100] * 1e3, 3)}


def _drafts(folder: Path, product: Target, header: str) -> dict[str, float]:
    """Drafts that nobody has seen come with every request: they are registered, read as text and ranked."""
    bodies = rank_world.drafts(BODIES)
    requests = load.write_requests(folder / "drafts", "/v1/rank", bodies, header)
    found = _ask(Target(product.server, {0: requests}), 0, 1)
    return found.figures()


def _against_mlflow(cells: Cells) -> list[Goal]:
    """At 50 candidates, per number of connections: throughput, p50 and p99."""
    goals = []
    for connections in CONNECTIONS:
        ours, theirs = cells[PRODUCT, MIDDLE, connections], cells[MLFLOW, MIDDLE, connections]
        where = f"{MIDDLE} candidates, {connections} connections"
        goals.append(_goal(f"throughput, times {MLFLOW}, {where}", _ratios(ours, theirs, "rate"), ">= 7"))
        for name in ("p50", "p99"):
            shares = [1.0 / ratio for ratio in _ratios(theirs, ours, name)]
            goals.append(_goal(f"{name}, share of {MLFLOW}'s, {where}", shares, "<= 0.1667"))
    return goals


def _against_floors(cells: Cells) -> list[Goal]:
    """At 16 and 64 connections, every size: throughput against each floor."""
    return [
        _goal(
            f"throughput, times {name}, {size} candidates, {connections} connections",
            _ratios(cells[PRODUCT, size, connections], cells[name, size, connections], "rate"),
            ">= 1",
        )
        for name in FLOORS
        for connections in CONNECTIONS[1:]
        for size in SIZES
        if (name, size, connections) in cells and not name.startswith("masked")
    ]


def _flatness(stored: Mapping[str, float], known: Mapping[str, Mapping[str, float]]) -> list[Goal]:
    """Cost of a request must not grow with what it does not concern; what is within 15 % is noise."""
    by_stored, by_known = list(stored.values()), [one["request_us"] for one in known.values()]
    return [
        Goal(f"CPU per request, {what}", round(many / few, 3), "<= 1.15")
        for what, few, many in (
            ("over many stored decisions, times over few", by_stored[0], by_stored[-1]),
            ("with many contents elsewhere, times with few", by_known[0], by_known[-1]),
        )
    ]


def _ratios(ours: Cell, theirs: Cell, name: str) -> list[float]:
    pairs = zip(ours.loads, theirs.loads, strict=True)
    return [round(getattr(mine, name) / max(getattr(other, name), 1e-9), 3) for mine, other in pairs]


def _goal(name: str, values: list[float], goal: str) -> Goal:
    return Goal(name, round(median(values), 3), goal, (min(values), max(values)))


def _say(what: str, found: Load, cpu: float) -> None:
    print(
        f"  {what}: {found.rate:,.0f}/s, p50 {found.p50} ms, p99 {found.p99} ms, {cpu:,.0f} µs of CPU, "
        f"{found.failed} failed",
        flush=True,
    )


if __name__ == "__main__":
    main()
