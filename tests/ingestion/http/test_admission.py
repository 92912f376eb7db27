"""Admission: who is let in, who waits, who is turned away, and what they are told."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from ingestion.http import admission
from ingestion.http.admission import FEW, LEAST, QUIET_SECONDS, TURN_SECONDS, TURN_USUAL, Admission, Places, kind_of
from ingestion.http.limits import BodyLimits
from ingestion.http.problems import Problem

RANK, EVENTS, LINK, LOOPS = "/v1/rank", "/v1/events", "/r/x.y", "/v1/loops"


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Held:
    """An app whose requests stay until ``go`` is set; it reads bodies as the real one does."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


class Client:
    """One request to an ASGI app, and its answer."""

    def __init__(self, path: str, method: str = "POST", parts: tuple[bytes, ...] = (b"{}",), ends: bool = True) -> None:
        self.path, self.method = path, method
        self._parts = [
            {"type": "http.request", "body": part, "more_body": not ends or place < len(parts) - 1}
            for place, part in enumerate(parts)
        ]
        self.answer: list[Message] = []
        self.hung_up = asyncio.Event()

    @property
    def status(self) -> int:
        """Of the answer; 0 without one."""
        return int(self.answer[0]["status"]) if self.answer else 0

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        return {name.decode(): value.decode() for name, value in self.answer[0]["headers"]}

    def document(self) -> Any:
        """The JSON of the answer."""
        return json.loads(self.answer[1]["body"])

    async def ask(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        """Send it and take the answer."""
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": self.method, "path": self.path, "headers": headers, "query_string": b""}
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._parts:
            return self._parts.pop(0)
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.answer.append(message)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(work())


async def settled() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def guarded(app: Any, most: int = 4, wait: float = 0.0, body: float = 5.0) -> Admission:
    """The app behind limits on bodies and admission, on a clock that stands: a slow machine turns nobody away."""
    made = Admission(BodyLimits(app, 1_000), most, wait, body)
    made.places = Places(most, wait, Clock())
    return made


def start(app: Admission, *paths: str) -> list[tuple[Client, "asyncio.Task[None]"]]:
    """Requests that are under way."""
    clients = [Client(path) for path in paths]
    return [(client, asyncio.ensure_future(client.ask(app))) for client in clients]


def test_more_than_there_is_room_for_is_told_to_come_again() -> None:
    """The first ``most`` are worked on, the next is told 503 with a problem document and Retry-After, at once."""

    async def work() -> None:
        held = Held()
        app = guarded(held)
        under_way = start(app, *[RANK] * 5)
        await settled()
        late = under_way[4][0]

        assert len(held.seen) == 4
        assert (late.status, late.headers["retry-after"]) == (503, "1")
        assert late.headers["content-type"] == "application/problem+json"
        assert Problem.model_validate(late.document()).instance == RANK
        held.go.set()
        await asyncio.gather(*(task for _, task in under_way))
        assert [client.status for client, _ in under_way] == [200] * 4 + [503]

    run(work)


def test_a_short_wait_is_better_than_a_refusal() -> None:
    """Who finds no place waits for one, and gets the first that is given back."""

    async def work() -> None:
        held = Held()
        app = guarded(held, wait=5.0)
        under_way = start(app, *[RANK] * 6)
        await settled()
        assert len(held.seen) == 4
        held.go.set()
        await asyncio.gather(*(task for _, task in under_way))

        assert {client.status for client, _ in under_way} == {200}

    run(work)


def test_nobody_waits_longer_than_was_said() -> None:
    """A place that does not come in time is a refusal."""

    async def work() -> None:
        app = guarded(Held(), wait=0.01)
        under_way = start(app, *[RANK] * 5)
        await under_way[4][1]

        assert under_way[4][0].status == 503
        for _, task in under_way:
            task.cancel()

    run(work)


def test_readers_come_first_then_decisions_then_events() -> None:
    """Of those who wait, the next place is a reader's, then a decision's, then an event's, then the rest's."""

    async def work() -> None:
        places = Places(4, 5.0)
        for _ in range(8):
            places.taken["reader"] += 1
        waiting = {kind: asyncio.ensure_future(places.enter(kind)) for kind in ("other", "event", "decision", "reader")}
        await settled()
        came = []
        for _ in range(8):
            places.leave("reader", 0.0)
            await settled()
            came += [kind for kind, turn in waiting.items() if turn.done() and kind not in came]
        assert came == ["reader", "decision", "event", "other"]

    run(work)


def test_no_kind_takes_the_threads_of_decisions() -> None:
    """However many events and lists hang, there is room for decisions; readers get in when all places are taken."""

    async def work() -> None:
        held = Held()
        app = guarded(held, most=64)
        start(app, *[EVENTS] * 200, *[LOOPS] * 200)
        await settled()
        hanging = len(held.seen)
        start(app, *[RANK] * 100)
        await settled()
        under_way = start(app, LINK)
        await settled()

        assert hanging < 40
        assert held.seen.count(RANK) == 64 - hanging
        assert (held.seen[-1], under_way[0][0].status) == (LINK, 0)
        held.go.set()

    run(work)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_who_watches_is_never_turned_away(path: str) -> None:
    """Health, readiness and metrics are answered by a full server."""

    async def work() -> None:
        held = Held()
        app = guarded(held)
        start(app, *[RANK] * 10)
        await settled()
        watcher = Client(path, "GET", ())
        task = asyncio.ensure_future(watcher.ask(app))
        await settled()
        held.go.set()
        await task
        assert watcher.status == 200

    run(work)


def test_a_body_that_does_not_come_takes_no_place() -> None:
    """Slow bodies leave all places to others, and are told 408 when their time is over."""

    async def work() -> None:
        held = Held()
        app = guarded(held, body=0.05)
        slow = [Client(RANK, parts=(b"{",), ends=False) for _ in range(10)]
        tasks = [asyncio.ensure_future(client.ask(app)) for client in slow]
        await settled()
        start(app, *[RANK] * 4)
        await settled()
        assert len(held.seen) == 4
        await asyncio.gather(*tasks)

        assert [client.status for client in slow] == [408] * 10
        assert slow[0].headers["connection"] == "close"
        held.go.set()

    run(work)


def test_half_a_body_is_never_worked_on() -> None:
    """A sender who hangs up in the middle of a body is answered nothing, though what came is readable."""

    async def work() -> None:
        held = Held()
        client = Client(RANK, parts=(b"{}",), ends=False)
        task = asyncio.ensure_future(client.ask(guarded(held)))
        await settled()
        client.hung_up.set()
        await task

        assert (held.seen, client.answer) == ([], [])

    run(work)


def test_unfinished_bodies_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """When unfinished bodies hold more than their share of memory the next part is refused; what ends gives it back."""
    monkeypatch.setattr(admission, "UNFINISHED_BYTES", 1_000)

    async def work() -> None:
        app = guarded(Held())
        clients = [Client(RANK, parts=(b" " * 400,), ends=False) for _ in range(3)]
        tasks = [asyncio.ensure_future(client.ask(app)) for client in clients]
        await settled()
        assert [client.status for client in clients] == [0, 0, 503]
        for client in clients:
            client.hung_up.set()
        await asyncio.gather(*tasks)
        assert app._unfinished == 0

    run(work)


def test_a_full_server_has_as_many_places_as_it_does_in_twice_the_usual_time() -> None:
    """While requests are turned away, places are answers per second times twice the usual seconds; then all are back."""
    clock = Clock()
    places = Places(64, 0.0, clock)
    for _ in range(2_000):
        clock.now += 0.01
        places.taken["decision"] += 1
        places.leave("decision", 0.1)
    before = places.count
    places.turn_away("decision")

    assert before == 64
    assert places.count == pytest.approx(100 * 2 * 0.1, abs=1)
    clock.now += QUIET_SECONDS
    assert places.count == 64


class Busy:
    """An app that holds the event loop for ``seconds`` of a clock's time, as a decision does, then answers."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._clock.now += self._seconds
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def test_a_turn_of_the_loop_takes_in_only_so_much() -> None:
    """Of 200 decisions that arrive together those are made that fit into so many usual times, but some in any case;
    events and the next turn are let in."""

    async def work(seconds: float, usual: float | None = None) -> int:
        clock = Clock()
        app = guarded(Busy(clock, seconds), most=256)
        app.places = Places(256, 0.2, clock)
        for _ in range(0 if usual is None else 2_000):
            assert await app.places.enter("decision")
            app.places.leave("decision", usual or 0.0)
        together = start(app, *[RANK] * 200, EVENTS)
        await asyncio.gather(*(task for _, task in together))
        clock.now += QUIET_SECONDS
        later = start(app, RANK)
        await asyncio.gather(*(task for _, task in later))

        assert together[200][0].status == 200
        assert later[0][0].status == 200
        return [client.status for client, _ in together].count(200) - 1

    assert asyncio.run(work(0.002)) == pytest.approx(TURN_SECONDS / 0.002, abs=2)
    assert asyncio.run(work(0.01)) == FEW
    assert asyncio.run(work(0.001, usual=0.004)) == pytest.approx(TURN_USUAL * 0.004 / 0.001, abs=2)
    assert asyncio.run(work(0.001, usual=0.001)) == FEW


def test_a_full_server_takes_in_less_at_a_turn() -> None:
    """While decisions are being turned away, a turn takes in what takes the usual time of one."""

    async def work() -> None:
        clock = Clock()
        app = guarded(Busy(clock, 0.01), most=256)
        app.places = Places(256, 0.2, clock)
        app.places.turn_away("decision")
        together = start(app, *[RANK] * 100)
        await asyncio.gather(*(task for _, task in together))

        assert 1 <= [client.status for client, _ in together].count(200) < 10

    run(work)


def test_decisions_that_became_slower_are_usual_in_the_end() -> None:
    """A server that is slower than it ever was, with hardly any places, gets more of them again."""
    clock = Clock()
    places = Places(64, 0.0, clock)
    places._usual = 0.001
    for _ in range(3_000):
        clock.now += 0.01
        places.turn_away("decision")
        places.taken["decision"] += 1
        places.leave("decision", 0.5)

    assert places.count > LEAST


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/rank", "decision"),
        ("/v1/decisions/x/activate", "decision"),
        ("/personalizer/v1.0/rank", "decision"),
        ("/personalizer/v1.0/events/x/reward", "event"),
        ("/v1/webhooks/stripe", "event"),
        ("/r/abc.def", "reader"),
        ("/", "other"),
        ("/v1/loops/mail/lift", "other"),
    ],
)
def test_kinds_of_calls(path: str, kind: str) -> None:
    """Every path is of one kind."""
    assert kind_of(path) == kind
