"""A stream of decisions and events as a shop and its mail vendor would send it, the same at every run.

Per decision there are four events, of the kinds and in the shares of ``_EVENT``. Seven in ten events name their
decision, the others their customer (last touch). ``LATE`` of the records change places with one up to 20,000 records
later, so that events come before their decision; ``REPEATED`` of all records are sent a second time. Ids of events are
random, as vendors make them, those of decisions ordered by time (UUIDv7).
"""

import random
from collections.abc import Iterator, Sequence
from uuid import UUID

from infra.clock import MICROS
from ingestion.events import Campaign, Candidate, Content, Decision, Event, Placement, hash_id
from ingestion.loops import LoopDefinition, parse_definition

LOOP: LoopDefinition = parse_definition(
    {
        "loop": "emails",
        "metrics": [
            {"name": "clicked", "event": "click", "window": "7d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "14d", "currency": "EUR"},
            {"name": "left", "event": "unsubscribe", "window": "7d"},
        ],
        "reward": {"clicked": 0.1, "revenue": 1, "left": -5},
        "refund_horizon": "14d",
    }
)
ORIGIN = 1_760_000_000 * MICROS
PER_SECOND = 2_000
"""Records of one simulated second."""
CAMPAIGNS = 20
CONTENTS = 5
UNITS = 200_000
DECISION_SHARE, REPEATED, LATE, NAMED = 0.2, 0.05, 0.05, 0.7
_EVENT = {"open": 0.45, "click": 0.35, "purchase": 0.15, "refund": 0.01, "unsubscribe": 0.04}
_DISORDER = 20_000
_DELAY, _SPREAD = 800, 5_000
"""Decisions between one and its events: at least (two seconds: people, not machines), and on average beyond that."""

Fact = Decision | Event


def definitions() -> tuple[tuple[Campaign, ...], tuple[Content, ...]]:
    """The campaigns and the copy that the stream is about."""
    campaigns = tuple(Campaign(campaign_id=_campaign(number), loop_id=LOOP.loop) for number in range(CAMPAIGNS))
    contents = tuple(
        Content(
            content_id=_content(campaign, place), campaign_id=_campaign(campaign), slots={"subject": f"Copy {place}"}
        )
        for campaign in range(CAMPAIGNS)
        for place in range(CONTENTS)
    )
    return campaigns, contents


def records(count: int, seed: int = 1, begin: int = ORIGIN) -> list[Fact]:
    """``count`` decisions and events in the order of sending, duplicates among them."""
    draw = random.Random(seed)
    unique = round(count / (1 + REPEATED))
    facts: list[Fact] = list(_facts(draw, unique, begin))
    for place in draw.sample(range(unique), round(unique * LATE)):
        other = min(unique - 1, place + draw.randrange(1, _DISORDER))
        facts[place], facts[other] = facts[other], facts[place]
    again = set(draw.sample(range(unique), count - unique))
    return _with_repeats(draw, facts, again)


def _with_repeats(draw: random.Random, facts: Sequence[Fact], again: set[int]) -> list[Fact]:
    """Each fact in ``again`` is sent once more, up to ``_DISORDER`` records later."""
    order = [(float(place), place) for place in range(len(facts))]
    order += [(place + draw.uniform(0, _DISORDER), place) for place in again]
    return [facts[place] for _, place in sorted(order)]


def _facts(draw: random.Random, count: int, begin: int) -> Iterator[Fact]:
    recent: list[Decision] = []
    orders: list[Event] = []
    kinds, weights = list(_EVENT), list(_EVENT.values())
    for number in range(count):
        at = begin + number * MICROS // PER_SECOND
        if len(recent) <= _DELAY or draw.random() < DECISION_SHARE:
            recent.append(_decision(draw, at))
            yield recent[-1]
            continue
        ago = int(draw.expovariate(1 / _SPREAD)) % (len(recent) - _DELAY)
        decision = recent[-1 - _DELAY - ago]
        kind = draw.choices(kinds, weights)[0] if orders else "purchase"
        event = _event(draw, kind, decision, draw.choice(orders) if kind == "refund" else None, at)
        if kind == "purchase":
            orders.append(event)
        yield event


def _decision(draw: random.Random, at: int) -> Decision:
    campaign = draw.randrange(CAMPAIGNS)
    contents = [_content(campaign, place) for place in range(CONTENTS)]
    chosen = draw.choice(contents)
    identity = UUID(
        int=((at // 1_000) << 80) | (7 << 76) | (draw.getrandbits(12) << 64) | (2 << 62) | draw.getrandbits(62)
    )
    return Decision(
        decision_id=str(identity),
        request_digest=f"{draw.getrandbits(256):064x}",
        loop_id=LOOP.loop,
        loop_version=1,
        campaign_id=_campaign(campaign),
        unit=_unit(draw.randrange(UNITS)),
        context={"hour": at // (3_600 * MICROS) % 24, "segment": draw.choice(("new", "loyal", "lapsed"))},
        group="treatment",
        learning_mode="online",
        candidates=tuple(
            Candidate(
                content_id=content, score=0.02, expected=0.021, mean=0.02, sd=0.004, policy_p=0.2, behaviour_p=0.2
            )
            for content in contents
        ),
        chosen=(Placement(position=1, content_id=chosen, propensity=0.2),),
        policy_version="posterior-1",
        model_version="emails-1",
        stats_version=1,
        sampler="hmac-1",
        floor=0.01,
        constraints={"slots": 1},
        seed=f"{draw.getrandbits(256):064x}",
        decided_at=at,
    )


def _event(draw: random.Random, kind: str, decision: Decision, order: Event | None, at: int) -> Event:
    named = draw.random() < NAMED
    money = kind in ("purchase", "refund")
    number = f"{draw.getrandbits(128):032x}"
    value = None if not money else order.value_micros if order else draw.randrange(500, 20_000) * 10_000
    return Event(
        source="shop" if money else "mail",
        event_id=number,
        type=kind,
        occurred_at=at,
        received_at=at + MICROS,
        decision_id=decision.decision_id if named else None,
        link="token" if named else None,
        unit=None if named else decision.unit,
        value_micros=value,
        currency="EUR" if money else None,
        fact_key=hash_id(f"order {number}") if kind == "purchase" else None,
        reverses=order.fact_key if order else None,
        raw={"url": "https://shop.example/sale"} if kind == "click" else {},
    )


def _campaign(number: int) -> str:
    return f"campaign-{number:02}"


def _content(campaign: int, place: int) -> str:
    return f"campaign-{campaign:02}-copy-{place}"


def _unit(number: int) -> str:
    return f"u1:{hash_id(f'customer {number}')[:32]}"
