"""Connections of the API that cost something and bring nothing: each is ended by a clock, and there are only so many.

uvicorn ends a connection that is idle after an answer. Three more ways to hold one for ever, and what ends them:

- a request whose head does not come, at the beginning or later: told 408 and closed after ``HEAD_SECONDS``; one that does
  not end: told 431 and closed after ``HEAD_BYTES``
- an answer that its reader does not take: cut after ``TAKE_SECONDS``
- more connections than ``most``: the next one is told 503 and closed, before anything of it is read

Who was told to come back in a second (``ingestion/http/admission.py``) and asks again at once is not listened to for
``PAUSE_SECONDS``: turning a question away costs a tenth of answering it, so callers who never wait would leave nothing
for the others. Whoever heeds ``Retry-After`` notices nothing.

And the other way round: connections that come in numbers are taken in numbers. uvloop accepts one in a turn of the event
loop and socket; on a full server six hundred that came together had waited ten seconds until the last was let in. So
there are ``EARS`` handles of the one socket.

Bodies that do not come are ``ingestion/http/admission.py``'s: there the sender gets an answer.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from ingestion.http.admission import REFUSED

HEAD_SECONDS = 10.0
HEAD_BYTES = 65_536
TAKE_SECONDS = 30.0
SPARE_FILES = 192
"""Open files that are not connections of callers: databases, logs, models, ears."""
PAUSE_SECONDS = 0.5
EARS = 64
"""Connections that are accepted in one turn of the event loop."""

_END = b"Content-Length: 0\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _END
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _END
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _END

_Http: Any = AutoHTTPProtocol
"""Which one that is depends on what is installed."""


def protocol(most: int) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with these limits. ``most``: connections at a time."""
    return type("Connection", (_Connection,), {"most": most})


def open_files_for(connections: int) -> int:
    """How many connections this process may have, at most ``connections``: as many as it may open files, which is
    raised as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - SPARE_FILES))


def ears(listening: socket.socket) -> list[socket.socket]:
    """The socket, and as many more handles of it."""
    return [listening, *(listening.dup() for _ in range(EARS - 1))]


class _Connection(_Http):  # type: ignore[misc]
    most = 0

    def connection_made(self, transport: Any) -> None:
        self._clock: asyncio.TimerHandle | None = None
        self._head = 0
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._end(_FULL)
        else:
            self._wait(HEAD_SECONDS, self._end, _LATE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._head = 0 if self._is_answering() else self._head + len(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._head > HEAD_BYTES and not self.transport.is_closing():
            self._end(_LARGE)
        elif self._clock is None and not self.transport.is_closing():
            self._wait(HEAD_SECONDS, self._end, _LATE)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if REFUSED in self.scope and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(PAUSE_SECONDS, self._listen)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def _is_answering(self) -> bool:
        """Whether a request has come whole enough to be worked on, and its answer has not gone."""
        return self.cycle is not None and not self.cycle.response_complete

    def _listen(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _end(self, last_words: bytes) -> None:
        self.connections.discard(self)
        self.transport.write(last_words)
        self.transport.close()

    def _wait(self, seconds: float, then: Callable[..., object], *arguments: Any) -> None:
        self._stop_waiting()
        self._clock = self.loop.call_later(seconds, then, *arguments)

    def _stop_waiting(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
