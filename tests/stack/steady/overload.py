"""More work than a server can do: ten times its capacity, and callers who hold on to connections.

1. capacity: what one server answers in a second to 32 callers who never pause. Its usual times are those at half of that
2. the flood: questions come at ten times the capacity, over hundreds of connections, and nobody heeds ``Retry-After``
3. after it: how long until a question is answered as usual, and what became of the memory

Then the callers who cost something and bring nothing, while others are answered: heads and bodies that do not come, a
connection that says nothing, answers that nobody takes, bodies that are too large or too deep, 501 candidates, numbers
that are none.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tests.stack.steady.crowd import asking, lasting, question_of
from tests.stack.steady.flood import OK, SHED, Flood, Plan, flood
from tests.stack.steady.servers import Address, Server

TIMES = 10.0
MOST_SLOWER = 3.0
"""How much longer than usual those who are let in may take, at the 99th percentile."""
MOST_GROWTH = 128 << 20
"""Most bytes of memory a flood may cost."""
RECOVERY_SECONDS = 5.0
_QUESTIONS = 500


class Line(NamedTuple):
    """A line of the table."""

    load: str
    offered: float
    answered: float
    p50: float
    p99: float
    shed: int
    shed_p99: float
    soon: int
    """Questions that came sooner than the server had said; they are in none of the columns before."""
    soon_p99: float
    """Of those of them that were answered."""
    lost: int
    memory: float
    """Megabytes."""


class Overload(NamedTuple):
    """The table, and what must not be."""

    lines: Sequence[Line]
    faults: Sequence[str]
    recovered: float


def overload(server: Server, bodies: Sequence[str], seconds: float, connections: int = 600) -> Overload:
    """Flood a server."""
    wanted = list(bodies[:_QUESTIONS])
    flood(Plan(server.port, wanted, 32, seconds / 4))  # so that everything was done once
    full = flood(Plan(server.port, wanted, 32, seconds))
    usual = flood(Plan(server.port, wanted, 32, seconds, full.answered / 2))
    before, most = server.memory(), _Most(server)
    with most:
        flooded = flood(Plan(server.port, wanted, connections, seconds, full.answered * TIMES))
    recovered = _recovery(server, wanted, usual.of(OK).p99)
    lines = [
        _line("capacity", full, before),
        _line("half of it: usual", usual, before),
        _line(f"{TIMES:g} times", flooded, most.bytes),
    ]
    faults = _faults(usual, flooded, most.bytes - before)
    if recovered > RECOVERY_SECONDS:
        faults.append(f"usual again only after {recovered:.1f} s")
    return Overload(lines, faults, recovered)


def _faults(usual: Flood, flooded: Flood, growth: int) -> list[str]:
    shed, soon, ratio = flooded.of(SHED), flooded.soon_of(SHED), flooded.of(OK).p99 / usual.of(OK).p99
    told = shed.count - shed.retry_after + soon.count - soon.retry_after
    rules = {
        f"those let in take {ratio:.1f} times their usual p99": ratio > MOST_SLOWER,
        "nobody was turned away": shed.count == 0,
        f"{told} were not told when to try again": told > 0,
        f"{flooded.lost} questions had no answer": flooded.lost > 0,
        f"other answers: {sorted(flooded.by_status | flooded.soon)}": bool(
            (flooded.by_status | flooded.soon).keys() - {OK, SHED}
        ),
        f"memory grew by {growth >> 20} MB": growth > MOST_GROWTH,
    }
    return [sentence for sentence, broken in rules.items() if broken]


def _line(load: str, found: Flood, memory: int) -> Line:
    good, shed, soon = found.of(OK), found.of(SHED), sum(one.count for one in found.soon.values())
    times = (good.p50, good.p99, shed.count, shed.p99, soon, found.soon_of(OK).p99)
    return Line(load, found.offered, found.answered, *times, found.lost, memory / 2**20)


def _recovery(server: Server, bodies: Sequence[str], usual: float) -> float:
    """Seconds until ten questions in a row were answered in ``MOST_SLOWER`` usual times (milliseconds)."""
    began, good = time.monotonic(), 0
    with server.caller() as caller:
        while good < 10 and time.monotonic() - began < 60.0:
            answer = caller.post("/v1/rank", json.loads(bodies[good]))
            good = good + 1 if answer.is_ok and answer.seconds * 1e3 <= MOST_SLOWER * usual else 0
    return time.monotonic() - began


class _Most:
    """The most memory that a server held while this was entered."""

    def __init__(self, server: Server) -> None:
        self.bytes = 0
        self._server, self._done = server, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Most":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.bytes = max(self.bytes, self._server.memory())


class Nuisance(NamedTuple):
    """A line of the second table. ``answers``: how many callers of the kind got which answer (status, or ``closed``)."""

    kind: str
    callers: int
    answers: dict[str, int]
    slowest: float
    """Seconds until the last of them was answered or cut off."""
    others: int
    """Questions of other callers that were answered meanwhile, and ``failed`` that were not."""
    failed: int
    faults: Sequence[str]


HEAD = "POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def whole(body: bytes, head: str = HEAD) -> bytes:
    """A whole request."""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def nuisances(candidates: int = 500) -> dict[str, tuple[bytes, str]]:
    """What callers send, and the answer they must get. ``closed``: none is possible."""
    question = question_of(0) | {"decision_id": "nuisance"}
    one = {"slots": {"subject": "Line"}}
    deep = b'{"context":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}"
    drafts = json.dumps(question | {"candidates": [one] * (candidates + 1)}).encode()
    names = json.dumps(question | {"candidates": [f"c{number}" for number in range(candidates + 1)]}).encode()
    return {
        "a connection that says nothing": (b"", "408"),
        "half a head": (b"POST /v1/rank HTTP/1.1\r\nHost: lo", "408"),
        "half a body": (whole(b"{" * 64).replace(b"Content-Length: 64", b"Content-Length: 640"), "408"),
        "a body of 4 MB": (whole(b"[" + b"1," * (2 << 20) + b"1]"), "413"),
        "a body that says it has 1 GB": (f"{HEAD}Content-Length: 1073741824\r\n\r\n{{".encode(), "413"),
        "chunks without end": (
            f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1000\r\n" + b" " * 4096 + b"\r\n",
            "408",
        ),
        "nested 200 deep": (whole(deep), "422"),
        f"{candidates + 1} candidates": (whole(drafts), "422"),
        f"{candidates + 1} named candidates": (whole(names), "422"),
        "NaN": (whole(json.dumps(question).replace("}", ', "x": NaN}', 1).encode()), "400"),
        "1e999": (whole(json.dumps(question).replace("}", ', "x": 1e999}', 1).encode()), "422"),
        "no HTTP": (b"\x16\x03\x01\x02\x00" * 40 + b"\r\n\r\n", "400"),
        "a head of 1 MB": (b"GET / HTTP/1.1\r\n" + (b"X: " + b"a" * 10_000 + b"\r\n") * 100, "400 or 431"),
    }


def bother(server: Address, kind: str, sent: bytes, wanted: str, callers: int, timeout: float) -> Nuisance:
    """Let ``callers`` send it at once, while others ask. ``timeout``: seconds in which each must be answered."""
    sockets: list[socket.socket] = []
    answers: dict[str, int] = {}
    slowest = 0.0
    with asking(server, 2, pause=0.02) as crowd:
        lasting(crowd, 0.1, least=3)
        first, began = len(crowd.asked), time.monotonic()
        for _ in range(callers):
            link = socket.create_connection(("127.0.0.1", server.port))
            link.settimeout(timeout)
            with suppress(OSError):
                link.sendall(sent)
            sockets.append(link)
        for link in sockets:
            answer = _status(link)
            answers[answer] = answers.get(answer, 0) + 1
            slowest = max(slowest, time.monotonic() - began)
            link.close()
        others = lasting(crowd, 0.1, least=3) and crowd.asked[first:]
    failed = sum(not one.answer.is_ok for one in others)
    odd = set(answers) - set(wanted.split(" or "))
    faults = [f"{kind}: {answers} instead of {wanted}"] if odd else []
    faults += [f"{kind}: {failed} other questions failed"] if failed else []
    return Nuisance(kind, callers, answers, slowest, len(others), failed, faults)


def half_open(server: Address, callers: int) -> Nuisance:
    """Callers who send half a body and are gone without a word: nothing of it may be worked on."""

    def vanish() -> None:
        link = socket.create_connection(("127.0.0.1", server.port))
        body = json.dumps(question_of(0) | {"decision_id": "vanished"}).encode()
        link.sendall(whole(body).replace(f"Content-Length: {len(body)}".encode(), b"Content-Length: 9999"))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()

    with asking(server, 2, pause=0.02) as crowd:
        first, began = len(crowd.asked), time.monotonic()
        for _ in range(callers):
            vanish()
        others = lasting(crowd, 0.3, least=3) and crowd.asked[first:]
    taken, trace = time.monotonic() - began, server.ask("GET", "/v1/decisions/vanished")
    failed = sum(not one.answer.is_ok for one in others)
    faults = [] if trace.status == 404 else [f"half open: half a question was decided ({trace.status})"]
    faults += [f"half open: {failed} other questions failed"] if failed else []
    return Nuisance("gone in the middle of a body", callers, {"closed": callers}, taken, len(others), failed, faults)


def _status(link: socket.socket) -> str:
    """The status that was answered; ``closed`` or ``nothing`` without."""
    found = b""
    try:
        while b"\r\n" not in found and (part := link.recv(65_536)):
            found += part
    except TimeoutError:
        return "nothing"
    except OSError:
        return "closed"
    return found.split(b" ", 2)[1].decode() if found.startswith(b"HTTP/1.1 ") else "closed"


def each(server: Address, callers: int, timeout: float, only: Callable[[str], bool] = lambda _: True) -> list[Nuisance]:
    """Every nuisance, one after the other."""
    found = [
        bother(server, kind, sent, wanted, callers, timeout)
        for kind, (sent, wanted) in nuisances().items()
        if only(kind)
    ]
    return [*found, half_open(server, callers)]


def questions(count: int = _QUESTIONS, **fields: Any) -> list[str]:
    """Questions without ids, so that each is a decision of its own."""
    plain = [question_of(number, **fields) for number in range(count)]
    return [json.dumps({name: value for name, value in one.items() if name != "decision_id"}) for one in plain]
