"""Generated histories: small worlds in which everything that can happen to the join happens often.

A history is read off a string of bytes, so that Hypothesis draws one value per example and shrinks it well. Times
are few, so that windows are hit on their edges and ties are common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ingestion.events import Candidate, Decision, Event, Label, Placement
from ingestion.exchange import Rate
from ingestion.loops import LoopDefinition, parse_definition

SECOND = 1_000_000
ORIGIN = 86_400_000_000 - 8 * SECOND
"""Histories begin eight seconds before midnight: decisions fall on two days."""

EMAILS = parse_definition(
    {
        "loop": "emails",
        "metrics": [
            {"name": "clicked", "event": "click", "window": "6s", "backward_window": "1s"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "9s", "currency": "EUR"}
            | {"backward_window": "2s", "cap": 7.5},
            {"name": "orders", "event": "purchase", "aggregate": "count", "window": "5s", "backward_window": "0s"},
            {"name": "first_order", "event": "purchase", "aggregate": "first", "window": "9s", "backward_window": "0s"},
        ],
        "reward": {"clicked": 1},
        "refund_horizon": "5s",
    }
)
BANNERS = parse_definition(
    {
        "loop": "banners",
        "metrics": [
            {"name": "clicks", "event": "click", "aggregate": "count", "window": "4s", "backward_window": "0s"},
            {"name": "largest", "event": "purchase", "aggregate": "max", "window": "8s", "backward_window": "1s"},
            {"name": "refunded", "event": "refund", "window": "12s", "backward_window": "1s"},
        ],
        "reward": {"clicks": 1},
        "refund_horizon": "3s",
    }
)


def limited(definition: LoopDefinition, limits: dict[str, Any], sources: dict[str, Any]) -> LoopDefinition:
    """The loop with limits per customer, by metric, and with what it believes of sources."""
    document = definition.model_dump(mode="json") | {"sources": sources}
    for metric in document["metrics"]:
        metric["per_unit_limit"] = limits.get(metric["name"])
    return parse_definition(document)


LOOPS: dict[str, LoopDefinition] = {"emails": EMAILS, "banners": BANNERS}
GUARDED: dict[str, LoopDefinition] = {
    "emails": limited(
        EMAILS,
        {
            "clicked": {"most": 1, "per": "4s"},
            "revenue": {"most": 1, "per": "6s"},
            "orders": {"most": 2, "per": "16s"},
            "first_order": {"most": 1, "per": "3s"},
        },
        {"bank": {"trusted": False}},
    ),
    "banners": limited(
        BANNERS,
        {"clicks": {"most": 1, "per": "16s"}, "refunded": {"most": 1, "per": "8s"}},
        {"shop": {"largest": 4}, "*": {"types": ["click", "purchase"]}},
    ),
}
"""The same loops; sources and customers are limited so tightly that every limit is met often."""


def converting(definition: LoopDefinition, currencies: dict[str, str]) -> LoopDefinition:
    """The loop with metrics that count amounts in any currency there are rates for."""
    document = definition.model_dump(mode="json")
    for metric in document["metrics"]:
        if metric["name"] in currencies:
            metric |= {"currency": currencies[metric["name"]], "convert": True}
    return parse_definition(document)


TRADING: dict[str, LoopDefinition] = {
    "emails": converting(GUARDED["emails"], {"revenue": "EUR", "orders": "GBP", "first_order": "USD"}),
    "banners": converting(
        parse_definition(
            BANNERS.model_dump(mode="json")
            | {
                "metrics": [
                    *(metric.model_dump(mode="json") for metric in BANNERS.metrics[:2]),
                    BANNERS.metrics[2].model_dump(mode="json") | {"aggregate": "sum", "currency": "EUR"},
                ]
            }
        ),
        {"largest": "GBP", "refunded": "EUR"},
    ),
}
"""The same loops, which convert: sums with a cap, counts, the first and the largest amount, and money given back."""

SIZE = 400
"""Bytes of a history."""


class Reader:
    """Choices read off bytes; past their end the first of every choice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        """A number in [0, limit)."""
        self._at += 1
        return self._data[self._at - 1] % limit if self._at <= len(self._data) else 0

    def one_of(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[self.below(len(choices))]


@dataclass(frozen=True)
class ByApi:
    """A decision the API stored by itself, to be counted by a later batch."""

    decision: Decision


Fact = Decision | ByApi | Event | Label | Rate


def facts_of(read: Reader) -> list[Fact]:
    """Up to four decisions, nine events and three labels."""
    decisions = [a_decision(read, number) for number in range(1 + read.below(4))]
    events = [an_event(read, number) for number in range(1 + read.below(9))]
    labels = {
        (label.event_id, label.label, label.labelled_at): label
        for label in (a_label(read, events) for _ in range(read.below(4)))
    }
    apart = [ByApi(decision) if read.below(3) == 0 else decision for decision in decisions]
    return [*apart, *events, *labels.values()]


def crowded(read: Reader) -> list[Fact]:
    """Few decisions and up to sixteen events of few customers within a few seconds, so that their limits are met."""
    decisions = [
        msgspec.structs.replace(
            a_decision(read, number),
            unit=read.one_of("u2:ann", "u2:ann", "u2:bob", None),
            deferred=read.below(8) == 0,
            decided_at=ORIGIN + read.below(3) * SECOND,
        )
        for number in range(2 + read.below(3))
    ]
    events = [
        msgspec.structs.replace(
            an_event(read, number),
            type=kind,
            decision_id=f"d{read.below(len(decisions))}" if read.below(2) else None,
            link=read.one_of("decision_id", "token"),
            unit=read.one_of("u2:ann", "u2:ann", "u2:bob"),
            occurred_at=ORIGIN + read.below(8) * SECOND,
        )
        if (kind := read.one_of("click", "click", "purchase", None))
        else an_event(read, number)
        for number in range(6 + read.below(10))
    ]
    labels = {(label.event_id, label.label, label.labelled_at): label for label in [a_label(read, events)]}
    return [*decisions, *events, *labels.values()]


def traded(read: Reader) -> list[Fact]:
    """A history with amounts in two currencies and up to seven words about what they are worth."""
    facts = crowded(read) if read.below(3) == 0 else facts_of(read)
    foreign = [
        msgspec.structs.replace(fact, currency=read.one_of("USD", "USD", "EUR", "GBP", None))
        if isinstance(fact, Event) and fact.value_micros is not None
        else fact
        for fact in facts
    ]
    return [*foreign, *(a_rate(read) for _ in range(1 + read.below(7)))]


def a_rate(read: Reader) -> Rate:
    """A word about one of few times, so that one corrects another; rates that round, and that leave next to nothing."""
    base, quote = read.one_of(
        ("USD", "EUR"), ("USD", "EUR"), ("USD", "GBP"), ("EUR", "GBP"), ("GBP", "EUR"), ("EUR", "USD")
    )
    at = ORIGIN + read.one_of(0, 0, 4, 8, 11, -1) * SECOND
    return Rate(
        base, quote, at, read.one_of(500_000_000_000, 923_147_000_001, 1_083_250_000_000, 150_000, 99_999_999_999_999)
    )


def a_decision(read: Reader, number: int) -> Decision:
    """A decision of one of two loops, alone or a slate, perhaps deferred."""
    loop = read.one_of("emails", "emails", "banners")
    contents = [f"{loop}-{name}" for name in read.one_of("a", "b", "ab", "cba")]
    return Decision(
        decision_id=f"d{number}",
        request_digest=f"request {number}",
        loop_id=loop,
        loop_version=1,
        campaign_id=f"campaign of {loop}",
        unit=read.one_of("u2:ann", "u2:ann", "u1:ann", "u2:bob", None),
        context={},
        group=read.one_of("treatment", "holdout", "customer_managed"),
        learning_mode="online",
        candidates=tuple(
            Candidate(content_id=content, expected=read.one_of(0.25, 0.0123456, None)) for content in sorted(contents)
        ),
        chosen=tuple(
            Placement(position=place, content_id=content, propensity=0.5) for place, content in enumerate(contents, 1)
        ),
        policy_version="uniform",
        model_version=read.one_of(None, "model-1"),
        sampler="test",
        floor=0.0,
        constraints={"slots": read.one_of(1, 2)},
        seed="00",
        deferred=read.below(3) == 0,
        decided_at=a_time(read),
    )


def an_event(read: Reader, number: int) -> Event:
    """A click, purchase, refund or activation: by decision, by token, by unit, or by nothing at all."""
    kind = read.one_of("click", "purchase", "purchase", "refund", "activation")
    named = kind == "activation" or read.below(5) < 2
    order = read.one_of("order-1", "order-2", None)
    money = kind in ("purchase", "refund")
    return Event(
        source=read.one_of("shop", "bank"),
        event_id=f"e{number}",
        type=kind,
        occurred_at=a_time(read),
        received_at=0,
        decision_id=f"d{read.below(4)}" if named else None,
        link=read.one_of("decision_id", "token") if named else None,
        unit=None if named else read.one_of("u2:ann", "u2:ann", "u2:bob", None),
        unit_before=None if named else read.one_of(None, "u1:ann"),
        content_id=read.one_of(None, "emails-a", "banners-b"),
        position=read.one_of(None, 1, 2),
        value_micros=read.one_of(5_000_000, 2_000_000, 0, None) if money else None,
        currency=read.one_of("EUR", "EUR", "USD", None) if money else None,
        fact_key=(order if kind == "purchase" else read.one_of(None, "refund-1", order)) if money else None,
        reverses=order if kind == "refund" else None,
    )


def a_label(read: Reader, events: Sequence[Event]) -> Label:
    """A word about one of the events, or taken back."""
    event = events[read.below(len(events))]
    return Label(
        source=event.source,
        event_id=event.event_id,
        label=read.one_of("bot", "bot", "test", "vip"),
        labelled_at=read.below(3),
        applies=read.below(3) > 0,
    )


def a_time(read: Reader) -> int:
    """One of sixteen seconds around midnight."""
    return ORIGIN + read.below(16) * SECOND
