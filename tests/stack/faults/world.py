"""A seeded world of customers: decisions and everything that can be reported about them.

Nothing ties two customers together (no unit, decision or order is shared), so what the join must make of a million
events is the sum of what the slow oracle says of each customer alone.

What happens often: several loops, campaigns and slates; deferred decisions, activated late, twice or never; clicks by
decision, by token, by unit; purchases that two vendors report; refunds in part, whole, twice, too late; events on the
edges of the windows; events long before or about no decision; clicks of bots; currencies that do not count; clocks
that are off.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from infra.clock import DAY, HOUR, MICROS, MINUTE
from ingestion.events import Campaign, Candidate, Content, Decision, Event, Group, Placement
from ingestion.loops import LoopDefinition, parse_definition

ORIGIN = 1_672_531_200 * MICROS
"""2023-01-01: far enough in the past that no time of a world is in a reader's future."""

SOURCES = ("shop", "bank", "mailer")

EMAILS = parse_definition(
    {
        "loop": "emails",
        "metrics": [
            {"name": "clicked", "event": "click", "window": "2d", "backward_window": "2m"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "7d", "currency": "EUR"}
            | {"backward_window": "10m", "cap": 400},
            {"name": "orders", "event": "purchase", "aggregate": "count", "window": "5d", "backward_window": "0s"},
            {"name": "first_order", "event": "purchase", "aggregate": "first", "window": "7d"},
        ],
        "reward": {"clicked": 1, "revenue": 0.1},
        "refund_horizon": "3d",
    }
)
BANNERS = parse_definition(
    {
        "loop": "banners",
        "metrics": [
            {"name": "clicks", "event": "click", "aggregate": "count", "window": "1d", "backward_window": "0s"},
            {"name": "largest", "event": "purchase", "aggregate": "max", "window": "3d", "backward_window": "1m"},
            {"name": "refunded", "event": "refund", "window": "10d"},
        ],
        "reward": {"clicks": 1},
        "refund_horizon": "2d",
    }
)
LOOPS: dict[str, LoopDefinition] = {"emails": EMAILS, "banners": BANNERS}

CAMPAIGNS = tuple(
    Campaign(campaign_id=f"{loop}-{season}", loop_id=loop)
    for loop in LOOPS
    for season in ("spring", "summer", "winter")
)
CONTENTS = tuple(
    Content(
        content_id=f"{campaign.campaign_id}-{letter}",
        campaign_id=campaign.campaign_id,
        slots={"subject": f"Subject {letter} of {campaign.campaign_id}"},
        approval="approved",
    )
    for campaign in CAMPAIGNS
    for letter in "abcd"
)

_EDGES = (-1, 0, 1, -MICROS, MICROS)
"""How far from the exact end of a window an event falls, microseconds."""

_SKEWS = (10 * MINUTE, -10 * MINUTE, DAY, -DAY, 400 * DAY, -400 * DAY)
"""How far off a sender's clock may be and the event still be accepted."""


@dataclass(frozen=True)
class Customer:
    """One customer's decisions and events, each once, in no meaningful order."""

    decisions: tuple[Decision, ...]
    events: tuple[Event, ...]
    bots: frozenset[str]
    """Ids of the events whose reporter says a bot made them."""
    orders: dict[str, str]
    """The order's own id by its fact key."""

    @property
    def facts(self) -> tuple[Decision | Event, ...]:
        """All of it."""
        return (*self.decisions, *self.events)


def customers(seed: int, count: int) -> Iterator[Customer]:
    """The first ``count`` customers of a world; each depends on the seed and its own number only."""
    for number in range(count):
        yield _Story(Random(f"{seed}/{number}"), f"{seed:x}-{number}").customer()


def unit_of(name: str) -> str:
    """A hash as a unit's: what it is made with does not matter to the join."""
    return f"u1:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass
class _Story:
    """What happens to one customer, written down as it happens."""

    random: Random
    name: str
    decisions: list[Decision] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    bots: set[str] = field(default_factory=set)
    orders: dict[str, str] = field(default_factory=dict)

    def customer(self) -> Customer:
        moment = ORIGIN + self.random.randrange(20 * DAY)
        for _ in range(self.random.choice((1, 1, 2, 2, 3, 5))):
            self.decisions.append(self._decision(moment))
            moment += self.random.choice((MINUTE, 3 * HOUR, DAY, 4 * DAY))
        for decision in list(self.decisions):
            self._activations(decision)
            for _ in range(self.random.choice((0, 1, 1, 2, 4))):
                self._response(decision)
        self._strays()
        return Customer(tuple(self.decisions), tuple(self.events), frozenset(self.bots), self.orders)

    def _decision(self, moment: int) -> Decision:
        pick = self.random
        campaign = pick.choice(CAMPAIGNS)
        contents = [content.content_id for content in CONTENTS if content.campaign_id == campaign.campaign_id]
        group: Group = pick.choices(("treatment", "holdout", "customer_managed"), (8, 1, 1))[0]
        known = group != "customer_managed"
        slate = pick.sample(contents, pick.choice((1, 1, 1, 2, 3)))
        return Decision(
            decision_id=f"d-{self.name}-{len(self.decisions)}",
            request_digest="",
            loop_id=campaign.loop_id,
            loop_version=1,
            campaign_id=campaign.campaign_id,
            unit=unit_of(self.name) if pick.random() < 0.9 else None,
            context={"visits": pick.randrange(50), "country": pick.choice(("DE", "FR"))},
            group=group,
            learning_mode="online",
            candidates=tuple(
                Candidate(
                    content_id=content,
                    behaviour_p=0.25 if known else None,
                    policy_p=0.25 if known else None,
                )
                for content in contents
            ),
            chosen=tuple(
                Placement(position=place, content_id=content, propensity=0.25 if known else None)
                for place, content in enumerate(slate, 1)
            ),
            policy_version="past",
            sampler="",
            floor=0.0,
            constraints={"slots": len(slate)},
            seed="",
            deferred=pick.random() < 0.2,
            decided_at=moment,
        )

    def _activations(self, decision: Decision) -> None:
        chance = 0.7 if decision.deferred else 0.1
        while self.random.random() < chance:
            delay = self.random.choice((MINUTE, 2 * HOUR, DAY))
            self._add("activation", decision.decided_at + delay, decision=decision)
            chance = 0.15

    def _response(self, decision: Decision) -> None:
        kind = self.random.choices(("click", "purchase", "unsubscribe", "opened"), (5, 4, 1, 1))[0]
        moment = decision.decided_at + self._delay(decision)
        if kind == "purchase":
            self._order(decision, moment)
        else:
            self._add(kind, moment, decision=self._named(decision))
            if kind == "click" and self.random.random() < 0.2:
                self._add("click", moment, decision=decision)

    def _delay(self, decision: Decision) -> int:
        metric = self.random.choice(LOOPS[decision.loop_id].metrics)
        chance = self.random.random()
        if chance < 0.65:
            return self.random.randrange(metric.window)
        if chance < 0.8:
            return metric.window + self.random.choice(_EDGES)
        if chance < 0.9:
            return -metric.backward_window + self.random.choice(_EDGES)
        return self.random.choice(_SKEWS)

    def _order(self, decision: Decision, moment: int) -> None:
        pick = self.random
        order = f"o-{self.name}-{len(self.events)}"
        cents = pick.choice((499, 1_999, 4_990, 24_900, 0))
        currency = pick.choices(("EUR", "USD", None), (8, 1, 1))[0]
        self._add("purchase", moment, decision=self._named(decision), order=order, cents=cents, currency=currency)
        if pick.random() < 0.4:
            late = pick.choice((0, MICROS, 5 * MINUTE))
            named = self._named(decision)
            self._add("purchase", moment + late, decision=named, order=order, cents=cents, currency=currency)
        while pick.random() < 0.3:
            self._refund(order, moment, cents, currency)

    def _refund(self, order: str, bought: int, cents: int, currency: str | None) -> None:
        pick = self.random
        moment = bought + pick.choice((HOUR, DAY, 2 * DAY, 3 * DAY, 3 * DAY + 1, 9 * DAY))
        amount = pick.choice((cents, cents // 2, cents // 3, None))
        name = pick.choice((None, f"r-{order}", order))
        self._add("refund", moment, order=name, cents=amount, currency=currency, reverses=order)

    def _strays(self) -> None:
        """Events about decisions nobody made, about nobody we know, and long before any decision."""
        moment = self.decisions[0].decided_at
        if self.random.random() < 0.2:
            self._add("click", moment + HOUR, decision_id=f"d-{self.name}-never")
        if self.random.random() < 0.2:
            self._add(
                "purchase", moment - 30 * DAY, unit=True, order=f"o-{self.name}-before", cents=100, currency="EUR"
            )
        if self.random.random() < 0.1:
            self._add("refund", moment, reverses=f"o-{self.name}-elsewhere", cents=100, currency="EUR")

    def _named(self, decision: Decision) -> Decision | None:
        """None: the event names the customer only."""
        return None if decision.unit is not None and self.random.random() < 0.4 else decision

    def _add(
        self,
        kind: str,
        moment: int,
        *,
        decision: Decision | None = None,
        decision_id: str | None = None,
        unit: bool = False,
        order: str | None = None,
        cents: int | None = None,
        currency: str | None = None,
        reverses: str | None = None,
    ) -> None:
        pick = self.random
        named = decision.decision_id if decision is not None else decision_id
        nobody = named is None and reverses is not None
        slate: Any = pick.choice(decision.chosen) if decision is not None and pick.random() < 0.5 else None
        if kind in ("click", "purchase") and pick.random() < 0.05:
            self.bots.add(f"e-{self.name}-{len(self.events)}")
        self.events.append(
            Event(
                source=pick.choice(SOURCES),
                event_id=f"e-{self.name}-{len(self.events)}",
                type=kind,
                occurred_at=moment,
                received_at=0,
                decision_id=named,
                link=None if named is None else pick.choice(("decision_id", "decision_id", "token")),
                unit=unit_of(self.name) if unit or (named is None and not nobody) else None,
                content_id=slate.content_id if slate is not None and pick.random() < 0.5 else None,
                position=slate.position if slate is not None else None,
                value_micros=None if cents is None else cents * 10_000,
                currency=currency if cents is not None else None,
                fact_key=self._key(order),
                reverses=self._key(reverses),
                raw={},
            )
        )

    def _key(self, order: str | None) -> str | None:
        """What the join knows an order by."""
        if order is None:
            return None
        key = hashlib.sha256(order.encode()).hexdigest()
        self.orders[key] = order
        return key
