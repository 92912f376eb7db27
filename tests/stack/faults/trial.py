"""One run against a broker and a database: send, break, catch up, compare.

A *stage* is what runs share: Kafka, PostgreSQL, and the digest of each world's faultless run. A *trial* is one run on
it, with its own topics, group, database, folder and ledger. What it sends is a world in some order; whatever breaks in
between, it must end as the faultless run did.
"""

import io
import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Self, TypeVar
from unittest import mock

from sqlalchemy import Engine, Table, func, make_url, select, update

from infra import tables
from infra.broker import Message, Partition, Producer, ensure_topics
from infra.database import chunks, open_database, reading, writing
from infra.errors import RewardloopError, Unavailable
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch, Decision
from ingestion.loops import put_loop
from ingestion.stream.topics import all_topics, topics
from pipelines import cli
from tests.stack.faults import kafka
from tests.stack.faults.checker import Verdict, check
from tests.stack.faults.database import Database, SmallDatabase, can_mount
from tests.stack.faults.kafka import QuickKafka
from tests.stack.faults.ledger import Ledger, Sending
from tests.stack.faults.proxy import Proxy
from tests.stack.faults.waiting import TooLong, until
from tests.stack.faults.wire import sendings_of
from tests.stack.faults.workers import CommandWorker, Crew, Halt, Process, WorkerProcess
from tests.stack.faults.world import CAMPAIGNS, CONTENTS, LOOPS, SOURCES, customers

BATCH = 50
"""Records per transaction of a worker: small, so that there are many to break."""
PARTITIONS = 3
BLOCK = 100
"""Records that are written to the ledger and sent at once."""
SENDING_SECONDS = 240.0
CATCH_UP_SECONDS = 120.0
SAID = 4_000
"""Characters of a log that are shown."""
FACTS = (
    *(tables.events, tables.event_keys, tables.event_labels, tables.decisions, tables.quarantine),
    *(tables.attributions, tables.outcomes, tables.content_stats),
)
SECRETS = {"master": "6d" * 32, "units": {"1": "75" * 32}, "tokens": {"1": "74" * 32}}


Started = TypeVar("Started", bound=Process)


class Stage:
    """Brokers and a database, started when they are first needed."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._digests: dict[tuple[int, int], str] = {}
        self._trials = 0
        self.folder = Path(tempfile.mkdtemp(prefix="rewardloop-faults-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def broker(self) -> QuickKafka:
        """One broker."""
        return self._open.enter_context(QuickKafka())

    @cached_property
    def cluster(self) -> QuickKafka:
        """Three brokers, every record on all of them."""
        return self._open.enter_context(QuickKafka(3))

    @cached_property
    def database(self) -> Database:
        """PostgreSQL."""
        return self._open.enter_context(Database())

    @cached_property
    def small_database(self) -> Database:
        """PostgreSQL on a disk that can be filled; where none can be mounted, one that says so when it is asked to."""
        return self._open.enter_context(SmallDatabase() if can_mount() else Database())

    def trial(self, brokers: QuickKafka, database: Database, seed: int, size: int) -> "Trial":
        """A new run over the world of that seed and size."""
        self._trials += 1
        return Trial(self.folder / f"{self._trials}", brokers, database, seed, size)

    def faultless(self, seed: int, size: int) -> str:
        """The digest of that world's run without any fault; run once."""
        if (seed, size) not in self._digests:
            with self.trial(self.broker, self.database, seed, size) as trial:
                trial.define()
                trial.crew(1)
                trial.send(trial.in_order())
                verdict = trial.verdict()
            if verdict.wrong:
                raise AssertionError("the run without a fault is wrong:\n" + "\n".join(verdict.wrong[:20]))
            self._digests[seed, size] = verdict.digest
        return self._digests[seed, size]


class Trial:
    """One run; everything it started ends with it."""

    def __init__(self, folder: Path, brokers: QuickKafka, database: Database, seed: int, size: int) -> None:
        self.folder, self.brokers, self.database = folder, brokers, database
        self.random = Random(f"trial {seed}")
        self.population = list(customers(seed, size))
        self.url = self.workers_url = database.new()
        self._open = ExitStack()
        self._processes: list[Process] = []
        self._crews: list[Crew] = []
        folder.mkdir(parents=True)
        (folder / "secrets.json").write_text(json.dumps(SECRETS))
        self.secrets = load_secrets(self.settings)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self._open.callback(self.ledger.close)
        self.engine: Engine = open_database(self.url)
        self._open.callback(self.engine.dispose)
        self._topics = topics(self.settings.kafka_topic_prefix)
        self.make_topics()
        self._producer = Patient(self.settings)
        self._open.callback(self._producer.close)
        self.log = kafka.Log(self.settings)
        self._open.callback(self.log.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for crew in self._crews:  # first of all: whoever ends before would be replaced
            crew.disband()
        for process in self._processes:
            process.kill()
        self._open.close()

    @property
    def settings(self) -> Settings:
        """What a worker of this trial is given."""
        name = f"trial-{self.folder.parent.name[-8:]}-{self.folder.name}"
        return Settings(
            home=self.folder,
            database_url=self.workers_url,
            sources=SOURCES,
            kafka_bootstrap_servers=self.brokers.bootstrap_servers,
            kafka_topic_prefix=name,
            kafka_group=name,
            worker_batch_records=BATCH,
            worker_batch_wait_ms=20,
            worker_port=0,
        )

    def make_topics(self) -> None:
        """Make the topics that are missing, with a few partitions each."""
        wanted = all_topics(self.settings.kafka_topic_prefix)
        ensure_topics(self.settings, [topic._replace(partitions=min(PARTITIONS, topic.partitions)) for topic in wanted])

    def define(self, loops: Iterable[str] = tuple(LOOPS)) -> None:
        """Define loops with their campaigns and contents."""
        known = set(loops)
        with writing(self.engine) as connection:
            for loop in sorted(known):
                put_loop(connection, LOOPS[loop], 0)
        campaigns = tuple(campaign for campaign in CAMPAIGNS if campaign.loop_id in known)
        names = {campaign.campaign_id for campaign in campaigns}
        contents = tuple(content for content in CONTENTS if content.campaign_id in names)
        store.apply(self.engine, Batch(campaigns=campaigns, contents=contents), self.secrets, 0)

    def proxy(self) -> Proxy:
        """A proxy before the database; workers started from now on go through it."""
        proxy = self._open.enter_context(Proxy(self.database.socket))
        self.workers_url = self.database.through(self.url, proxy.port)
        return proxy

    def end_idle_transactions(self, seconds: int) -> None:
        """Workers started from now on lose a transaction they leave alone for so long, sooner than in production."""
        option = f"-c idle_in_transaction_session_timeout={seconds}s"
        url = make_url(self.workers_url).update_query_dict({"options": option})
        self.workers_url = url.render_as_string(hide_password=False)

    def worker(self, halt: Halt | None = None, clock_offset: int = 0) -> WorkerProcess:
        """Start a worker."""
        return self._look_after(WorkerProcess(self.settings, self._new_log(), halt, clock_offset))

    def crew(self, size: int) -> Crew:
        """Start workers that are kept alive to the end of the trial."""
        self._crews.append(Crew(self.worker, size))
        return self._crews[-1]

    def command_worker(self) -> "CommandWorker":
        """Start ``rewardloop worker``."""
        return self._look_after(CommandWorker({**os.environ, **self.environment()}, self._new_log()))

    def command(self, *arguments: str) -> str:
        """Run ``rewardloop`` with these arguments, as the operator of this installation; returns what it printed."""
        said = io.StringIO()
        with mock.patch.dict(os.environ, self.environment()), redirect_stdout(said), redirect_stderr(said):
            code = cli.run(arguments)
        assert code == 0, said.getvalue()
        return said.getvalue()

    def environment(self) -> dict[str, str]:
        """The settings as a process is given them."""
        chosen = self.settings.model_dump(mode="json", include=self.settings.model_fields_set)
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in chosen.items()}
        return {f"REWARDLOOP_{name.upper()}": text for name, text in texts.items()}

    def in_order(self) -> list[Sending]:
        """The world as it happened."""
        sendings = [sending for customer in self.population for sending in sendings_of(customer, self.secrets)]
        return sorted(sendings, key=_happened)

    def send(self, sendings: Sequence[Sending], pause: float = 0.0) -> None:
        """Send, block after block, each until the broker has confirmed all of it; everything is in the ledger."""
        for block in chunks(sendings, BLOCK):
            numbers = self.ledger.intend(block)
            self._producer.publish([self._message(sending) for sending in block])
            self.ledger.acknowledge(numbers)
            time.sleep(pause)

    def send_compressed(self, sending: Sending) -> None:
        """Send one record that is larger than topics are made for, packed."""
        numbers = self.ledger.intend([sending])
        kafka.publish_compressed(self.settings, self._message(sending).topic, sending.value or b"")
        self.ledger.acknowledge(numbers)

    @contextmanager
    def sending(self, sendings: Sequence[Sending], pause: float = 0.0) -> Iterator[Callable[[], bool]]:
        """Send beside what is done inside; yields whether it is still going on. All is sent when it ends."""
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self.send(sendings, pause)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield thread.is_alive
        thread.join(SENDING_SECONDS)
        if failures:
            raise failures[0]
        assert not thread.is_alive(), "the broker did not confirm everything"

    def positions(self) -> dict[Partition, int]:
        """How far the database has read."""
        offsets = tables.offsets
        with reading(self.engine) as connection:
            rows = connection.execute(select(offsets.c.topic, offsets.c.partition, offsets.c.position))
            return {(topic, partition): position for topic, partition, position in rows}

    def records_read(self) -> int:
        """How many records the batches have read so far."""
        with reading(self.engine) as connection:
            return int(connection.scalar(select(func.coalesce(func.sum(tables.batches.c.read), 0))) or 0)

    def catch_up(self, seconds: float = CATCH_UP_SECONDS) -> None:
        """Wait until the database has read every log to its end; give up when it gets no further for so long."""
        ends = self.log.ends()
        while left := self._left(ends):
            self.until(partial(self._is_nearer, ends, left), seconds, "the workers read on")

    def _is_nearer(self, ends: Mapping[Partition, int], left: float) -> bool:
        return self._left(ends) < left

    def _left(self, ends: Mapping[Partition, int]) -> float:
        """How many records of the logs the database has not read; infinite while it is away."""
        try:
            positions = self.positions()
        except Unavailable:
            return math.inf
        return sum(max(0, end - positions.get(partition, 0)) for partition, end in ends.items())

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for the condition; if it does not come true, say what the workers said and where they are."""
        try:
            until(condition, seconds, what)
        except TooLong as late:
            for worker in self._processes:
                worker.show_where()
            raise TooLong(f"{late}; {self.said()}") from None

    def verdict(self, *, again: int = 0) -> Verdict:
        """Catch up and compare. ``again``: records that were read once more on purpose."""
        self.catch_up()
        held = self.log.held()
        return check(self.engine, self.ledger.path, self.secrets, read=held.records + held.labels + again)

    def rows(self) -> list[list[tuple[object, ...]]]:
        """Every row of a fact and of what was made of it."""
        return [_rows(self.engine, table) for table in FACTS]

    def read_from_the_beginning(self) -> None:
        """Forget how far was read."""
        with writing(self.engine) as connection:
            connection.execute(update(tables.offsets).values(position=0))

    def log_of(self, worker: int) -> str:
        """What the worker of that number has said; nothing while it starts."""
        log = self.folder / f"worker-{worker}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def said(self) -> str:
        """The end of every worker's log."""
        logs = sorted(self.folder.glob("worker-*.log"), key=lambda log: log.stat().st_mtime)
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-SAID:]}" for log in logs[-3:])

    def _new_log(self) -> Path:
        return self.folder / f"worker-{len(self._processes) + 1}.log"

    def _look_after(self, process: Started) -> Started:
        self._processes.append(process)
        return process

    def _message(self, sending: Sending) -> Message:
        topic = self._topics.decisions if sending.kind == "decisions" else self._topics.events
        return Message(topic.name, sending.key, sending.value, sending.headers)


class Patient:
    """A producer that does not give up while the broker is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None

    def publish(self, messages: Sequence[Message]) -> None:
        """Return when every message is confirmed; what was not is sent again."""
        deadline = time.monotonic() + SENDING_SECONDS
        left = list(messages)
        while left:
            outcomes = self._try(left)
            if broken := [error for error in outcomes if error is not None and not error.retriable]:
                raise broken[0]
            left = [message for message, error in zip(left, outcomes, strict=True) if error is not None]
            if left and time.monotonic() > deadline:
                raise AssertionError(f"the broker did not confirm {len(left)} records in {SENDING_SECONDS:g} s")

    def close(self) -> None:
        """Close the producer."""
        if self._producer is not None:
            self._producer.close()

    def _try(self, messages: Sequence[Message]) -> Sequence[RewardloopError | None]:
        try:
            if self._producer is None:
                self._producer = Producer(self._settings)
            return self._producer.publish(messages, timeout=10)
        except Unavailable as away:
            time.sleep(0.1)
            return [away] * len(messages)


def _happened(sending: Sending) -> int:
    fact = sending.fact
    assert fact is not None
    return fact.decided_at if isinstance(fact, Decision) else fact.occurred_at


def _rows(engine: Engine, table: Table) -> list[tuple[object, ...]]:
    with reading(engine) as connection:
        return sorted(map(tuple, connection.execute(select(table))), key=repr)
