"""Connections that bring nothing, on a real socket: each is ended, and there are only so many."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from ingestion.http.admission import REFUSED
from pipelines import connections
from pipelines.connections import EARS, ears, open_files_for, protocol

LARGE = 32 << 20


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers ``ok``, or very much; ``/full`` was turned away."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/full":
        scope[REFUSED] = True
    body = b"x" * (LARGE if scope["path"] == "/large" else 2)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def listening(most: int) -> Iterator[tuple[int, uvicorn.Server]]:
    """The port of a server of that app with this many connections, and the server."""
    config = uvicorn.Config(
        app, port=0, http=protocol(most), log_level="critical", lifespan="off", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)


def connected(port: int, sent: bytes = b"") -> socket.socket:
    """A connection that has sent this."""
    link = socket.create_connection(("127.0.0.1", port), 10.0)
    link.sendall(sent)
    return link


def told(link: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    with suppress(ConnectionError):
        while part := link.recv(65_536):
            found += part
    return found


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("part", [b"", b"GET / HT"])
def test_a_head_that_does_not_come_ends_the_connection(
    before: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the beginning: 408, and closed. After an answer a part of one ends the same way, nothing at all quietly."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with listening(10) as (port, server):
        link = connected(port, before)
        if before:
            assert link.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        link.sendall(part)
        last_words = told(link)

        assert last_words == (connections._LATE if part or not before else b"")
        assert not server.server_state.connections


def test_a_head_without_end_is_refused() -> None:
    """A head that goes on and on is answered 400 or 431, by whoever notices first, and closed."""
    with listening(10) as (port, server):
        link = connected(port, GET[:-2])
        with suppress(OSError):
            for _ in range(200):
                link.sendall(b"X-More: " + b"x" * 10_000 + b"\r\n")

        assert told(link).split(b" ", 2)[1] in (b"400", b"431")
        assert not server.server_state.connections


def test_an_answer_that_is_not_taken_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not read is cut off, and what waited for it is given up."""
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.2)
    with listening(10) as (port, server):
        link = connected(port, GET.replace(b"/ ", b"/large "))
        deadline = time.monotonic() + 20.0
        while server.server_state.connections or not server.server_state.total_requests:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(told(link)) < LARGE


def test_who_was_turned_away_is_not_listened_to_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks at once waits, and is answered later; others are answered meanwhile."""
    monkeypatch.setattr(connections, "PAUSE_SECONDS", 0.5)
    with listening(10) as (port, _):
        link = connected(port, GET.replace(b"/ ", b"/full "))
        assert link.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        asked = time.monotonic()
        link.sendall(GET)

        assert connected(port, GET).recv(1_000).startswith(b"HTTP/1.1 200 OK")
        assert link.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        assert time.monotonic() - asked > 0.4


def test_there_are_only_so_many_connections() -> None:
    """One more than allowed is told 503 with Retry-After and closed; once another ends there is room again."""
    with listening(2) as (port, server):
        first, second = connected(port, GET), connected(port, GET)
        first.recv(1_000), second.recv(1_000)
        refused = told(connected(port))
        first.close()
        while len(server.server_state.connections) > 1:
            time.sleep(0.01)
        again = connected(port, GET).recv(1_000)

        assert refused == connections._FULL
        assert again.startswith(b"HTTP/1.1 200 OK")
        second.close()


def test_as_many_connections_as_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on open files is raised as far as it may be, and what it leaves is how many connections there are."""
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: raised.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (320, 1_024))

    assert open_files_for(100) == 100
    assert open_files_for(10_000) == 1_024 - connections.SPARE_FILES
    assert raised == [(1_024, 1_024)]


def test_every_handle_accepts() -> None:
    """Each handle of the listening socket accepts a connection of its own, so that many are accepted in one turn."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        handles = ears(listening)
        callers = [socket.create_connection(listening.getsockname()) for _ in handles]
        accepted = [handle.accept()[0] for handle in handles]

        assert len({handle.fileno() for handle in handles}) == EARS
        assert {one.getpeername() for one in accepted} == {caller.getsockname() for caller in callers}
    for one in (*handles, *callers, *accepted):
        one.close()
