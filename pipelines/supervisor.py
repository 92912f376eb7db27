"""Several server processes held together: started, waited for, started again when they die, and stopped together.

Every child leads a process group of its own, away from the terminal: a Ctrl-C reaches the supervisor only, and the
supervisor stops whole groups, so that what a child has started itself ends with it. The order:

    1 check that the ports are free    2 start the children, their output to one log each
    3 wait until each answers, and start what waited for it
    4 watch: one that dies is said and started again, later each time, until a signal comes
    5 stop all: SIGTERM to every group, and after ten seconds SIGKILL to what is left
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, Self

import httpx2

from infra.errors import Misconfigured, Unavailable
from infra.services import environment
from infra.settings import Settings

LOOPBACK = "127.0.0.1"
_PATIENCE = 180.0
"""Seconds a child may take to answer after the one before; MLflow needs 20 on a quiet machine."""
_GRACE = 10.0
"""Seconds a child may take to stop."""
_PAUSE = 0.2
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
"""Seconds before a child that died is started again: doubled each time, until it has run for a while."""
_STEADY = 300.0
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 (compared with, never bound to)
_COMMAND = (sys.executable, "-c", "from pipelines.cli import main; main()")
"""``rewardloop``, by the interpreter of this process."""


@dataclass(frozen=True)
class Service:
    """One child: how to start it and how to see that it is up."""

    name: str
    command: tuple[str, ...]
    port: int
    """0: it listens nowhere."""
    probe: str
    """Path that answers 200 once the service is ready; without a port, what its log says then."""
    page: str
    """Path that a person opens."""
    environment: Mapping[str, str]
    log: Path
    port_setting: str
    """The environment variable that moves it to another port."""
    host: str = LOOPBACK
    """The address it binds to."""
    after: str = ""
    """Name of the service that must be ready before this one is started."""

    @property
    def origin(self) -> str:
        """Scheme, address and port, as this machine reaches it."""
        return f"http://{LOOPBACK if self.host in _ANYWHERE else self.host}:{self.port}"

    @property
    def url(self) -> str:
        """What to open in a browser; of a service that listens nowhere its log."""
        return self.origin + self.page if self.port else f"log {self.log}"


class Supervisor:
    """Children that are started and stopped together. Use it as a context manager: leaving it stops them all."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = tuple(services)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def wait_until_ready(
        self, services: Sequence[Service], stopped: threading.Event, ready: Callable[[Service, float], None]
    ) -> None:
        """Wait for these services; ``ready`` is told each one with the seconds it took. Ends early once ``stopped``.

        Raises :class:`Unavailable` when a child dies or does not answer in time.
        """
        began = latest = time.monotonic()
        waiting = list(services)
        while waiting and not stopped.is_set():
            self.check()
            for service in [service for service in waiting if service.name in self._children and _answers(service)]:
                waiting.remove(service)
                latest = time.monotonic()
                ready(service, latest - began)
                self._start_after(service.name)
            if waiting and time.monotonic() - latest > _PATIENCE:
                late = waiting[0]
                raise Unavailable(f"{late.name} does not answer at {late.url} after {_PATIENCE:.0f} s; see {late.log}")
            stopped.wait(_PAUSE)

    def watch(self, stopped: threading.Event, told: Callable[[Service, str], None]) -> None:
        """Start again what dies, until ``stopped`` is set. ``told``: a service, and what became of it."""
        began = {service.name: time.monotonic() for service in self.services}
        pauses = {service.name: _FIRST_PAUSE for service in self.services}
        while not stopped.wait(_PAUSE):
            for service in self.services:
                if self._children[service.name].poll() is None:
                    continue
                if time.monotonic() - began[service.name] > _STEADY:
                    pauses[service.name] = _FIRST_PAUSE
                told(
                    service, f"{_epitaph(service, self._children[service.name])}; again in {pauses[service.name]:.0f} s"
                )
                _signal_group(
                    self._children[service.name], signal.SIGKILL
                )  # what it started itself, before its port is needed
                if stopped.wait(pauses[service.name]):
                    return
                pauses[service.name] = min(_LAST_PAUSE, 2 * pauses[service.name])
                self._run(service, "ab")
                began[service.name] = time.monotonic()
                told(service, "started again")

    def check(self) -> None:
        """Raises :class:`Unavailable` naming the first child that is gone, its exit code and its last words."""
        for service in self.services:
            child = self._children.get(service.name)
            if child is not None and child.poll() is not None:
                raise Unavailable(f"{service.name} {_epitaph(service, child)}")

    def stop(self) -> None:
        """End every child and whatever it has started. Repeating it does nothing."""
        children, self._children = list(self._children.values()), {}
        with _undisturbed():
            for child in children:
                _signal_group(child, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - time.monotonic()))
                _signal_group(child, signal.SIGKILL)
                child.wait()
            for child in children:
                _await_end_of_group(child)

    def _start(self) -> None:
        for service in self.services:
            _require_free(service)
        self._start_after("")

    def _start_after(self, name: str) -> None:
        """Start those that have waited for this one."""
        for service in (service for service in self.services if service.after == name):
            service.log.parent.mkdir(parents=True, exist_ok=True)
            self._run(service, "wb")

    def _run(self, service: Service, mode: Literal["wb", "ab"]) -> None:
        with service.log.open(mode) as log:
            self._children[service.name] = subprocess.Popen(  # noqa: S603 (commands of this module)
                service.command,
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending this process. Main thread only."""
    stopped = threading.Event()
    with _handling(lambda _number, _frame: stopped.set()):
        yield stopped


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM alike raise ``KeyboardInterrupt``, so that everything open is closed. Main thread only."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def api_service(settings: Settings) -> Service:
    """The scoring API: events in, decisions out."""
    port = settings.port or free_port()
    return Service(
        name="API",
        command=(sys.executable, "-m", "pipelines.app"),
        port=port,
        probe="/readyz",
        page="/docs",
        environment=_environment(settings) | {"REWARDLOOP_PORT": str(port), "REWARDLOOP_HOST": LOOPBACK},
        log=_log(settings, "api"),
        port_setting="REWARDLOOP_PORT",
    )


def mlflow_service(settings: Settings) -> Service:
    """The MLflow UI over the tracking store of the flows."""
    port = settings.mlflow_port or free_port()
    artifacts = (settings.home / "mlflow" / "artifacts").resolve()
    artifacts.mkdir(parents=True, exist_ok=True)
    return Service(
        name="MLflow",
        command=(
            *(
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                settings.ui_host,
                "--port",
                str(port),
                "--workers",
                "1",
            ),
            *("--backend-store-uri", settings.tracking, "--artifacts-destination", artifacts.as_uri()),
        ),
        port=port,
        probe="/health",
        page="/",
        environment=_environment(settings),
        log=_log(settings, "mlflow"),
        port_setting="REWARDLOOP_MLFLOW_PORT",
        host=settings.ui_host,
    )


def prefect_service(settings: Settings) -> Service:
    """The Prefect UI over the runs of the flows."""
    port = settings.prefect_port or free_port()
    return Service(
        name="Prefect",
        command=(sys.executable, "-m", "prefect", "server", "start", "--host", settings.ui_host, "--port", str(port)),
        port=port,
        probe="/api/health",
        page="/",
        environment=_environment(settings) | {"PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api"},
        log=_log(settings, "prefect"),
        port_setting="REWARDLOOP_PREFECT_PORT",
        host=settings.ui_host,
    )


def worker_service(settings: Settings) -> Service:
    """The worker that reads the topics; only with Kafka."""
    port = settings.worker_port or free_port()
    return Service(
        name="Worker",
        command=(*_COMMAND, "worker"),
        port=port,
        probe="/healthz",
        page="/metrics",
        environment=_environment(settings) | {"REWARDLOOP_WORKER_PORT": str(port), "REWARDLOOP_HOST": LOOPBACK},
        log=_log(settings, "worker"),
        port_setting="REWARDLOOP_WORKER_PORT",
    )


def flows_service(settings: Settings, prefect: Service) -> Service:
    """The process that runs the flows on their schedules, under that Prefect server."""
    return Service(
        name="Flows",
        command=(*_COMMAND, "flows", "serve"),
        port=0,
        probe="Your deployments are being served",
        page="",
        environment=_environment(settings) | {"PREFECT_API_URL": f"{prefect.origin}/api", "PYTHONUNBUFFERED": "1"},
        log=_log(settings, "flows"),
        port_setting="",
        after=prefect.name,
    )


def _environment(settings: Settings) -> dict[str, str]:
    """What the children are told: the services' environment, with the operator's own variables on top."""
    told = environment(settings)
    kept = {name: os.environ[name] for name in told if name in os.environ}
    return told | kept | {"REWARDLOOP_HOME": told["REWARDLOOP_HOME"], "REWARDLOOP_CLOCK": settings.clock}


def _log(settings: Settings, name: str) -> Path:
    return settings.home.resolve() / "logs" / f"{name}.log"


def _require_free(service: Service) -> None:
    if not service.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.host, service.port))
        except OSError:
            raise Misconfigured(
                f"Port {service.port} is taken, {service.name} cannot use it; stop what listens there, "
                f"or set {service.port_setting} to another port (0 takes a free one)"
            ) from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave children behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _answers(service: Service) -> bool:
    if not service.port:
        return service.probe in service.log.read_text(errors="replace")
    try:
        return httpx2.get(service.origin + service.probe, timeout=2.0, trust_env=False).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals | Literal[0]) -> bool:
    """Whether there still was somebody to signal; 0 only asks."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return False
    return True


def _await_end_of_group(child: subprocess.Popen[bytes]) -> None:
    """What was killed dies a moment later; wait for that, but not for what nobody reaps."""
    deadline = time.monotonic() + 2.0
    while _signal_group(child, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _epitaph(service: Service, child: "subprocess.Popen[bytes]") -> str:
    """How it ended, its last words and where the others are."""
    return f"{_ended(child.returncode)}: {_last_words(service.log)} (log: {service.log})"


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"stopped with exit code {code}"


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
