"""From the topic to outcomes in PostgreSQL: speed, its floors, flatness with size, and how fresh the scorer is.

A real broker, a durable PostgreSQL (``servers.RECOMMENDED``) and the worker (``rewardloop worker``) share the machine.
In every repeat, one after another over the same records:

1. floor: kafka-python polls them and does nothing;
2. product: a worker reads them into an empty database. Counted from the apply of its first batch to the commit of its
   last; the first batch's records are not counted, because they were read before;
3. floor: COPY of the rows that came out of it into the same tables of an empty database, as many per commit.

*Flatness*: one more stream is read by a worker over ``SMALL`` and over ``LARGE`` stored records; the large store is the
small one, a hundred copies of it, each a day older. The stream's first ``SMALL`` records warm up: after a checkpoint
PostgreSQL logs every page whole when it is first touched, which over a large store is every page. At full speed that
passes within a minute of the half hour to the next checkpoint; the speed during it is reported beside. *Freshness*: records are sent at ``STEADY`` a second; a record is
visible when the scorer (``Snapshots.refresh``, called as often as the server calls it) holds the batch that counted it.

``REWARDLOOP_BENCH_QUICK=1`` takes a tenth of everything.
"""

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import msgspec
import psycopg
from kafka import KafkaConsumer, TopicPartition
from sqlalchemy import Engine, make_url

from infra.broker import Message, Partition, Producer, ensure_topics, log_bounds, partitions_of
from infra.clock import DAY, format_time, system_clock
from infra.database import open_database, writing
from infra.deploy.kafka import LocalKafka
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch, Decision
from ingestion.loops import put_loop
from ingestion.stream.messages import encode_event
from ingestion.stream.topics import all_topics, topics
from reward_models.serving.snapshot import Snapshots
from tests.benchmarks import history, stream
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.servers import durable_postgres, new_database
from tests.benchmarks.stream import Fact

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
RECORDS = 50_000 if QUICK else 500_000
SMALL = 20_000 if QUICK else 100_000
COPIES = 10 if QUICK else 125
LARGE = SMALL * COPIES
REPEATS = 1 if QUICK else 3
STEADY, STEADY_SECONDS = 2_000, 10 if QUICK else 60
CHUNK = 5_000
TABLES = ("decisions", "event_keys", "events", "attributions", "outcomes", "content_stats")
PATIENCE_SECONDS = 1_800


class Bench(NamedTuple):
    """Where things are while the benchmark runs."""

    folder: Path
    brokers: str
    server: str


class Run(NamedTuple):
    """What one worker did."""

    rate: float
    warming: float
    """Records per second before the warm-up was over; 0 without one."""
    cpu_seconds: float
    database_seconds: float


def main() -> None:
    """Run the benchmark."""
    with (
        tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder,
        durable_postgres() as server,
        LocalKafka() as kafka,
    ):
        bench = Bench(Path(folder), kafka.bootstrap_servers, server)
        goals, figures = _speed(bench)
        more_goals, more_figures = _flatness(bench)
        fresh, delays = _freshness(bench)
    finish("ingest", [*goals, *more_goals, fresh], figures | more_figures | delays)


def _speed(bench: Bench) -> tuple[list[Goal], dict[str, Any]]:
    facts = stream.records(RECORDS)
    topic = _publish(bench, "speed", facts)
    rates: dict[str, list[float]] = {"poll": [], "product": [], "copy": []}
    runs = []
    for repeat in range(REPEATS):
        rates["poll"].append(_poll(bench, topic))
        settings = _installation(bench, topic, f"speed-{repeat}")
        runs.append(_work(bench, settings, RECORDS))
        rates["product"].append(runs[-1].rate)
        rates["copy"].append(_copy(bench, settings, f"copy-{repeat}"))
        _say(f"repeat {repeat + 1}", {name: round(of[-1]) for name, of in rates.items()})
    shares = [
        product / min(poll, copy)
        for poll, product, copy in zip(rates["poll"], rates["product"], rates["copy"], strict=True)
    ]
    figures = {
        "records": RECORDS,
        "raw poll, records per second": round(median(rates["poll"])),
        "COPY into the same tables, records per second": round(median(rates["copy"])),
        "worker, CPU microseconds per record": round(median(run.cpu_seconds for run in runs) / RECORDS * 1e6, 1),
        "PostgreSQL, CPU microseconds per record": round(
            median(run.database_seconds for run in runs) / RECORDS * 1e6, 1
        ),
    }
    return [
        _goal("records per second, topic to outcomes", rates["product"], 20_000),
        _goal("share of the slower floor", shares, 0.5, 3),
    ], figures


def _flatness(bench: Bench) -> tuple[list[Goal], dict[str, Any]]:
    """The same records over a small and over a large store."""
    runs = {}
    topic = _publish(bench, "flat", stream.records(2 * SMALL, seed=2, begin=stream.ORIGIN + DAY))
    for name, copies in (("small", 0), ("large", COPIES)):
        settings = _installation(bench, topic, f"flat-{name}")
        secrets = load_secrets(settings)
        with _engine(settings) as engine:
            for facts in _chunks(stream.records(SMALL)):
                store.apply(engine, _batch(facts), secrets, system_clock())
        history.multiply(settings.database, copies)
        runs[name] = _work(bench, settings, 2 * SMALL, warm=SMALL)
        _say(name, {"stored": SMALL * (1 + copies), "records per second": round(runs[name].rate)})
    share = round(runs["large"].rate / runs["small"].rate, 3)
    figures = {}
    for name, size in (("small", SMALL), ("large", LARGE + SMALL)):
        figures[f"records per second over {size:,} stored"] = round(runs[name].rate)
        figures[f"over {size:,} stored, the first {SMALL:,} after a checkpoint"] = round(runs[name].warming)
    return [Goal(f"speed over {LARGE:,} stored records, of that over {SMALL:,}", share, ">= 0.8")], figures


def _freshness(bench: Bench) -> tuple[Goal, dict[str, Any]]:
    """Send at a steady rate; a thread looks as the server does; each event's batch tells when it was visible."""
    facts = stream.records(STEADY * STEADY_SECONDS, seed=3)
    topic = _publish(bench, "fresh", [])
    settings = _installation(bench, topic, "fresh")
    sent: dict[tuple[str, str], float] = {}
    seen: list[tuple[int, float]] = []
    done = threading.Event()
    with _engine(settings) as engine, _worker(settings):
        _wait_until_read(settings, 0)
        snapshots = Snapshots(engine, settings.home / "bundles")
        looking = threading.Thread(target=_look, args=(snapshots, settings.tick_seconds, seen, done))
        looking.start()
        _send_steadily(settings, facts, sent)
        _wait_until_read(settings, len(facts))
        time.sleep(2 * settings.tick_seconds)
        done.set()
        looking.join()
        with psycopg.connect(settings.database) as connection:
            batches = {row[:2]: row[2] for row in connection.execute("SELECT source, event_id, batch_no FROM events")}
    delays = sorted(_visible(seen, batch_no) - sent[key] for key, batch_no in batches.items())
    cuts = quantiles(delays, n=100)
    goal = Goal(
        f"seconds from the topic to the scorer at {STEADY:,} records per second, p95", round(cuts[94], 3), "<= 2"
    )
    return goal, {"freshness, median seconds": round(cuts[49], 3), "freshness, p99 seconds": round(cuts[98], 3)}


def _look(snapshots: Snapshots, every: float, seen: list[tuple[int, float]], done: threading.Event) -> None:
    while not done.wait(every):
        snapshot = snapshots.refresh()
        seen.append((snapshot.stats_version, time.time()))


def _visible(seen: Sequence[tuple[int, float]], batch_no: int) -> float:
    return next(at for newest, at in seen if newest >= batch_no)


def _send_steadily(settings: Settings, facts: Sequence[Fact], sent: dict[tuple[str, str], float]) -> None:
    """A tenth of a second's worth at a time, each with the moment before it was sent."""
    producer = Producer(settings)
    share = STEADY // 10
    begun = time.time()
    for turn, start in enumerate(range(0, len(facts), share)):
        time.sleep(max(0.0, begun + turn / 10 - time.time()))
        now = time.time()
        some = facts[start : start + share]
        for fact in some:
            if not isinstance(fact, Decision):
                sent.setdefault((fact.source, fact.event_id), now)
        _send(producer, settings.kafka_topic_prefix, some)
    producer.close()


def _work(bench: Bench, settings: Settings, count: int, warm: int = 0) -> Run:
    """Let a worker read ``count`` records into a database that may hold others; the first ``warm`` do not count."""
    with psycopg.connect(settings.database) as connection:
        before = _single(connection, "SELECT coalesce(max(batch_no), 0) FROM batches")
    with _worker(settings) as process:
        _wait_until_read(settings, 0)
        cpu, database = _seconds(process.pid), _database_seconds(bench)
        ended = _wait_until_read(settings, count)
        cpu, database = _seconds(process.pid) - cpu, _database_seconds(bench) - database
    with psycopg.connect(settings.database) as connection:
        (first_at, first_read), (warm_at, warm_read) = (_standing(connection, before, read) for read in (0, warm))
        quarantined = _single(connection, "SELECT sum(quarantined) FROM batches")
        wrong = _single(connection, "SELECT sum(read-applied-duplicate-ignored-pending-quarantined) FROM batches")
    if quarantined or wrong:
        raise SystemExit(f"{quarantined} records were quarantined, {wrong} are in no state")
    warming = (warm_read - first_read) / (warm_at - first_at) * 1e6 if warm else 0.0
    return Run((count - warm_read) / (ended - warm_at / 1e6), warming, cpu, database)


def _standing(connection: psycopg.Connection[Any], before: int, read: int) -> tuple[int, int]:
    """When the batch was applied that passed ``read`` records, and how many had been read with it."""
    row = connection.execute(_PASSED, [before, read]).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


_PASSED = (
    "SELECT at, passed FROM (SELECT at, sum(read) OVER (ORDER BY batch_no) AS passed FROM batches "
    "WHERE batch_no > %s AND read > 0) AS line WHERE passed > %s ORDER BY passed LIMIT 1"
)


@contextmanager
def _worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = str(Path(sys.executable).with_name("rewardloop"))
    with (settings.home / "worker.log").open("wb") as log:
        process = subprocess.Popen([command, "worker"], env=_environment(settings), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _environment(settings: Settings) -> dict[str, str]:
    named = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "kafka_bootstrap_servers": settings.kafka_bootstrap_servers,
        "kafka_topic_prefix": settings.kafka_topic_prefix,
        "kafka_group": settings.kafka_group,
        "sources": msgspec.json.encode(settings.sources).decode(),
        "worker_port": "0",
        "log_level": "warning",
    }
    return os.environ | {f"REWARDLOOP_{name.upper()}": value for name, value in named.items()}


def _wait_until_read(settings: Settings, count: int) -> float:
    """The moment the database stands at ``count`` records of the topics, and the worker has begun."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with psycopg.connect(settings.database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            if _single(connection, "SELECT coalesce(sum(position), 0) FROM offsets") >= count and _is_working(settings):
                return time.time()
            time.sleep(0.02)
    raise SystemExit(f"The worker did not read {count} records: {(settings.home / 'worker.log').read_text()[-2000:]}")


def _is_working(settings: Settings) -> bool:
    return "Worker of group" in (settings.home / "worker.log").read_text()


def _poll(bench: Bench, prefix: str) -> float:
    """Records per second of kafka-python alone."""
    settings = Settings(kafka_bootstrap_servers=bench.brokers, kafka_topic_prefix=prefix)
    names = [topic.name for topic in topics(prefix).read]
    partitions: list[Partition] = [(name, number) for name in names for number in partitions_of(settings, name)]
    left = sum(end - start for start, end in log_bounds(settings, partitions).values())
    consumer = KafkaConsumer(bootstrap_servers=bench.brokers.split(","), enable_auto_commit=False)
    consumer.assign([TopicPartition(*partition) for partition in partitions])
    consumer.seek_to_beginning()
    begun, count = 0.0, -1
    while left > 0:
        found = sum(map(len, consumer.poll(timeout_ms=1_000, max_records=CHUNK).values()))
        left -= found
        if count >= 0:
            count += found
        elif found:
            begun, count = time.perf_counter(), 0
    seconds = time.perf_counter() - begun
    consumer.close()
    return count / seconds


def _copy(bench: Bench, settings: Settings, name: str) -> float:
    """Records per second of COPY, of the rows the worker made, with a commit per chunk of records."""
    with psycopg.connect(settings.database) as source:
        rows = {table: _rows(source, table) for table in TABLES}
    target = _migrated(bench, name)
    commits = RECORDS // CHUNK
    with psycopg.connect(target) as connection:
        begun = time.perf_counter()
        for turn in range(commits):
            for table, of_table in rows.items():
                some = of_table[len(of_table) * turn // commits : len(of_table) * (turn + 1) // commits]
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(b"".join(some))
            connection.commit()
        return RECORDS / (time.perf_counter() - begun)


def _rows(connection: psycopg.Connection[Any], table: str) -> list[bytes]:
    """The table's rows in the format of COPY, as they lie."""
    whole = io.BytesIO()
    with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
        for part in copy:
            whole.write(part)
    return whole.getvalue().splitlines(keepends=True)


def _installation(bench: Bench, prefix: str, name: str) -> Settings:
    """An installation with a database and a consumer group of its own, that knows loop, campaigns and copy."""
    home = bench.folder / name
    home.mkdir()
    settings = Settings(
        home=home,
        database_url=_migrated(bench, name),
        kafka_bootstrap_servers=bench.brokers,
        kafka_topic_prefix=prefix,
        kafka_group=name,
        sources=("shop", "mail"),
    )
    with _engine(settings) as engine:
        with writing(engine) as connection:
            put_loop(connection, stream.LOOP, 0)
        campaigns, contents = stream.definitions()
        store.apply(engine, Batch(campaigns=campaigns, contents=contents), load_secrets(settings), 0)
    return settings


def _migrated(bench: Bench, name: str) -> str:
    url = make_url(new_database(bench.server, name)).set(drivername="postgresql")
    engine = open_database(url.render_as_string(hide_password=False))
    migrate(engine)
    engine.dispose()
    return url.render_as_string(hide_password=False)


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings.database)
    yield engine
    engine.dispose()


def _publish(bench: Bench, prefix: str, facts: Sequence[Fact]) -> str:
    """Topics under ``prefix`` with these facts; returns the prefix."""
    settings = Settings(kafka_bootstrap_servers=bench.brokers, kafka_topic_prefix=prefix)
    ensure_topics(settings, list(all_topics(prefix)))
    producer = Producer(settings)
    for some in _chunks(facts):
        _send(producer, prefix, some)
    producer.close()
    return prefix


def _send(producer: Producer, prefix: str, facts: Sequence[Fact]) -> None:
    named = topics(prefix)
    messages = [
        _decision(fact, named.decisions.name) if isinstance(fact, Decision) else encode_event(fact, named.events.name)
        for fact in facts
    ]
    if lost := [error for error in producer.publish(messages, PATIENCE_SECONDS) if error is not None]:
        raise SystemExit(f"{len(lost)} messages were not written: {lost[0]}")


def _decision(decision: Decision, topic: str) -> Message:
    """As a team that decides elsewhere writes it."""
    document = {
        "decision_id": decision.decision_id,
        "loop": decision.loop_id,
        "campaign": decision.campaign_id,
        "decided_at": format_time(decision.decided_at),
        "unit": decision.unit,
        "context": decision.context,
        "candidates": [{"content_id": one.content_id, "propensity": one.behaviour_p} for one in decision.candidates],
        "chosen": [{"content_id": one.content_id, "propensity": one.propensity} for one in decision.chosen],
        "group": decision.group,
    }
    return Message(topic, (decision.unit or decision.decision_id).encode(), msgspec.json.encode(document))


def _batch(facts: Sequence[Fact]) -> Batch:
    return Batch(
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in facts if not isinstance(fact, Decision)),
    )


def _chunks(facts: Sequence[Fact]) -> Iterator[Sequence[Fact]]:
    return (facts[start : start + CHUNK] for start in range(0, len(facts), CHUNK))


def _single(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0


def _seconds(process: int) -> float:
    """CPU seconds a process used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _database_seconds(bench: Bench) -> float:
    """CPU seconds of the database's processes that are alive: the worker's connection is, while it works."""
    with psycopg.connect(bench.server) as connection:
        processes = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity").fetchall()]
    return sum(_seconds(process) for process in processes if Path(f"/proc/{process}").exists())


def _goal(name: str, values: Sequence[float], least: float, digits: int = 0) -> Goal:
    interval = (round(min(values), digits), round(max(values), digits))
    return Goal(name, round(median(values), digits), f">= {least}", interval)


def _say(what: str, figures: dict[str, float]) -> None:
    print(f"  {what}: " + ", ".join(f"{name} {value:,}" for name, value in figures.items()), flush=True)
