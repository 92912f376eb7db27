"""What ``bench_rank`` looks at while the installation grows: stored decisions, and contents outside the campaign asked
about. Both must leave the cost of a request as it is; building the snapshot and its memory may grow, and are reported.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import psycopg

from infra.clock import DAY, system_clock
from infra.database import open_database
from infra.settings import Settings
from infra.tables import decisions
from ingestion.events import Content
from reward_models.serving.snapshot import Snapshots
from tests.benchmarks import load, rank_servers, rank_world
from tests.benchmarks.rank_world import World

_PER_CAMPAIGN = 200
_MIDDLE = 50
_OTHER = {
    "decision_id": "md5(decision_id || k)",
    "unit": "'u1:' || md5(k::text)",
    "candidates": "'[]'",
    "decided_at": "decided_at - (k % 90) * {day}",
    "batch_no": "1",
}
"""Columns of a copy that are not the original's."""
_NAMES = [column.name for column in decisions.columns]


def _quoted(name: str) -> str:
    return f'"{name}"'


_COPIES = (
    f"INSERT INTO decisions ({', '.join(map(_quoted, _NAMES))}) "
    f"SELECT {', '.join(_OTHER.get(name, _quoted(name)) for name in _NAMES)} "
    "FROM (SELECT * FROM decisions WHERE batch_no IS NOT NULL LIMIT 1) AS one, generate_series(1, {count}) AS k"
)


def stored_decisions(settings: Settings, counts: Sequence[int], cost: Callable[[], float]) -> dict[str, float]:
    """Microseconds of CPU per request, by how many decisions are stored."""
    found = {}
    for count in counts:
        with psycopg.connect(settings.database, autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM decisions").fetchone()
            assert row is not None
            missing = max(0, count - int(row[0]))
            connection.execute(_COPIES.format(day=DAY, count=missing))
            connection.execute("VACUUM ANALYZE decisions")
        found[str(max(count, int(row[0])))] = cost()
    return found


def known_contents(
    folder: Path,
    postgres: str,
    world: World,
    counts: Sequence[int],
    cost: Callable[[rank_servers.Target], float],
    drafts: Callable[[Path, rank_servers.Target, str], dict[str, float]],
) -> dict[str, dict[str, float]]:
    """Time and memory of the snapshot, microseconds of CPU per request, and milliseconds of one that brings drafts, by
    contents of other running campaigns."""
    found = {}
    for count in counts:
        settings = rank_world.installation(folder / f"known-{count}", postgres, world, _others(count))
        _show(settings)
        header = rank_world.key_header(settings)
        questions = rank_world.questions(_MIDDLE, 100)
        requests = load.write_requests(folder / f"known-{count}-requests", "/v1/rank", questions, header)
        built = _built(settings)
        with rank_servers.product(settings) as server:
            memory = server.memory_mb()
            target = rank_servers.Target(server, {_MIDDLE: requests})
            found[str(count)] = {
                **built,
                "server_mb": round(memory),
                "request_us": cost(target),
                "drafts_p50": drafts(settings.home, target, header)["p50"],
            }
    return found


def snapshot_cost(home: Path, database_url: str) -> dict[str, float]:
    """Build a snapshot in this process: seconds, and what it takes of memory, MB."""
    settings = Settings(home=home, database_url=database_url)
    engine = open_database(settings.database)
    before, begun = _peak_mb(), time.perf_counter()
    Snapshots(engine, settings.bundles).refresh()
    return {"build_seconds": round(time.perf_counter() - begun, 3), "build_mb": round(_peak_mb() - before)}


def _built(settings: Settings) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_rank", "snapshot", str(settings.home), settings.database]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


def _others(count: int) -> list[Content]:
    """Contents of further campaigns, 200 in each."""
    rng = np.random.default_rng(5)
    found: list[Content] = []
    while len(found) < count:
        found += rank_world.contents(rng, f"other{len(found):06d}", min(_PER_CAMPAIGN, count - len(found)))
    return found


def _show(settings: Settings) -> None:
    """Each content has been shown on the last days: the statistics grow with the contents."""
    today = system_clock() // DAY
    with psycopg.connect(settings.database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO content_stats (campaign_id, content_id, metric, model_version, bucket, exposures, successes, "
            "\"sum\", sum_squares, sum_squares_high, expected) SELECT campaign_id, content_id, 'click', "
            f"'{rank_world.LOOP}-1', {today} - k, 100, 5, 5000000, 500000000, 0, 5000000 "
            "FROM contents, generate_series(0, 2) AS k"
        )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
