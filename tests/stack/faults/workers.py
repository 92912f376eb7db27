"""Workers as processes of their own, wired like ``rewardloop worker``, that die where they are told to.

They are forked off a server that has imported everything, so that two hundred deaths do not cost two hundred starts.
What differs from production: the group notices a dead member and the client a mute broker sooner, the clock may be off,
and at a named step of the commit order (the worker's own hook, or a step inside the store's transaction) the process
kills or freezes itself.
"""

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from kafka import KafkaConsumer

from infra import broker
from infra.broker import consumer
from infra.clock import system_clock
from infra.database import open_database
from infra.errors import RewardloopError
from infra.logs import configure_logs
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion import store
from ingestion.stream.announcements import Announcer
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.topics import topics
from ingestion.stream.worker import Worker
from tests.stack.faults.kafka import SESSION_SECONDS
from tests.stack.faults.waiting import TooLong, until

OUTSIDE = ("polled", "decoded", "before_apply", "applied", "before_commit", "committed")
"""Steps the worker names."""
INSIDE = ("insert_facts", "lock_join", "stamp", "rejoin", "keep_ledger")
"""Steps of the store's transaction: the process dies when one of them is done."""
STEPS = (*OUTSIDE[:3], *INSIDE, *OUTSIDE[3:])

REQUEST_SECONDS = 5
COMMAND = str(Path(sys.executable).with_name("rewardloop"))
KILLED = -signal.SIGKILL

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.stack.faults.workers"])


class Halt(NamedTuple):
    """Where a worker sends itself a signal: at the ``nth`` time it comes to a step."""

    step: str
    nth: int = 1
    by: int = signal.SIGKILL


class Process:
    """A worker's process and its log."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self.ended(10)

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def is_frozen(self) -> bool:
        """Whether it is stopped by a signal (Linux)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def ask_to_stop(self) -> None:
        """SIGTERM, as whoever rolls out a new version does."""
        self._signal(signal.SIGTERM)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        self.ask_to_stop()
        return self.ended(seconds)

    def ended(self, seconds: float) -> int:
        """Wait for the end; returns the exit code."""
        until(lambda: self.exit_code is not None, seconds, f"the worker ends; its log: {self.said()[-2000:]}")
        return int(self.exit_code or 0)

    def show_where(self) -> None:
        """Let it write into its log where each of its threads is."""
        if self.exit_code is None:
            before = len(self.said())
            self.resume()
            self._signal(signal.SIGUSR1)
            until(lambda: self.exit_code is not None or len(self.said()) > before, 5, "the worker shows where it is")

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            os.kill(self.pid, number)


class WorkerProcess(Process):
    """One worker; it works as soon as it exists."""

    def __init__(self, settings: Settings, log: Path, halt: Halt | None = None, clock_offset: int = 0) -> None:
        self._process = _context.Process(target=_work, args=(settings, log, halt, clock_offset), daemon=True)
        self._process.start()
        super().__init__(self._process.pid or 0, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode


class CommandWorker(Process):
    """One worker as people start it: ``rewardloop worker``, given its settings by the environment."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen((COMMAND, "worker"), env=environment, stdout=output, stderr=output)
        super().__init__(self._process.pid, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()


class Crew:
    """So many workers, kept alive: whoever dies is replaced at once, as a supervisor does."""

    def __init__(self, start: Callable[[], WorkerProcess], size: int = 1) -> None:
        self._start = start
        self._workers = [start() for _ in range(size)]
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.replaced = 0
        self._thread = threading.Thread(target=self._look_after, daemon=True)
        self._thread.start()

    def disband(self) -> None:
        """Replace nobody any more, and let all leave in good order."""
        self._done.set()
        self._thread.join()
        for worker in self._workers:
            worker.ask_to_stop()
        for worker in self._workers:
            with suppress(TooLong):
                worker.ended(20)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._workers)

    def pick(self, random: Random) -> WorkerProcess:
        """One of them."""
        with self._lock:
            return random.choice(self._workers)

    def resize(self, size: int) -> None:
        """So many from now on; those too many leave in good order."""
        with self._lock:
            while len(self._workers) < size:
                self._workers.append(self._start())
            leaving = [self._workers.pop() for _ in range(len(self._workers) - size)]
        for worker in leaving:
            worker.stop()

    def _look_after(self) -> None:
        while not self._done.wait(0.05):
            with self._lock:
                for place, worker in enumerate(self._workers):
                    if worker.exit_code is not None:
                        self._workers[place] = self._start()
                        self.replaced += 1


def _work(settings: Settings, log: Path, halt: Halt | None, clock_offset: int) -> None:
    """The process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    faulthandler.register(signal.SIGUSR1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    consumer.SESSION_SECONDS = SESSION_SECONDS
    KafkaConsumer.DEFAULT_CONFIG["request_timeout_ms"] = REQUEST_SECONDS * 1000
    configure_logs("info")
    step = _halting(halt) if halt is not None else lambda _: None
    if halt is not None and halt.step in INSIDE:
        _name_when_done(halt.step, step)
    try:
        _run(settings, stop, step, clock_offset)
    except RewardloopError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _run(settings: Settings, stop: threading.Event, step: Callable[[str], None], clock_offset: int) -> None:
    """The worker, wired as the command wires it."""
    engine, secrets = open_database(settings.database), load_secrets(settings)
    named = topics(settings.kafka_topic_prefix)
    read = [topic.name for topic in named.read]

    def clock() -> int:
        return system_clock() + clock_offset

    worker = Worker(
        engine,
        secrets,
        settings,
        clock,
        lambda assignment: broker.Consumer(settings, read, settings.kafka_group, assignment),
        TopicDecoder(engine, secrets, settings, clock),
        lambda: broker.topic_ids(settings, read),
        announce=Announcer(engine, named.quarantine.name, lambda: broker.Producer(settings)),
        step=step,
    )
    worker.run(stop)


def _halting(halt: Halt) -> Callable[[str], None]:
    """Counts how often the step is named, and sends this process the signal at the nth time."""
    left = halt.nth

    def named(step: str) -> None:
        nonlocal left
        if step == halt.step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), halt.by)

    return named


def _name_when_done(name: str, step: Callable[[str], None]) -> None:
    """Name a step of the store's transaction as soon as it is done."""
    whole = getattr(store, name)

    def done(*arguments: object) -> object:
        result = whole(*arguments)
        step(name)
        return result

    setattr(store, name, done)
