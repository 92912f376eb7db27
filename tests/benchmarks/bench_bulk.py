"""Bulk ranking for a send: an audience file in, stored decisions with tokens out, on a durable PostgreSQL.

100,000 customers, 20 contents, the model of ``bench_rank`` (300 trees of 31 leaves, 19 features of the context), holdout
on. Every customer has a context of their own, which is the most there can be to compute; a second audience has the 500
segments that customers usually fall into. Measured whole: the file read, scored, drawn, stored, committed and written.

Interleaved with it: the same recipients one by one (``ranker.rank``, stored 500 in a commit), which is what calls of
``/v1/rank`` do without their HTTP; the send again, when everybody is decided; and the floor, a COPY of ready rows.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from infra import tables
from infra.clock import system_clock
from infra.database import chunks, insert_all, open_database, writing
from infra.ids import uuid7
from infra.secrets import load_secrets
from infra.settings import Settings
from pipelines.audiences.deciding import Desk, Report, Send, decide
from reward_models.serving.decision_log import insert_decisions
from reward_models.serving.many import rank_many
from reward_models.serving.ranker import Request, rank
from reward_models.serving.snapshot import Snapshot, Snapshots
from tests.benchmarks import rank_world
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.servers import durable_postgres, new_database

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
UNITS = 10_000 if QUICK else 100_000
ONE_BY_ONE = 500 if QUICK else 3_000
REPEATS = 2 if QUICK else 3
SEGMENTS = 500
SIZE = 20


def main() -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as name, durable_postgres() as server:
        folder = Path(name)
        world = rank_world.make()
        desks = {
            "PostgreSQL": _desk(Settings(home=folder / "pg", database_url=new_database(server, "bulk")), world),
            "SQLite": _desk(Settings(home=folder / "sqlite"), world),
        }
        own, segments = _audience(folder / "own.ndjson", UNITS), _audience(folder / "segments.ndjson", SEGMENTS)
        rates: dict[str, list[float]] = {}
        for repeat in range(REPEATS):
            measured = _measured(desks, own, segments, folder, f"r{repeat}")
            for kind, rate in measured.items():
                rates.setdefault(kind, []).append(rate)
                print(f"  repeat {repeat + 1}: {kind}: {rate:,.0f} per second", flush=True)
        for desk in desks.values():
            desk.engine.dispose()
    _finish(rates)


def _measured(desks: dict[str, Desk], own: Path, segments: Path, folder: Path, name: str) -> dict[str, float]:
    desk = desks["PostgreSQL"]
    found: dict[str, float] = {}
    seconds, processor = _timed(lambda: _sent(desk, own, folder, name, UNITS))
    found["customers"], found["customers, processor seconds of ours"] = UNITS / seconds, UNITS / processor
    seconds, _ = _timed(lambda: _sent(desk, segments, folder, f"{name}-segments", UNITS))
    found["customers in segments"] = UNITS / seconds
    seconds, _ = _timed(lambda: _sent(desk, own, folder, name, 0))
    found["customers decided before"] = UNITS / seconds
    found |= _alone(desk, own)
    seconds, _ = _timed(lambda: _sent(desks["SQLite"], own, folder, f"{name}-sqlite", UNITS))
    found["customers, SQLite"] = UNITS / seconds
    return found


def _sent(desk: Desk, audience: Path, folder: Path, name: str, decided: int) -> Report:
    send = Send(name, f"c{SIZE}", audience, folder / f"{name}.csv", resume=True)
    report = decide(desk, send, lambda *_: None)
    if (report.decided, report.rejected, report.rows) != (decided, 0, UNITS):
        raise SystemExit(f"{name}: {decided} of {UNITS} should have been decided: {report}")
    return report


def _alone(desk: Desk, audience: Path) -> dict[str, float]:
    """The same recipients one by one, and the floor: their rows, ready, copied in."""
    snapshot = Snapshots(desk.engine, desk.settings.bundles).refresh()
    limit = desk.settings.candidate_limit
    requests = _requests(audience, ONE_BY_ONE)
    rank(snapshot, requests[0], desk.secrets, limit)

    def alone() -> None:
        for some in chunks(requests, 500):
            made = [rank(snapshot, each, desk.secrets, limit) for each in some]
            with writing(desk.engine) as connection:
                insert_decisions(connection, made)

    seconds, _ = _timed(alone)
    return {"customers one by one": ONE_BY_ONE / seconds, "floor: rows copied": _copied(desk, snapshot, audience)}


def _copied(desk: Desk, snapshot: Snapshot, audience: Path) -> float:
    rows = rank_many(snapshot, _requests(audience, 8_192), desk.secrets, desk.settings.candidate_limit)
    columns = [str(column.name) for column in tables.decisions.columns if column.name != "batch_no"]

    def copy() -> None:
        for some in chunks(rows, 4_096):
            with writing(desk.engine) as connection:
                insert_all(
                    connection, tables.decisions, {name: [getattr(row, name) for row in some] for name in columns}
                )

    seconds, _ = _timed(copy)
    return len(rows) / seconds


def _requests(audience: Path, count: int) -> list[Request]:
    with audience.open("rb") as file:
        rows = [msgspec.json.decode(line) for _, line in zip(range(count), file, strict=False)]
    now = system_clock()
    return [
        Request(
            decision_id=uuid7(now),
            request_digest="0" * 64,
            loop_id=rank_world.LOOP,
            campaign_id=f"c{SIZE}",
            decided_at=now,
            unit=row["unit"],
            context=row["context"],
        )
        for row in rows
    ]


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of our processor."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def _desk(settings: Settings, world: rank_world.World) -> Desk:
    rank_world.install(settings, world)
    desk = Desk(open_database(settings.database), load_secrets(settings), settings, system_clock)
    loop = Snapshots(desk.engine, settings.bundles).refresh().loops[rank_world.LOOP]
    if loop.served is None:
        raise SystemExit(f"The model is not served, so there is nothing to measure: {loop.fault}")
    return desk


def _audience(path: Path, contexts: int) -> Path:
    known = rank_world.contexts(contexts)
    names = [f"x{number:02d}" for number in range(len(known[0]))]
    of = np.random.default_rng(7).permutation(UNITS) % contexts
    lines = [
        {"unit": f"customer-{number}", "context": dict(zip(names, known[place], strict=True))}
        for number, place in enumerate(of.tolist())
    ]
    path.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    return path


def _finish(rates: dict[str, list[float]]) -> None:
    middle = {kind: round(median(found), 1) for kind, found in rates.items()}
    sent = rates["customers"]
    times = [one / alone for one, alone in zip(sent, rates["customers one by one"], strict=True)]
    finish(
        "bulk",
        [
            Goal(
                "customers per second, PostgreSQL",
                middle["customers"],
                ">= 5000",
                (round(min(sent), 1), round(max(sent), 1)),
            )
        ],
        {
            "customers": UNITS,
            "contents": SIZE,
            "per second": middle,
            "times as fast as one by one": round(median(times), 2),
        },
    )


if __name__ == "__main__":
    main()
