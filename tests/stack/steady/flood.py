"""A flood of questions, from a process of its own: many connections, a rate that no answer slows down.

``python -m tests.stack.steady.flood``: a :class:`Plan` as JSON on standard input, a :class:`Flood` on standard output.
A question is due at its time whatever the answers do, and its latency counts from when it was sent: a connection that
waits for an answer sends nothing, so that more than ``connections`` are never under way. Answers are told apart by
their status, and so are those to questions that came sooner than the last answer on their connection had said
(``Retry-After``): the server does not listen to such callers for a while, and that while is their own.
"""

import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

import msgspec

OK, SHED = "200", "503"
GRACE_SECONDS = 15.0
RETRY_SECONDS = 1.0
"""What the server says."""


class Plan(msgspec.Struct, frozen=True):
    """``rate``: questions per second; 0: each connection asks again once it is answered."""

    port: int
    bodies: list[str]
    connections: int
    seconds: float
    rate: float = 0.0


class Answers(msgspec.Struct, frozen=True):
    """Of one status: milliseconds, and how many said when to try again."""

    count: int
    p50: float
    p99: float
    longest: float
    retry_after: int


NONE = Answers(0, 0.0, 0.0, 0.0, 0)


class Flood(msgspec.Struct, frozen=True):
    """What came of it. ``offered``, ``answered``: questions sent, and answered 200, per second. ``lost``: without answer.
    ``soon``: of questions that came too soon, which are not in ``by_status``."""

    offered: float
    answered: float
    by_status: dict[str, Answers]
    soon: dict[str, Answers]
    lost: int

    def of(self, status: str) -> Answers:
        """The answers of a status, to questions that did not come too soon."""
        return self.by_status.get(status, NONE)

    def soon_of(self, status: str) -> Answers:
        """The answers of a status to those that did."""
        return self.soon.get(status, NONE)


def flood(plan: Plan) -> Flood:
    """Run it from a process of its own."""
    command = [sys.executable, "-m", "tests.stack.steady.flood"]
    done = subprocess.run(command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Flood)


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at, self.due_at = 0.0, 0.0
        """When it was asked, and when it may be asked again."""
        self._come = b""

    def ask(self, request: bytes) -> None:
        self._come, self.sent_at = b"", time.perf_counter()
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The head of the answer, once all of it is there. Raises ``ConnectionError`` when the server hangs up."""
        part = self.socket.recv(262_144)
        if not part:
            raise ConnectionError
        self._come += part
        head, end, body = self._come.partition(b"\r\n\r\n")
        lowered = head.lower()
        if not end or len(body) < int(lowered.partition(b"content-length:")[2].split(b"\r", 1)[0]):
            return None
        return lowered


def _run(plan: Plan) -> Flood:
    requests = [_request(body) for body in plan.bodies]
    selector, idle = selectors.DefaultSelector(), deque[_Connection]()
    for _ in range(plan.connections):
        _join(selector, idle, plan.port)
    began = time.perf_counter()
    end, sent, waiting, lost = began + plan.seconds, 0, 0, 0
    found: dict[bool, dict[str, list[tuple[float, bool]]]] = {False: {}, True: {}}
    """By whether the question came too soon, then by status."""
    while (now := time.perf_counter()) < end or (waiting and now < end + GRACE_SECONDS):
        allowed = len(idle) if not plan.rate else max(0, int((now - began) * plan.rate) - sent)
        while now < end and idle and allowed:
            idle.popleft().ask(requests[sent % len(requests)])
            sent, waiting, allowed = sent + 1, waiting + 1, allowed - 1
        for key, _ in selector.select(0.001 if now < end else 0.1):
            connection: _Connection = key.data
            try:
                head = connection.answer()
            except ConnectionError:
                selector.unregister(connection.socket)
                connection.socket.close()
                lost, waiting = lost + 1, waiting - 1
                _join(selector, idle, plan.port)
                continue
            if head is not None:
                now, told = time.perf_counter(), b"\r\nretry-after:" in head
                of = found[connection.sent_at < connection.due_at].setdefault(head[9:12].decode(), [])
                of.append(((now - connection.sent_at) * 1e3, told))
                connection.due_at = now + RETRY_SECONDS if told else 0.0
                idle.append(connection)
                waiting -= 1
    heeding, soon = ({status: _answers(of) for status, of in found[one].items()} for one in (False, True))
    good = sum(len(one.get(OK, ())) for one in found.values()) / plan.seconds
    return Flood(round(sent / plan.seconds, 1), round(good, 1), heeding, soon, lost + waiting)


def _join(selector: selectors.BaseSelector, idle: "deque[_Connection]", port: int) -> None:
    connection = _Connection(port)
    selector.register(connection.socket, selectors.EVENT_READ, connection)
    idle.append(connection)


def _request(body: str) -> bytes:
    content = body.encode()
    head = "POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def _answers(found: Sequence[tuple[float, bool]]) -> Answers:
    taken = sorted(seconds for seconds, _ in found)

    def at(share: float) -> float:
        return round(taken[min(len(taken) - 1, int(share * len(taken)))], 2)

    return Answers(len(taken), at(0.5), at(0.99), round(taken[-1], 2), sum(told for _, told in found))


if __name__ == "__main__":
    os.write(1, msgspec.json.encode(_run(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))
