"""How many requests are worked on at once, and which are turned away: a full server says so quickly, it does not get slow.

ASGI middleware, the first to see a request. The order of one request:

1. while decisions are being turned away, whoever has no free place is refused before its body is read; so is a decision
   that would have to wait too long for its turn on the event loop
2. its body arrives, within ``body_seconds`` (408) and within the bytes that all unfinished bodies may take (503); if
   its sender hangs up meanwhile it is given up, whatever has come
3. it takes a place, or waits for one for at most ``wait_seconds``; readers who follow a link come first, then
   decisions, then events, then everything else. No place: 503 with ``Retry-After``
4. it is worked on; its place goes to whoever waits and comes first

Why events come after decisions: who sends events sends them again, and an event that comes later counts the same; a
decision that comes later may be of no use.

Health, readiness and metrics take no place: whoever watches a full server must see it.

How many places there are. Usually ``most``. While decisions are being turned away a place more only makes everybody's
answer later, so there are as many as are done in ``TWICE`` the usual time of a decision: L = λ·W (Little 1961), λ the
answers per second of the last half second, W twice the mean time a decision took while nobody was turned away. Should
decisions be slower than that although there are hardly any, the usual time follows. Events that hang take nothing from
decisions: they have places of their own, fewer than there are threads.

Most decisions are made on the event loop itself, one after the other, so that places alone do not bound how late they
are: a thousand that arrive together are a thousand in one turn of the loop. So a turn takes in decisions for
``TURN_USUAL`` usual times of one and ``TURN_SECONDS`` at most (``FEW`` in any case), and while decisions are being turned away for the usual time of one; the
rest is turned away, which costs next to nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.telemetry import requests_in_flight, shed_requests

Kind = Literal["reader", "decision", "event", "other"]

TWICE = 2.0
"""How long a decision may take on a full server, in usual times."""
QUIET_SECONDS = 2.0
"""Once no decision was turned away for so long, all places are back."""
TURN_USUAL = 25.0
TURN_SECONDS = 0.2
"""For how long one turn of the event loop takes in decisions; ``FEW`` of them it takes in anyway, and ``LEAST`` while
decisions are being turned away."""
FEW = 64
"""So many decisions that arrive together are no flood, however slow the machine is at the moment."""
LEAST = 4
"""Fewest places: with fewer, nothing is learned of how much the server can do."""
REFUSED = "rewardloop.refused"
"""Set in the scope of a request that was turned away: its connection is not listened to for a while."""
UNFINISHED_BYTES = 64 << 20
"""Most bytes of bodies that have not arrived whole, of all requests together."""

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("/v1/rank", "decision"),
    ("/v1/score", "decision"),
    ("/v1/decisions/", "decision"),
    ("/v1/events", "event"),
    ("/v1/webhooks/", "event"),
    ("/v1/feedback", "event"),
    ("/personalizer/", "decision"),
    ("/r/", "reader"),
)
_WATCHERS = frozenset({"/healthz", "/readyz", "/metrics"})
_SHARES: dict[Kind, float] = {"reader": 2.0, "decision": 1.0, "event": 0.375, "other": 0.1875}
"""Of the places, what each kind may take at most. Readers get in when all places are taken."""
_THREADS: dict[Kind, int] = {"event": 20, "other": 12}
"""Of the 40 threads that calls are made in. The rest is left to decisions even when no event is ever answered, as with a
database that hangs."""
_ORDER: tuple[Kind, ...] = ("reader", "decision", "event", "other")
_WINDOW = 0.5
_SLOW = 0.01
"""Weight of one decision in the usual time of decisions."""
_UNKNOWN = 0.05
"""Usual time, in seconds, before there was any."""

_FULL = "The server has more to do than it can; send the same request again later"
_SLOW_BODY = "The body did not arrive in time; send it again, in one piece"
_TITLES = {503: "Temporarily unavailable", 408: "Too slow"}


class Turned(NamedTuple):
    """Why a request is turned away."""

    status: int
    detail: str
    reason: str


FULL = Turned(503, _FULL, "full")
FULL_OF_BODIES = Turned(503, _FULL, "bodies")
TOO_SLOW = Turned(408, _SLOW_BODY, "slow_body")


class _TurnedAway(Exception):
    def __init__(self, why: Turned) -> None:
        self.why = why


class _HungUp(Exception):
    """The sender is gone before its body was whole."""


class Places:
    """The places of one server, and who waits for one. Of one event loop, so that nothing needs a lock."""

    def __init__(self, most: int, wait_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.wait_seconds, self._clock = most, wait_seconds, clock
        self.taken: dict[Kind, int] = dict.fromkeys(_ORDER, 0)
        self._waiting: dict[Kind, deque[asyncio.Future[None]]] = {kind: deque() for kind in _ORDER}
        self._turned_at = -QUIET_SECONDS
        self._turn_began: float | None = None
        self._turn_took = 0
        self._usual = _UNKNOWN
        self._rate = 0.0
        self._answered, self._since = 0, clock()

    @property
    def count(self) -> int:
        """How many places there are now."""
        if not self.turning_away:
            return self.most
        return min(self.most, max(LEAST, round(self._rate * TWICE * self._usual)))

    @property
    def turning_away(self) -> bool:
        """Whether decisions were turned away a moment ago."""
        return self._clock() - self._turned_at < QUIET_SECONDS

    def late(self) -> bool:
        """Whether this turn of the event loop has taken in as much as it may. Within a running loop."""
        now = self._clock()
        if self._turn_began is None:
            self._turn_began, self._turn_took = now, 0
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._turn_took += 1
        most, usual = (LEAST, 1.0) if self.turning_away else (FEW, TURN_USUAL)
        return self._turn_took > most and now - self._turn_began > min(usual * self._usual, TURN_SECONDS)

    def _end_turn(self) -> None:
        self._turn_began = None

    def free(self, kind: Kind) -> bool:
        """Whether there is a place for this kind now."""
        allowed = self.most if kind != "reader" else _most(kind, self.most)
        return self.taken[kind] < _most(kind, self.count) and sum(self.taken.values()) < allowed

    async def enter(self, kind: Kind) -> bool:
        """Take a place, waiting for it if need be; False: turned away."""
        if self.free(kind) and not self._waiting[kind]:
            self.taken[kind] += 1
            return True
        if self.turning_away or len(self._waiting[kind]) >= _most(kind, self.most):
            self.turn_away(kind)
            return False
        turn = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(turn)
        try:
            await asyncio.wait_for(turn, self.wait_seconds)
        except TimeoutError:
            self.turn_away(kind)
            return False
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.taken[kind] -= 1
                self._let_in()
            raise
        finally:
            if turn in self._waiting[kind]:
                self._waiting[kind].remove(turn)
        return True

    def leave(self, kind: Kind, seconds: float) -> None:
        """Give a place back after so long."""
        self.taken[kind] -= 1
        self._learn(kind, seconds)
        self._let_in()

    def turn_away(self, kind: Kind) -> None:
        """Remember that one of this kind was turned away now."""
        if kind == "decision":
            self._turned_at = self._clock()

    def _learn(self, kind: Kind, seconds: float) -> None:
        self._answered += 1
        now = self._clock()
        if now - self._since >= _WINDOW:
            self._rate = self._answered / (now - self._since)
            self._answered, self._since = 0, now
        if kind != "decision":
            return
        if not self.turning_away:
            self._usual += _SLOW * (seconds - self._usual)
        elif self.count == LEAST:
            self._usual += _SLOW * max(0.0, seconds / TWICE - self._usual)

    def _let_in(self) -> None:
        for kind in _ORDER:
            waiting = self._waiting[kind]
            while waiting and self.free(kind):
                turn = waiting.popleft()
                if not turn.done():
                    self.taken[kind] += 1
                    turn.set_result(None)


def _most(kind: Kind, count: int) -> int:
    """How many of ``count`` places a kind may take."""
    return min(_THREADS.get(kind, 2 * count), max(1, int(_SHARES[kind] * count)))


class Admission:
    """ASGI middleware. ``body_seconds``: how long a body may take to arrive."""

    def __init__(self, app: ASGIApp, most: int, wait_seconds: float, body_seconds: float) -> None:
        self.app = app
        self.places = Places(most, wait_seconds)
        requests_in_flight.set_function(lambda: float(sum(self.places.taken.values())))
        self.body_seconds = body_seconds
        self._unfinished = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _WATCHERS:
            await self.app(scope, receive, send)
            return
        visit = _Visit(self, kind_of(scope["path"]))
        try:
            await visit.serve(scope, receive, send)
        except _TurnedAway as turned:
            shed_requests.labels(visit.kind, turned.why.reason).inc()
            if turned.why.status == 503:
                scope[REFUSED] = True
            await _refuse(scope, send, turned.why)
        except _HungUp:
            shed_requests.labels(visit.kind, "hung_up").inc()

    def arriving(self, size: int) -> None:
        """Count bytes of unfinished bodies; negative: they are whole, or given up."""
        self._unfinished += size
        if size > 0 and self._unfinished > UNFINISHED_BYTES:
            raise _TurnedAway(FULL_OF_BODIES)


class _Visit:
    """One request on its way through. ``since``: when it took its place; None before."""

    def __init__(self, admission: Admission, kind: Kind) -> None:
        self.admission, self.kind = admission, kind
        self.since: float | None = None
        self._held = 0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        places = self.admission.places
        late = self.kind == "decision" and places.late()
        if late or (places.turning_away and not places.free(self.kind)):
            places.turn_away(self.kind)
            raise _TurnedAway(FULL)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._enter()
            receive_ = receive
        else:
            receive_ = self._reading(receive)
        try:
            await self.admission.app(scope, receive_, send)
        finally:
            self._give_up()
            if self.since is not None:
                places.leave(self.kind, time.monotonic() - self.since)

    def _reading(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self.admission.body_seconds

        async def read() -> Message:
            if self.since is not None:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _TurnedAway(TOO_SLOW) from None
            if message["type"] == "http.disconnect":
                raise _HungUp
            if message.get("more_body", False):
                self._hold(len(message.get("body", b"")))
            else:
                self._give_up()
                await self._enter()
            return message

        return read

    async def _enter(self) -> None:
        if not await self.admission.places.enter(self.kind):
            raise _TurnedAway(FULL)
        self.since = time.monotonic()

    def _hold(self, size: int) -> None:
        self._held += size
        self.admission.arriving(size)

    def _give_up(self) -> None:
        held, self._held = self._held, 0
        self.admission.arriving(-held)


def kind_of(path: str) -> Kind:
    """What kind of call a path is."""
    if path.startswith("/personalizer/") and "/events/" in path:
        return "event"
    return next((kind for prefix, kind in _KINDS if path.startswith(prefix)), "other")


async def _refuse(scope: Scope, send: Send, why: Turned) -> None:
    """The same document that ``problems`` makes, for a tenth of its time: this is what a full server does most."""
    path, title = scope["path"], _TITLES[why.status]
    if path.startswith("/personalizer/"):
        document: dict[str, object] = {"error": {"code": title.title().replace(" ", ""), "message": why.detail}}
    else:
        kind = f"urn:rewardloop:problem:{title.lower().replace(' ', '-')}"
        told = {"status": why.status, "detail": why.detail, "instance": path, "errors": []}
        document = {"type": kind, "title": title, **told}
    body = msgspec.json.encode(document)
    headers = [
        (b"content-type", b"application/problem+json" if "type" in document else b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1") if why.status == 503 else (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": why.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
