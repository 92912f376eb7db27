"""A real server killed with -9 while clicks come in, with its database there and with its database locked."""

import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine, select

from infra.database import open_database, reading
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tables import events
from ingestion.ledger import conservation
from ingestion.links import make_link

ROOT = Path(__file__).parents[2]
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
READERS = 4
ENOUGH = 60
"""Clicks that are led on before the server is killed."""


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Until the condition holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class Readers:
    """Threads that follow links, each link once, and note which led on."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = load_secrets(settings)
        self._public = f"http://127.0.0.1:{settings.port}"
        self._numbers = itertools.count()
        self.sent: set[str] = set()
        self.led_on: set[str] = set()

    def click(self, stop: threading.Event) -> None:
        """Follow links until told to stop; a server that is gone leaves it open what became of a click."""
        with httpx2.Client(headers=BROWSER, timeout=20) as client:
            while not stop.is_set():
                url = f"https://shop.example.com/{next(self._numbers)}"
                self.sent.add(url)
                try:
                    answer = client.get(make_link(self._secrets, self._public, "d1", 1, url))
                except httpx2.TransportError:
                    continue
                assert (answer.status_code, answer.headers["location"].split("?rl=")[0]) == (302, url)
                self.led_on.add(url)

    def have_led_on(self, count: int) -> bool:
        """Whether so many links led on by now."""
        return len(self.led_on) >= count

    @contextmanager
    def clicking(self) -> Iterator[None]:
        """Some readers at once."""
        stop = threading.Event()
        threads = [threading.Thread(target=self.click, args=(stop,)) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@contextmanager
def server(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """The API as a process of its own, ready; killed with -9 at the end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("REWARDLOOP_")}
    given = {
        "REWARDLOOP_HOME": str(settings.home),
        "REWARDLOOP_PORT": str(settings.port),
        "REWARDLOOP_REDIRECT_HOSTS": '["shop.example.com"]',
        "REWARDLOOP_TICK_SECONDS": "0.2",
    }
    with (settings.home.parent / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.app"], cwd=ROOT, env=ours | given, stdout=log, stderr=log
        )
    try:
        wait_for(lambda: is_ready(settings, process))
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def is_ready(settings: Settings, process: "subprocess.Popen[bytes]") -> bool:
    """Whether the API answers."""
    assert process.poll() is None, (settings.home.parent / "server.log").read_text()
    try:
        return httpx2.get(f"http://127.0.0.1:{settings.port}/readyz").is_success
    except httpx2.TransportError:
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else holds the database's write lock."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def stored(engine: Engine) -> Counter[str]:
    """How often each click is stored, by where it led."""
    with reading(engine) as connection:
        return Counter(raw["url"] for raw in connection.scalars(select(events.c.raw)))


@pytest.mark.stack
def test_every_click_that_led_on_is_stored_once(tmp_path: Path) -> None:
    """However often the server is killed, and whether its database answered or not: each click whose reader was led
    on is stored exactly once in the end, no click is stored twice, and none that nobody made."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(home=tmp_path / "home", port=port)
    settings.home.mkdir()
    readers = Readers(settings)
    spooled = 0
    for is_locked in (True, False):
        with server(settings) as process, readers.clicking():
            before = len(readers.led_on)
            enough = partial(readers.have_led_on, before + ENOUGH)
            if is_locked:
                with locked(settings.home / "rewardloop.db"):
                    wait_for(enough)
                    process.kill()
            else:
                wait_for(enough)
                process.kill()
            process.wait()
        spooled += sum(path.read_bytes().count(b"\n") for path in settings.spool.glob("*.spool"))
    with server(settings):
        wait_for(lambda: not list(settings.spool.glob("*.spool")))
    engine = open_database(settings.database)
    found = stored(engine)
    difference = conservation(engine)
    engine.dispose()

    assert readers.led_on - set(found) == set()
    assert set(found) - readers.sent == set()
    assert set(found.values()) == {1}
    assert difference == 0
    assert spooled >= ENOUGH - READERS
