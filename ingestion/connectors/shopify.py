"""Shopify's webhooks: orders and refunds, one document each; the topic is in the header ``X-Shopify-Topic``.

Source: shopify.dev/docs/api/webhooks. ``orders/create`` and ``orders/paid`` of one order are two events with one order
id: one counts. In files without headers the topic is told from the fields; ``{"order": ...}`` and ``{"orders": [...]}``
of the REST API are read too.

- Token: the cart attribute ``rl`` (``note_attributes``), or ``rl`` in the query of ``landing_site``.
- Customer: the e-mail address in lower case, else Shopify's customer id.
- Order: Shopify's number of the order as in its global id. The plain ``id`` may have been rounded on its way by
  programs that keep numbers as fractions, so the global id is asked first.
- Cancelled and voided orders are no purchases; ``orders/cancelled`` takes the whole purchase back.
- A refund's amount: its successful or pending transactions in the shop's currency, else its line items.
- Test orders are labelled ``test``.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from infra.errors import BadInput
from ingestion.connectors.fields import (
    amount,
    at,
    currency,
    email,
    event_id,
    moment,
    order,
    page,
    plain,
    recognised,
    text,
    token,
    token_in_url,
    word,
)
from ingestion.connectors.items import Ignored, Item, Mark, Recognised, Record, listed, read_each
from ingestion.events import PURCHASE, REFUND

TOPIC = "x-shopify-topic"
PURCHASES = ("orders/create", "orders/paid")
CANCELLED = "orders/cancelled"
REFUNDS = "refunds/create"


def read(body: bytes, headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body. ``headers`` have lower-case names."""
    topic = word(headers.get(TOPIC) or headers.get("shopify-topic"))
    kept = (lambda record: {"headers": {TOPIC: topic}, "body": record}) if topic else lambda record: record
    return read_each(body, _records, partial(_record, topic), kept)


def _records(document: Any) -> list[Any]:
    """The order or refund, out of the wrapping of the REST API."""
    for name in ("order", "orders", "refund", "refunds"):
        if isinstance(document, dict) and len(document) == 1 and isinstance(document.get(name), dict | list):
            return listed(document[name])
    return listed(document)


def _record(topic: str, record: Record) -> Recognised | Ignored:
    topic = topic or _topic(record)
    if topic in PURCHASES:
        return _purchase(topic, record)
    if topic == CANCELLED:
        return _cancellation(record)
    if topic == REFUNDS:
        return _refund(record)
    return Ignored(f"topic {topic!r} does not count" if topic else "neither an order nor a refund")


def _topic(record: Record) -> str:
    if "refund_line_items" in record and "order_id" in record:
        return REFUNDS
    return "orders/create" if "line_items" in record and "total_price" in record and "currency" in record else ""


def _purchase(topic: str, record: Record) -> Recognised | Ignored:
    status = word(record.get("financial_status"))
    if record.get("cancelled_at"):
        return Ignored("a cancelled order is no purchase")
    if status in ("voided", "expired"):
        return Ignored(f"a {status} order is no purchase")
    number = _number(record)
    document = {
        "event_id": event_id(record, number and f"{topic}:{number}"),
        "type": PURCHASE,
        "occurred_at": moment(record.get("created_at"), record.get("processed_at"), record.get("updated_at")),
        "token": _token(record),
        "unit": _unit(record),
        "order_id": number,
        "value": record.get("total_price"),
        "currency": currency(record.get("currency")),
        "properties": {"url": page(record.get("landing_site"))},
    }
    return recognised(document, *((Mark("test", "a test order"),) if record.get("test") is True else ()))


def _cancellation(record: Record) -> Recognised | Ignored:
    number = _number(record)
    return recognised(
        {
            "event_id": event_id(record, number and f"{CANCELLED}:{number}"),
            "type": REFUND,
            "occurred_at": moment(record.get("cancelled_at")),
            "reverses": number,
            "currency": currency(record.get("currency")),
        }
    )


def _refund(record: Record) -> Recognised | Ignored:
    number = _number(record)
    value, said = _given_back(record)
    if value == 0:
        return Ignored("a refund that gives no money back")
    return recognised(
        {
            "event_id": event_id(record, number and f"{REFUNDS}:{number}"),
            "type": REFUND,
            "occurred_at": moment(record.get("created_at"), record.get("processed_at")),
            "reverses": order(record.get("order_id")),
            "value": plain(value),
            "currency": said,
        }
    )


def _number(record: Record) -> str | None:
    return order(record.get("admin_graphql_api_id"), record.get("id"))


def _token(record: Record) -> str | None:
    notes = record.get("note_attributes")
    named = [at(note, "value") for note in notes if at(note, "name") == "rl"] if isinstance(notes, list) else []
    return token(*named) or token_in_url(record.get("landing_site"))


def _unit(record: Record) -> str | None:
    buyer = record.get("customer")
    address = email(record.get("email"), record.get("contact_email"), at(buyer, "email"))
    return address or order(at(buyer, "admin_graphql_api_id"), at(buyer, "id"))


def _given_back(record: Record) -> tuple[Decimal, str | None]:
    """The amount and its currency, in the shop's currency where both are told."""
    made = [part for part in _parts(record, "transactions") if word(part.get("kind")) == "refund"]
    if made:
        valid = [part for part in made if word(part.get("status")) not in ("failure", "error")]
        return _sum(valid, "amount_set", "amount", "currency")
    return _sum(_parts(record, "refund_line_items"), "subtotal_set", "subtotal", "currency")


def _parts(record: Record, name: str) -> list[Record]:
    parts = record.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _sum(parts: list[Record], both: str, single: str, named: str) -> tuple[Decimal, str | None]:
    total, said = Decimal(0), None
    for part in parts:
        shop = at(part, both, "shop_money")
        found = amount(text_or_number(at(shop, "amount"), part.get(single)))
        if found is None:
            raise BadInput("A part of the refund has no amount; send the refund as Shopify made it")
        total += abs(found)
        said = said or currency(at(shop, "currency_code"), part.get(named))
    return total, said


def text_or_number(*values: Any) -> Any:
    """The first value that is there."""
    return next((value for value in values if isinstance(value, int | float) or text(value)), None)
