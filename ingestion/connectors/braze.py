"""Braze Currents over HTTP: one event, a list, or ``{"events": [...]}``.

Source: the field lists of braze.com/docs (Currents events, eCommerce events). Flat records, as Currents writes to
storage, are read like nested ones.

- Token: ``rl`` in the query of ``url``, or a property ``rl`` of the purchase or custom event.
- Customer: ``external_user_id``, else the e-mail address in lower case.
- Event id: ``id``.
- A ``users.behaviors.Purchase`` is one product, not one order: its ``order_id`` is left out, or the other products of
  the order would not count. ``ecommerce.order_placed`` is the event for orders.
- ``is_suspected_bot_click`` and ``machine_open`` become the label ``bot``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ingestion.connectors.fields import (
    at,
    clean,
    currency,
    email,
    event_id,
    moment,
    order,
    page,
    recognised,
    said_true,
    text,
    token,
    token_in_url,
    word,
)
from ingestion.connectors.items import Ignored, Item, Mark, Recognised, Record, listed, read_each
from ingestion.events import PURCHASE, REFUND

TYPES = {
    "users.messages.email.delivery": "delivered",
    "users.messages.email.open": "open",
    "users.messages.email.click": "click",
    "users.messages.email.bounce": "bounce",
    "users.messages.email.markasspam": "spam_report",
    "users.messages.email.unsubscribe": "unsubscribe",
    "users.messages.pushnotification.open": "click",
    "users.messages.pushnotification.bounce": "bounce",
    "users.messages.inappmessage.impression": "open",
    "users.messages.inappmessage.click": "click",
    "users.messages.contentcard.impression": "open",
    "users.messages.contentcard.click": "click",
    "users.messages.banner.impression": "open",
    "users.messages.banner.click": "click",
    "users.messages.sms.delivery": "delivered",
    "users.messages.sms.shortlinkclick": "click",
    "users.messages.whatsapp.click": "click",
    "users.messages.line.click": "click",
    "users.messages.rcs.click": "click",
}
PURCHASED = "users.behaviors.purchase"
CUSTOM = "users.behaviors.customevent"
ORDERS = {
    "ecommerce.order_placed": PURCHASE,
    "ecommerce.order_refunded": REFUND,
    "ecommerce.order_cancelled": REFUND,
}


def read(body: bytes, _headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body."""
    return read_each(body, _events, _event)


def _events(document: Any) -> list[Any]:
    events = at(document, "events")
    return events if isinstance(events, list) else listed(document)


def _event(event: Record) -> Recognised | Ignored:
    kind = word(event.get("event_type"))
    properties = event["properties"] if isinstance(event.get("properties"), dict) else event
    if kind == PURCHASED:
        return _product(event, properties)
    if kind == CUSTOM:
        return _custom(event, properties)
    if kind not in TYPES:
        return Ignored(f"event {kind!r} does not count" if kind else "no event type")
    agent = text(properties.get("user_agent"))
    document = _common(event, properties, TYPES[kind]) | {
        "token": token(properties.get("rl")) or token_in_url(properties.get("url")),
        "properties": {"url": page(properties.get("url")), "client": clean(agent) if agent else None},
    }
    return recognised(document, *_marks(properties))


def _product(event: Record, properties: Record) -> Recognised | Ignored:
    bought = _nested(properties.get("purchase_properties"))
    return recognised(
        _common(event, properties, PURCHASE)
        | {
            "token": token(at(bought, "rl"), properties.get("rl")),
            "value": properties.get("price"),
            "currency": currency(properties.get("currency")),
        }
    )


def _custom(event: Record, properties: Record) -> Recognised | Ignored:
    name, own = word(properties.get("name")), _nested(properties.get("custom_properties"))
    if name not in ORDERS:
        return Ignored(f"custom event {name!r} does not count")
    kind, orders = ORDERS[name], order(at(own, "order_id"))
    return recognised(
        _common(event, properties, kind)
        | {
            "token": token(at(own, "rl"), at(own, "metadata", "rl"), properties.get("rl")),
            "order_id": orders if kind == PURCHASE else None,
            "reverses": orders if kind == REFUND else None,
            "value": None if name.endswith("cancelled") else at(own, "total_value"),
            "currency": currency(at(own, "currency")),
        }
    )


def _common(event: Record, properties: Record, kind: str) -> Record:
    user = event["user"] if isinstance(event.get("user"), dict) else event
    return {
        "event_id": event_id(event, event.get("id"), "id"),
        "type": kind,
        "occurred_at": moment(event.get("time")),
        "unit": text(user.get("external_user_id")) or email(properties.get("email_address")),
    }


def _nested(value: Any) -> Any:
    """Properties, which storage keeps as the text of a JSON document."""
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _marks(properties: Record) -> Iterator[Mark]:
    if said_true(properties.get("is_suspected_bot_click")):
        reasons = properties.get("suspected_bot_click_reason")
        told = ", ".join(filter(None, map(text, reasons))) if isinstance(reasons, list) else text(reasons)
        yield Mark("bot", clean(f"suspected by Braze: {told}" if told else "suspected by Braze"))
    if said_true(properties.get("machine_open")):
        yield Mark("bot", "opened by a machine of the mailbox provider")
