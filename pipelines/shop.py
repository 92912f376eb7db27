"""A shop that writes to simulated customers through the HTTP API, and lets simulated time pass.

Nobody is asked by this module what they think of a line before they see it: it asks ``/v1/rank`` for a choice, lets
the customer respond (``pipelines/simulator.py``), and posts the events when they arrive. Responses are drawn from a
generator per customer and wave, so that the order of answers over several connections changes nothing.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx2
import numpy as np

from infra.clock import HOUR, SimulatedClock
from infra.errors import Unavailable
from pipelines.simulator import Arrival, Customer, World, events_of, organic_events, respond
from pipelines.templates import Draft

STEP = 6 * HOUR
"""Events are posted every so often."""
BATCHES = 4
"""A wave goes out in so many batches, ``PAUSE`` apart: early clicks steer the later ones."""
PAUSE = 3 * HOUR
POSTED = 250
"""Most events in one request."""
_TIMEOUT = 30.0


class Api:
    """The calls the shop makes. A refused one raises :class:`Unavailable` with the server's own sentence."""

    def __init__(self, origin: str, connections: int) -> None:
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.Client(base_url=origin, timeout=_TIMEOUT, trust_env=False, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of one call."""
        try:
            answer = self._client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise Unavailable(f"{method} {path}: the API does not answer ({type(error).__name__})") from error
        if answer.is_error:
            raise Unavailable(f"{method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()


class Shop:
    """Customers, copy and a campaign, at one moment of simulated time."""

    def __init__(
        self,
        api: Api,
        clock: SimulatedClock,
        world: World,
        customers: Sequence[Customer],
        loop: str,
        campaign: str,
        seed: int,
        connections: int,
    ) -> None:
        self._api, self._clock, self._world = api, clock, world
        self._customers, self._loop, self._campaign = customers, loop, campaign
        self._seed, self._connections = seed, connections
        self._features: dict[str, Mapping[str, Any]] = {}
        self._order = itertools.count()
        self._coming: list[tuple[int, int, dict[str, Any]]] = []
        self.posted = {"accepted": 0, "duplicate": 0, "pending": 0, "rejected": 0}
        """What the API said about the events so far."""

    def open(self, definition: dict[str, Any], brief: str, drafts: Sequence[Draft]) -> None:
        """Register loop, campaign and copy, approve the copy, and start the campaign."""
        self._api.call("PUT", f"/v1/loops/{self._loop}", definition)
        self._api.call("POST", "/v1/campaigns", {"campaign": self._campaign, "loop": self._loop, "brief": brief})
        contents = {f"{self._campaign}-{number:02d}": draft for number, draft in enumerate(drafts, 1)}
        bodies = [draft.content(content_id) for content_id, draft in contents.items()]
        self._api.call("POST", "/v1/contents", {"campaign": self._campaign, "contents": bodies})
        for content_id in contents:
            self._api.call("POST", f"/v1/contents/{content_id}/approval", {"approval": "approved", "actor": "demo"})
        self._api.call(
            "POST",
            "/v1/campaigns",
            {"campaign": self._campaign, "loop": self._loop, "brief": brief, "state": "running"},
        )
        self._features = {content_id: draft.factors for content_id, draft in contents.items()}

    def take(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over a campaign that runs already: what is in each of its contents, by id."""
        self._features = dict(features)

    def chooses(self) -> bool:
        """Whether the API knows what to choose from by now."""
        try:
            self._rank("probe", self._customers[0], dry_run=True)
        except Unavailable:
            return False
        return True

    def send_wave(self, wave: int, done: Callable[[int], None]) -> None:
        """One message to every customer, in batches over the day; ``done`` is told how many were sent."""
        rng = np.random.default_rng([self._seed, wave])
        order = rng.permutation(len(self._customers))
        with ThreadPoolExecutor(self._connections) as pool:
            for batch in np.array_split(order, BATCHES):
                try:
                    for arrivals in pool.map(lambda index: self._send(wave, int(index)), batch):
                        self._expect(arrivals)
                        done(1)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                self.pass_time(self._clock() + PAUSE)

    def expect_organic(self, wave: int, until: int) -> None:
        """Let customers buy without any message between now and ``until``."""
        rng = np.random.default_rng([self._seed, wave, len(self._customers)])
        prefix = f"{self._loop}-{wave}"
        self._expect(organic_events(self._world, rng, self._customers, self._clock(), until, prefix))

    def pass_time(self, until: int) -> None:
        """Move the clock to ``until`` in steps, and post what has arrived by then."""
        while (now := self._clock()) < until:
            self._clock.set(min(now + STEP, until))
            self._post()

    def model_in_use(self) -> str | None:
        """The reward model that a choice would be made with now."""
        answer = self._rank("probe", self._customers[0], dry_run=True)
        version: str | None = answer["model_version"]
        return version

    def _send(self, wave: int, index: int) -> list[Arrival]:
        customer = self._customers[index]
        decision_id = f"{self._campaign}-w{wave}-{customer.customer_id}"
        answer = self._rank(decision_id, customer)
        content_id = answer["ranked"][0]["content_id"]
        rng = np.random.default_rng([self._seed, wave, index])
        response = respond(self._world, rng, customer, self._features[content_id], self._clock())
        return events_of(self._world, rng, customer, response, decision_id)

    def _rank(self, decision_id: str, customer: Customer, **options: Any) -> Any:
        body = {"decision_id": decision_id, "loop": self._loop, "campaign": self._campaign}
        who = {"unit": customer.customer_id, "context": customer.context}
        return self._api.call("POST", "/v1/rank", body | who | options)

    def _expect(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            heapq.heappush(self._coming, (arrival.at, next(self._order), arrival.event))

    def _post(self) -> None:
        now, arrived = self._clock(), []
        while self._coming and self._coming[0][0] <= now:
            arrived.append(heapq.heappop(self._coming)[2])
        for start in range(0, len(arrived), POSTED):
            answer = self._api.call("POST", "/v1/events", {"events": arrived[start : start + POSTED]})
            for state in ("accepted", "duplicate", "pending"):
                self.posted[state] += answer[state]
            self.posted["rejected"] += len(answer["rejected"])
