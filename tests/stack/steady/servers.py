"""The API as processes of its own, as in production, and what one asks of them."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from infra.settings import Settings
from pipelines.supervisor import free_port
from tests.stack.faults.waiting import until

START_SECONDS = 600.0
_OURS = ("PREFECT_", "MLFLOW_", "REWARDLOOP_")


class Answer(NamedTuple):
    """An answer over HTTP. ``status`` 0: the server hung up."""

    status: int
    document: Any
    headers: Mapping[str, str]
    seconds: float

    @property
    def is_ok(self) -> bool:
        """Whether it did what it was asked."""
        return 200 <= self.status < 300


class Caller:
    """One keep-alive connection. Not for several threads at once."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self._port, self._timeout = port, timeout
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, method: str, path: str, document: Any = None) -> Answer:
        """One request and its answer; a connection that the server closed is opened again for the next."""
        began = time.monotonic()
        body = None if document is None else json.dumps(document).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, repr(error), {}, time.monotonic() - began)
        told = {name.lower(): value for name, value in answer.getheaders()}
        found = json.loads(content) if "json" in told.get("content-type", "") else content.decode(errors="replace")
        return Answer(answer.status, found, told, time.monotonic() - began)

    def post(self, path: str, document: Any) -> Answer:
        """A POST."""
        return self.ask("POST", path, document)

    def get(self, path: str) -> Answer:
        """A GET."""
        return self.ask("GET", path)

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)


class Address:
    """Where a server listens on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def caller(self, timeout: float = 60.0) -> Caller:
        """A new connection to it."""
        return Caller(self.port, timeout)

    def ask(self, method: str, path: str, document: Any = None) -> Answer:
        """One request over a connection of its own."""
        with self.caller() as caller:
            return caller.ask(method, path, document)


class Server(Address):
    """``python -m pipelines.app`` with these settings."""

    def __init__(self, settings: Settings, **more: object) -> None:
        super().__init__(free_port())
        self.log = settings.home / f"api-{self.port}.log"
        settings.home.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        chosen = settings.model_dump(mode="json", exclude_unset=True) | {"port": self.port} | more
        told = {
            f"REWARDLOOP_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
            for name, value in chosen.items()
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.app"],
                env={**kept, **told},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[3],
            )

    def wait(self) -> None:
        """Return once it is ready to be asked."""
        until(self._listens, START_SECONDS, f"the API listens; its log: {self.said()[-2_000:]}")

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def memory(self) -> int:
        """Bytes of memory it holds (Linux)."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def asked_to_stop(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 60.0) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it, if it runs."""
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.said()[-4_000:]
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False


@contextmanager
def serving(settings: Settings, **more: object) -> Iterator[Server]:
    """A server that is ready, killed at the end if it still runs."""
    server = Server(settings, **more)
    try:
        server.wait()
        yield server
    finally:
        server.kill()
