"""Segment's Spec: ``track`` calls, alone, in a list or in ``{"batch": [...]}``.

RudderStack and Customer.io Journeys speak it too. Field names in snake case, as in Segment's own e-mail examples, are
read like those in camel case. Source: twilio.com/docs/segment/connections/spec (common, ecommerce v2, email, mobile).

- Token: ``properties.rl``, ``context.campaign.content`` (``utm_content``), or ``rl`` in the query of a URL.
- Customer: ``userId``, else the e-mail address in lower case, else ``anonymousId``.
- Event id: ``messageId``, else a digest. Time: ``timestamp``, else the next best that is there.
- Order: ``order_id``. Value: ``total``, else ``revenue``, else ``value``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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
    text,
    token,
    token_in_url,
    word,
)
from ingestion.connectors.items import Ignored, Item, Recognised, Record, listed, read_each
from ingestion.events import PURCHASE, REFUND

TYPES = {
    "email delivered": "delivered",
    "email opened": "open",
    "email link clicked": "click",
    "email bounced": "bounce",
    "email marked as spam": "spam_report",
    "email unsubscribed": "unsubscribe",
    "unsubscribed": "unsubscribe",
    "push notification received": "delivered",
    "push notification tapped": "click",
    "push notification bounced": "bounce",
    "order completed": PURCHASE,
    "order refunded": REFUND,
    "order cancelled": REFUND,
}
CLICKS_WITH_A_TOKEN = ("product clicked", "promotion clicked", "deep link clicked")
"""Clicks on anything: they count when a token says that they were on our copy."""


def read(body: bytes, _headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body."""
    return read_each(body, _messages, _message)


def _messages(document: Any) -> list[Any]:
    if not isinstance(document, dict) or not isinstance(document.get("batch"), list):
        return listed(document)
    shared = {name: document[name] for name in ("context", "sentAt") if name in document}
    return [shared | message if isinstance(message, dict) else message for message in document["batch"]]


def _message(message: Record) -> Recognised | Ignored:
    call = word(text(message.get("type"), message.get("action"), "track"))
    if call != "track":
        return Ignored(f"{call} calls are no events")
    name = " ".join(word(message.get("event")).replace("_", " ").split())
    found = _token(message)
    kind = TYPES.get(name) or ("click" if found and name in CLICKS_WITH_A_TOKEN else None)
    if kind is None:
        return Ignored(f"track {name!r} does not count" if name else "no event name")
    properties = message.get("properties")
    orders = order(at(properties, "order_id"))
    return recognised(
        {
            "event_id": event_id(message, _either(message, "messageId"), "messageId", "sentAt", "receivedAt"),
            "type": kind,
            "occurred_at": _time(message),
            "token": found,
            "unit": _unit(message),
            "order_id": orders if kind == PURCHASE else None,
            "reverses": orders if kind == REFUND else None,
            "value": None if name == "order cancelled" else _value(kind, properties),
            "currency": currency(at(properties, "currency")) if kind in (PURCHASE, REFUND) else None,
            "properties": {"url": page(_link(properties)), "client": _client(message)},
        }
    )


def _either(record: Any, name: str) -> Any:
    """A field in camel case or in snake case."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    found = at(record, name)
    return at(record, snake) if found is None else found


def _token(message: Record) -> str | None:
    properties, context = message.get("properties"), message.get("context")
    return token(at(properties, "rl"), at(context, "campaign", "content")) or token_in_url(
        _link(properties), at(properties, "url"), at(context, "page", "url")
    )


def _time(message: Record) -> str | None:
    return moment(*(_either(message, name) for name in ("timestamp", "originalTimestamp", "receivedAt", "sentAt")))


def _unit(message: Record) -> str | None:
    context, properties = message.get("context"), message.get("properties")
    return (
        text(_either(message, "userId"))
        or email(at(context, "traits", "email"), at(properties, "email"))
        or text(_either(message, "anonymousId"))
    )


def _value(kind: str, properties: Any) -> Any:
    """What was paid or given back; for a refund without it: all."""
    if kind not in (PURCHASE, REFUND):
        return None
    return next(
        (found for name in ("total", "revenue", "value") if (found := at(properties, name)) not in (None, "")), None
    )


def _link(properties: Any) -> str | None:
    return text(at(properties, "link_url"), at(properties, "url"))


def _client(message: Record) -> str | None:
    found = text(_either(message.get("context"), "userAgent"))
    return clean(found) if found else None
