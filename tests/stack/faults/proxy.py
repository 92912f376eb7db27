"""A small TCP proxy before PostgreSQL that breaks connections at a chosen point.

It reads what the client sends message by message (PostgreSQL's documentation, "Message Formats"), so that it knows a
COMMIT when it sees one. Only transactions that took the join lock count: those that change what is stored. A commit
can be broken on its way (the server never hears of it and rolls back) or on its answer's way (it holds, and the client
cannot know). The client sees the same in both cases: a connection that ended.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

Upstream = Path | tuple[str, int]
"""A socket in the file system, or host and port."""

Break = Literal["before", "after"]
"""before: the COMMIT is swallowed; after: it is executed and its answer is swallowed."""

LOCK = b"pg_advisory_xact_lock"
_ENDS = (b"COMMIT\0", b"ROLLBACK\0")
_TYPED = 3
"""Major version of the protocol: after a start-up message with it, every message has a type."""


class Proxy:
    """Connect to ``port`` on 127.0.0.1 instead of the server."""

    def __init__(self, upstream: Upstream) -> None:
        self.commits = 0
        """Commits of the join that were let through whole."""
        self.broken = threading.Event()
        """Set when a commit was broken as asked for."""
        self._upstream = upstream
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._trap: tuple[int, Break] | None = None
        self._refusing = False
        self._delay = 0.0
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections and end those there are."""
        self.thaw()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """End every connection now, whatever is under way; returns how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end()
        return len(links)

    def refuse(self) -> None:
        """End every connection, and every new one at once, until :meth:`allow`."""
        self._refusing = True
        self.cut()

    def allow(self) -> None:
        """Let connections through again."""
        self._refusing = False

    def delay(self, seconds: float) -> None:
        """Hold back every message from the client for so long."""
        self._delay = seconds

    def freeze(self) -> None:
        """Let connections be, and take new ones, but pass nothing on from clients until :meth:`thaw`: a server whose
        disk or process hangs."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what was held back, and all that comes."""
        self._flowing.set()

    def break_commit(self, nth: int, how: Break) -> None:
        """Break the ``nth`` commit of the join from now."""
        self.broken.clear()
        with self._lock:
            self._trap = (nth, how)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = None if self._refusing else _dial(self._upstream)
        except OSError:
            server = None
        if server is None:
            _reset(client)
            return
        link = _Link(self, client, server)
        with self._lock:
            self._links.add(link)
        threading.Thread(target=link.answer, daemon=True).start()
        link.ask()
        with self._lock:
            self._links.discard(link)

    def wait(self) -> None:
        """Hold a message back, if that was asked for."""
        self._flowing.wait()
        if self._delay:
            time.sleep(self._delay)

    def judge(self) -> Break | None:
        """What is to become of a commit of the join that has just been asked for."""
        with self._lock:
            if self._trap is not None:
                left, how = self._trap
                self._trap = (left - 1, how) if left > 1 else None
                if left == 1:
                    return how
            self.commits += 1
            return None


class _Link:
    """One client with its connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._swallow = False
        self._locked = False
        self._locking: set[bytes] = set()

    def ask(self) -> None:
        """Pass on what the client sends, message by message."""
        with suppress(OSError):
            for kind, message in _messages(self._client):
                self._proxy.wait()
                fate = self._fate(kind, message)
                if fate == "before":
                    break
                self._swallow = fate == "after"
                self._server.sendall(message)
            else:
                self.end()
                return
            self._proxy.broken.set()
        self.end()

    def answer(self) -> None:
        """Pass on what the server sends, until an answer is to be swallowed."""
        with suppress(OSError):
            while data := self._server.recv(65_536):
                if self._swallow:
                    if any(end in data for end in _ENDS):
                        self._proxy.broken.set()
                        break
                else:
                    self._client.sendall(data)
        self.end()

    def end(self) -> None:
        """Break both sides off."""
        _reset(self._client)
        _reset(self._server)

    def _fate(self, kind: bytes, message: bytes) -> Break | None:
        if self._locks(kind, message):
            self._locked = True
        elif kind in (b"Q", b"P") and b"COMMIT" in message[:64] and self._locked:
            self._locked = False
            return self._proxy.judge()
        elif kind in (b"Q", b"P") and (b"ROLLBACK" in message[:64] or b"BEGIN" in message[:64]):
            self._locked = False
        return None

    def _locks(self, kind: bytes, message: bytes) -> bool:
        """Whether the message takes the join lock, by text or by the name of a prepared statement that does."""
        body = message[5:]
        if kind == b"P" and LOCK in body:
            self._locking.add(body.split(b"\0", 1)[0])
            return True
        if kind == b"B":
            return body.split(b"\0", 2)[1] in self._locking - {b""}
        return kind == b"Q" and LOCK in body


def _messages(client: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Messages as the client sends them, whole, with their type; empty for those of the start."""
    buffer, typed = b"", False
    while data := client.recv(65_536):
        buffer += data
        while len(buffer) >= (size := _size(buffer, typed)):
            message, buffer = buffer[:size], buffer[size:]
            if typed:
                yield message[:1], message
            else:
                typed = struct.unpack("!H", message[4:6])[0] == _TYPED
                yield b"", message


def _size(buffer: bytes, typed: bool) -> int:
    """How long the message at the beginning of the buffer is; more than there is, if that is not known yet."""
    header = 1 if typed else 0
    if len(buffer) < header + 4:
        return len(buffer) + 1
    length: int = struct.unpack("!I", buffer[header : header + 4])[0]
    return header + length


def _dial(upstream: Upstream) -> socket.socket:
    if isinstance(upstream, tuple):
        return socket.create_connection(upstream)
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(upstream))
    return link


def _reset(side: socket.socket) -> None:
    """End at once, not in good order; a thread that reads from it wakes up."""
    with suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        side.close()
