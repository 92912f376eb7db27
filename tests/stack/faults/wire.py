"""Facts as the records other systems write: JSON by the documented formats, not by the product's own encoder."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from infra.clock import MICROS, format_time
from infra.secrets import Secrets
from ingestion.events import Decision, Event
from ingestion.tokens import make_token
from tests.stack.faults.ledger import Sending
from tests.stack.faults.world import Customer


def sendings_of(customer: Customer, secrets: Secrets) -> Iterator[Sending]:
    """A customer's facts as records, decisions first."""
    for decision in customer.decisions:
        yield Sending("decisions", _key(decision), _json(_decision(decision)), decision)
    for event in customer.events:
        yield event_sending(event, customer, secrets)


def event_sending(event: Event, customer: Customer, secrets: Secrets) -> Sending:
    """An event as a record, with what its reporter says about it."""
    labels = ("bot",) if event.event_id in customer.bots else ()
    document = _event(event, customer.orders, secrets)
    if labels:
        document["labels"] = dict.fromkeys(labels, "the reporter says so")
    return Sending("events", _key(event), _json(document), event, labels=labels)


def with_more_fields(sending: Sending) -> Sending:
    """The same record as a later version of its sender writes it: with fields nobody here knows."""
    document = json.loads(sending.value or b"{}")
    document |= {"schema_version": 7, "campaign_tags": ["a", {"deep": [1, None, True]}], "utm": {"source": "x"}}
    if sending.kind == "events":
        document["properties"] = {"device": "phone", "battery": 0.5}
    return replace(sending, value=_json(document))


def conflicting(sending: Sending) -> Sending:
    """Another body under the same id: it happened a second later."""
    document = json.loads(sending.value or b"{}")
    fact = sending.fact
    if isinstance(fact, Decision):
        fact = msgspec.structs.replace(fact, decided_at=fact.decided_at + MICROS)
        document["decided_at"] = format_time(fact.decided_at)
    elif isinstance(fact, Event):
        fact = msgspec.structs.replace(fact, occurred_at=fact.occurred_at + MICROS)
        document["occurred_at"] = format_time(fact.occurred_at)
    return replace(sending, value=_json(document), fact=fact)


def _decision(decision: Decision) -> dict[str, Any]:
    known = decision.group != "customer_managed"
    return {
        "decision_id": decision.decision_id,
        "loop": decision.loop_id,
        "campaign": decision.campaign_id,
        "decided_at": format_time(decision.decided_at),
        "unit": decision.unit,
        "context": decision.context,
        "candidates": [
            {"content_id": one.content_id, "propensity": one.behaviour_p} if known else one.content_id
            for one in decision.candidates
        ],
        "chosen": [
            {"position": one.position, "content_id": one.content_id, "propensity": one.propensity}
            for one in decision.chosen
        ],
        "group": decision.group if known else None,
        "deferred": decision.deferred,
    }


def _event(event: Event, orders: dict[str, str], secrets: Secrets) -> dict[str, Any]:
    document: dict[str, Any] = {
        "event_id": event.event_id,
        "source": event.source,
        "type": event.type,
        "occurred_at": format_time(event.occurred_at),
        "unit": event.unit,
        "content_id": event.content_id,
        "position": event.position,
        "value": _value(event),
        "currency": event.currency,
        "order_id": orders[event.fact_key] if event.fact_key else None,
        "reverses": orders[event.reverses] if event.reverses else None,
    }
    if event.link == "token":
        document["token"] = make_token(secrets, event.decision_id or "", None)
    else:
        document["decision_id"] = event.decision_id
    return {name: value for name, value in document.items() if value is not None}


def _value(event: Event) -> float | str | None:
    """Some senders write numbers, others text."""
    if event.value_micros is None:
        return None
    whole, rest = divmod(event.value_micros, MICROS)
    text = f"{whole}.{rest // 10_000:02}"
    return text if event.source == "bank" else float(text)


def _key(fact: Decision | Event) -> bytes | None:
    key = fact.unit or fact.decision_id
    return key.encode() if key is not None else None


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
