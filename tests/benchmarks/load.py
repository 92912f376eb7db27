"""A load generator that costs little: raw keep-alive sockets, requests encoded beforehand, no more of an answer read
than its status and its length.

It is a process of its own (``python -m tests.benchmarks.load``): what to do comes as JSON on its standard input, what
was measured goes as JSON to its standard output.

- *closed loop* (``rate`` 0): each connection sends the next request once it has its answer.
- *open loop*: requests are due at a fixed rate whatever the answers do. A latency counts from the moment the request was
  due, so a server that stops is not asked less (no coordinated omission).
"""

import os
import selectors
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
OK = b"200"
GRACE_SECONDS = 10.0
"""How long answers may still come after the last request."""


class Plan(msgspec.Struct, frozen=True):
    """What to do. ``requests``: a file of whole HTTP requests, as ``write_requests`` makes it."""

    address: tuple[str, int]
    requests: str
    connections: int
    seconds: float
    rate: float = 0.0
    warm_up: float = 0.5
    """Seconds at the beginning that are not counted."""


class Load(msgspec.Struct, frozen=True):
    """What was measured, milliseconds. ``failed``: answers other than 200 and requests without one."""

    rate: float
    p50: float
    p90: float
    p99: float
    longest: float
    sent: int
    """Before the counted time too."""
    answered: int
    failed: int
    cpu_microseconds: float
    """What the generator itself spent on a request."""


def run(plan: Plan) -> Load:
    """Load a server from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.load"]
    done = subprocess.run(command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Load)


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


def write_requests(path: Path, target: str, bodies: Sequence[bytes], headers: str = "") -> str:
    """Whole requests for these bodies, each behind its length; returns the file's name."""
    with path.open("wb") as file:
        for body in bodies:
            head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            file.write(len(whole).to_bytes(4, "big") + whole)
    return str(path)


def _read_requests(path: str) -> list[bytes]:
    content, found, at = Path(path).read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


class _Connection:
    """A socket, when its request was due, and what has come of the answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._come = b""

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The status of the answer once it is whole. Raises ``ConnectionError`` when the server hangs up."""
        part = self.socket.recv(262_144)
        if not part:
            raise ConnectionError
        self._come = self._come + part if self._come else part
        head = self._come.find(HEAD_END)
        if head < 0:
            return None
        lowered = self._come[:head].lower()
        place = lowered.find(LENGTH)
        length = int(lowered[place + len(LENGTH) :].split(b"\r", 1)[0])
        if len(self._come) < head + len(HEAD_END) + length:
            return None
        self._come = b""
        return bytes(lowered[9:12])


def _loop(plan: Plan) -> Load:
    requests, selector = _read_requests(plan.requests), selectors.DefaultSelector()
    idle: deque[_Connection] = deque()
    for _ in range(plan.connections):
        connection = _Connection(plan.address)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        idle.append(connection)
    latencies, failed, sent, open_requests = array("d"), 0, 0, 0
    cpu, begun = time.process_time(), time.perf_counter()
    counted_from, end = begun + plan.warm_up, begun + plan.warm_up + plan.seconds
    due: deque[float] = deque()
    planned = 0
    last = counted_from
    while (now := time.perf_counter()) < end or open_requests or due:
        if now > end + GRACE_SECONDS:
            failed += open_requests + len(due)
            break
        if plan.rate:
            while now < end and begun + planned / plan.rate <= now:
                due.append(begun + planned / plan.rate)
                planned += 1
        while idle and (due or (not plan.rate and now < end)):
            connection = idle.popleft()
            connection.ask(requests[sent % len(requests)], due.popleft() if plan.rate else time.perf_counter())
            sent += 1
            open_requests += 1
        for key, _ in selector.select(_wait(plan, begun, planned, now, end)):
            connection = key.data
            status = connection.answer()
            if status is None:
                continue
            answered = time.perf_counter()
            open_requests -= 1
            idle.append(connection)
            if connection.due < counted_from:
                continue
            failed += status != OK
            latencies.append((answered - connection.due) * 1e3)
            last = answered
    return _summary(latencies, failed, sent, last - counted_from, time.process_time() - cpu)


def _wait(plan: Plan, begun: float, planned: int, now: float, end: float) -> float:
    """How long nothing is due."""
    if plan.rate and now < end:
        return max(0.0, begun + planned / plan.rate - time.perf_counter())
    return 0.1


def _summary(latencies: "array[float]", failed: int, sent: int, seconds: float, cpu: float) -> Load:
    ordered = sorted(latencies)
    if not ordered:
        raise SystemExit("Nothing was answered")

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return Load(
        rate=round((len(ordered) - failed) / seconds, 1),
        p50=at(0.5),
        p90=at(0.9),
        p99=at(0.99),
        longest=round(ordered[-1], 3),
        sent=sent,
        answered=len(ordered),
        failed=failed,
        cpu_microseconds=round(cpu / sent * 1e6, 1),
    )


if __name__ == "__main__":
    os.write(1, msgspec.json.encode(_loop(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))
