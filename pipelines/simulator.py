"""Customers of a known taste: what they click and buy, how late we hear of it, and what each choice is truly worth.

The taste is a table, customer tier and device by copy factor, in log odds of a click. Tiers disagree, so one line for
all cannot win: a policy that reads the context beats every single content, and both beat a uniform baseline.

    click rate   p(x, c) = activity · sigmoid(base + recency·days/90 + effect·Σ_f taste(x, f)·f(c) + quirk(c) − tired(c))
    revenue      r(x, c) = p(x, c) · buys(tier) · E[value | tier, discount] · (1 - refunded)

``activity`` is a trait of the customer that no context shows (mean 1): one customer's decisions are alike, which is why
everything is clustered by unit. A factor that comes more than once adds nothing but ``fatigue``: tired(c) = fatigue · Σ_f
max(0, f(c) − 1). Values are lognormal. Purchases without any message (``organic``) come on top, the
same under every policy. :func:`true_values` is exact: it is the oracle of the tests. Bots click on everything within
seconds, buy nothing, and are no customers: the oracle leaves them out.

Everything random comes from a NumPy generator that is passed in, so a seed declares a world's whole history.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infra.clock import DAY, HOUR, MICROS, MINUTE, format_time
from infra.database import canonical_json
from pipelines.templates import FACTORS

Array = NDArray[np.float64]
Tier = Literal["new", "regular", "gold"]
Device = Literal["mobile", "desktop"]

TIERS: tuple[Tier, ...] = ("new", "regular", "gold")
DEVICES: tuple[Device, ...] = ("mobile", "desktop")
ACTIVITIES = (0.6, 1.4)
"""Half of the customers are quiet, half are lively."""

TASTE: Mapping[str, Mapping[str, float]] = {
    "new": {"question": 0.6, "number": -0.2, "urgency": 0.4, "personal": -0.5, "discount": 1.0, "long": -0.4},
    "regular": {"question": -0.5, "number": 0.9, "urgency": -0.5, "personal": 0.3, "discount": 0.4, "long": 0.0},
    "gold": {"question": -0.2, "number": 0.1, "urgency": -0.9, "personal": 1.0, "discount": -1.0, "long": 0.6},
    "mobile": {"question": 0.0, "number": 0.2, "urgency": 0.1, "personal": 0.0, "discount": 0.0, "long": -0.5},
    "desktop": {"question": 0.0, "number": -0.2, "urgency": 0.0, "personal": 0.0, "discount": 0.0, "long": 0.3},
}
"""Log odds of a click that a factor adds, by tier and by device."""

SCANNER = "link-scanner"
"""What a bot names as its client in the properties of an event, so that its events can be labelled and left out."""


@dataclass(frozen=True)
class World:
    """What is true. The defaults are the demo's shop; ``effect=0, quirk=0`` is a world where copy does not matter."""

    seed: int = 0
    """Gives each content its quirk."""
    effect: float = 1.0
    """Scale of the taste table."""
    quirk: float = 0.2
    """Standard deviation, in log odds, of what makes a content good or bad beyond its factors."""
    fatigue: float = 0.0
    """What each repetition of a factor costs, in log odds of a click."""
    base: float = -2.0
    recency: float = -0.3
    buys: Mapping[str, float] = field(default_factory=lambda: {"new": 0.40, "regular": 0.45, "gold": 0.50})
    spends: Mapping[str, float] = field(default_factory=lambda: {"new": 32.0, "regular": 45.0, "gold": 60.0})
    """Mean value of a purchase."""
    spread: float = 0.3
    """Standard deviation of the logarithm of a value."""
    rebate: float = 0.12
    """Share of the value that a discount costs."""
    refunded: float = 0.05
    """Share of purchases taken back in full."""
    organic: float = 0.004
    """Purchases per customer and week that no message caused."""
    bots: float = 0.01
    """Share of addresses behind which a machine clicks."""
    duplicated: float = 0.08
    """Share of events that the sender sends twice."""
    linked: float = 0.5
    """Share of purchases that name their decision; the rest name the customer only."""
    currency: str = "EUR"


@dataclass(frozen=True)
class Customer:
    """Somebody who receives messages. ``activity`` is hidden from every policy."""

    customer_id: str
    tier: Tier
    device: Device
    days_since_order: int
    activity: float
    bot: bool = False

    @property
    def context(self) -> dict[str, Any]:
        """What is known when deciding."""
        return {"tier": self.tier, "device": self.device, "days_since_order": self.days_since_order}


@dataclass(frozen=True)
class Value:
    """What showing a content is worth, per decision. Scalars or arrays of one shape."""

    click: Array
    """Probability of a click."""
    revenue: Array
    """Expected net revenue that the message causes, in currency units."""

    def under(self, pmf: Array) -> "Value":
        """The same in expectation over a choice among the contents of the last axis."""
        return Value((self.click * pmf).sum(axis=-1), (self.revenue * pmf).sum(axis=-1))


@dataclass(frozen=True)
class Response:
    """What one customer did with one message. Times are microseconds; None: did not happen."""

    clicks: tuple[int, ...] = ()
    bought_at: int | None = None
    value: float = 0.0
    refunded_at: int | None = None


@dataclass(frozen=True)
class Arrival:
    """A native event and the moment it reaches the collector."""

    at: int
    event: dict[str, Any]


CLICK_DELAY = (40 * MINUTE, 1.3, 18 * HOUR)
"""Median, standard deviation of the logarithm, and longest: a message is opened within the day or not at all."""
PURCHASE_DELAY = (3 * HOUR, 1.2, DAY)
"""From click to purchase."""
REFUND_DELAY = (12 * HOUR, 0.8, 36 * HOUR)
"""From purchase to refund."""
ARRIVAL_DELAY = (4 * MINUTE, 2.0, 12 * HOUR)
"""From the event to us; so wide that events of one customer overtake each other."""


def draw_customers(world: World, rng: np.random.Generator, count: int, prefix: str = "c") -> list[Customer]:
    """``count`` customers; ``prefix`` keeps the ids of different crowds apart."""
    tiers = rng.choice(len(TIERS), size=count, p=(0.35, 0.4, 0.25))
    devices = rng.choice(len(DEVICES), size=count, p=(0.6, 0.4))
    days = np.minimum(rng.exponential(45.0, size=count), 180).astype(int)
    activity = rng.choice(ACTIVITIES, size=count)
    bot = rng.random(count) < world.bots
    return [
        Customer(
            f"{prefix}-{i}",
            TIERS[tiers[i]],
            DEVICES[devices[i]],
            int(days[i]),
            float(activity[i]),
            bool(bot[i]),
        )
        for i in range(count)
    ]


def true_value(world: World, context: Mapping[str, Any], features: Mapping[str, Any]) -> Value:
    """Exact click rate and revenue of a content in a context, averaged over what the context does not show."""
    both = [_values(world, [context], [features], np.array([activity])) for activity in ACTIVITIES]
    return Value(
        np.mean([value.click[0, 0] for value in both]),
        np.mean([value.revenue[0, 0] for value in both]),
    )


def true_values(world: World, customers: Sequence[Customer], contents: Sequence[Mapping[str, Any]]) -> Value:
    """Exact click rate and revenue of every content for these very customers: shape (customers, contents).

    ``contents`` are the contents' features. Bots are worth nothing.
    """
    activity = np.array([0.0 if customer.bot else customer.activity for customer in customers])
    return _values(world, [customer.context for customer in customers], contents, activity)


def respond(
    world: World, rng: np.random.Generator, customer: Customer, features: Mapping[str, Any], shown_at: int
) -> Response:
    """What the customer does with a message of these features, sent at ``shown_at``."""
    if customer.bot:
        return Response(clicks=tuple(shown_at + int(rng.integers(1, 5 * MICROS)) for _ in range(2)))
    if rng.random() >= float(true_values(world, [customer], [features]).click[0, 0]):
        return Response()
    clicked_at = shown_at + _delay(rng, CLICK_DELAY)
    again = (clicked_at + _delay(rng, ARRIVAL_DELAY),) if rng.random() < 0.15 else ()
    if rng.random() >= world.buys[customer.tier]:
        return Response(clicks=(clicked_at, *again))
    bought_at = clicked_at + _delay(rng, PURCHASE_DELAY)
    refunded_at = bought_at + _delay(rng, REFUND_DELAY) if rng.random() < world.refunded else None
    return Response((clicked_at, *again), bought_at, _spend(world, rng, customer.tier, features), refunded_at)


def events_of(
    world: World, rng: np.random.Generator, customer: Customer, response: Response, decision_id: str
) -> list[Arrival]:
    """The events that tell of a response, in order of arrival: late, some twice, and out of order."""
    sent = [_click(decision_id, number, at, customer.bot) for number, at in enumerate(response.clicks)]
    if response.bought_at is not None:
        link = {"decision_id": decision_id} if rng.random() < world.linked else {"unit": customer.customer_id}
        sent += _order(world, f"o-{decision_id}", response, link)
    return deliver(world, rng, sent)


def organic_events(
    world: World, rng: np.random.Generator, customers: Sequence[Customer], begin: int, end: int, prefix: str
) -> list[Arrival]:
    """Purchases between ``begin`` and ``end`` that no message caused: they name the customer only."""
    people = [customer for customer in customers if not customer.bot]
    counts = rng.poisson(world.organic * (end - begin) / (7 * DAY), size=len(people))
    sent: list[tuple[int, dict[str, Any]]] = []
    for customer, count in zip(people, counts, strict=True):
        for number in range(count):
            response = Response(
                (), int(rng.integers(begin, end)), _spend(world, rng, customer.tier, {}), refunded_at=None
            )
            order = f"organic-{prefix}-{customer.customer_id}-{number}"
            sent += _order(world, order, response, {"unit": customer.customer_id})
    return deliver(world, rng, sent)


def deliver(world: World, rng: np.random.Generator, sent: Sequence[tuple[int, dict[str, Any]]]) -> list[Arrival]:
    """Give each ``(occurred_at, event)`` its arrival, send some twice, and sort by arrival."""
    arrivals = [
        Arrival(occurred_at + _delay(rng, ARRIVAL_DELAY), event)
        for occurred_at, event in sent
        for _ in range(2 if rng.random() < world.duplicated else 1)
    ]
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _values(
    world: World, contexts: Sequence[Mapping[str, Any]], contents: Sequence[Mapping[str, Any]], activity: Array
) -> Value:
    times = np.array([[float(features.get(name, False)) for name in FACTORS] for features in contents])
    design, repeated = np.minimum(times, 1.0), np.maximum(times - 1.0, 0.0).sum(axis=1)
    taste = np.array(
        [[TASTE[x["tier"]][name] + TASTE[x["device"]][name] for name in FACTORS] for x in contexts]
    ).reshape(-1, len(FACTORS))
    logits = world.base + world.effect * taste @ design.T - world.fatigue * repeated
    logits += np.array([_quirk(world, c) for c in contents])
    logits += world.recency * np.array([[x["days_since_order"] / 90] for x in contexts]).reshape(-1, 1)
    click = np.minimum(activity[:, None] / (1 + np.exp(-logits)), 1.0)
    spend = np.array([[_mean_spend(world, x["tier"], c) for c in contents] for x in contexts])
    buys = np.array([[world.buys[x["tier"]]] for x in contexts]).reshape(-1, 1)
    return Value(click, click * buys * spend * (1 - world.refunded))


def _quirk(world: World, features: Mapping[str, Any]) -> float:
    if world.quirk == 0:
        return 0.0
    seed = hashlib.sha256(canonical_json([world.seed, dict(features)])).digest()[:8]
    return world.quirk * float(np.random.default_rng(int.from_bytes(seed, "big")).standard_normal())


def _mean_spend(world: World, tier: str, features: Mapping[str, Any]) -> float:
    return world.spends[tier] * (1 - world.rebate * bool(features.get("discount", False)))


def _spend(world: World, rng: np.random.Generator, tier: str, features: Mapping[str, Any]) -> float:
    mean = _mean_spend(world, tier, features)
    return round(mean * math.exp(world.spread * float(rng.standard_normal()) - world.spread**2 / 2), 2)


def _delay(rng: np.random.Generator, shape: tuple[int, float, int]) -> int:
    median, spread, longest = shape
    return min(int(median * math.exp(spread * float(rng.standard_normal()))), longest)


def _click(decision_id: str, number: int, at: int, bot: bool) -> tuple[int, dict[str, Any]]:
    event = {
        "event_id": f"k-{decision_id}-{number}",
        "type": "click",
        "occurred_at": format_time(at),
        "decision_id": decision_id,
    }
    return at, {**event, "properties": {"client": SCANNER}} if bot else event


def _order(
    world: World, order_id: str, response: Response, link: Mapping[str, str]
) -> list[tuple[int, dict[str, Any]]]:
    if response.bought_at is None:
        return []
    money = {"value": response.value, "currency": world.currency, **link}
    bought = {"event_id": f"p-{order_id}", "type": "purchase", "order_id": order_id, **money}
    sent = [(response.bought_at, {**bought, "occurred_at": format_time(response.bought_at)})]
    if response.refunded_at is not None:
        back = {"event_id": f"r-{order_id}", "type": "refund", "reverses": order_id, **money}
        sent.append((response.refunded_at, {**back, "occurred_at": format_time(response.refunded_at)}))
    return sent
