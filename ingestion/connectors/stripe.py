"""Stripe's webhooks: checkout sessions that were paid, and refunds that succeeded.

Source: docs.stripe.com/api/events/types, docs.stripe.com/currencies (minor units and their special cases).

- A purchase is ``checkout.session.completed`` with ``payment_status`` paid, or
  ``checkout.session.async_payment_succeeded``; the session is in exactly one of the two as paid.
- A refund is a succeeded ``refund.created``, ``refund.updated`` or ``charge.refund.updated``; all reports of one refund
  are one event, named after the refund. ``charge.refunded`` carries the sum of all refunds so far and is ignored, so
  that money is taken back once.
- Token: ``metadata.rl``, else ``client_reference_id``, there also with dashes for its two dots, because Payment Links
  accept no dots.
- Customer: the e-mail address in lower case, else Stripe's customer id.
- Order: ``metadata.order_id``, else the payment intent, else the session; a refund names it the same way, by its own
  metadata or its payment intent.
- Events of the test mode are labelled ``test``.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from ingestion.connectors.fields import (
    at,
    currency,
    email,
    event_id,
    moment,
    order,
    plain,
    recognised,
    text,
    token,
    word,
)
from ingestion.connectors.items import Ignored, Item, Mark, Recognised, Record, listed, read_each
from ingestion.events import PURCHASE, REFUND

SESSIONS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
REFUNDS = ("refund.created", "refund.updated", "charge.refund.updated")
CUMULATIVE = "charge.refunded"

WHOLE = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
"""Currencies without a smaller unit. ISK and UGX have none either, but Stripe counts them in hundredths."""
THOUSANDTHS = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))

_DASHED = re.compile(r"([0-9]{1,9})-([A-Za-z0-9_-]+)-([A-Za-z0-9_-]{22})")


def read(body: bytes, _headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body."""
    return read_each(body, listed, _event)


def _event(event: Record) -> Recognised | Ignored:
    kind, thing = word(event.get("type")), at(event, "data", "object")
    if not isinstance(thing, dict) or not kind:
        return Ignored("no event of Stripe")
    if kind in SESSIONS:
        return _purchase(event, thing)
    if kind in REFUNDS:
        return _refund(event, thing)
    if kind == CUMULATIVE:
        return Ignored(f"{CUMULATIVE} adds up all refunds; refund.created counts each")
    return Ignored(f"event {kind!r} does not count")


def _purchase(event: Record, session: Record) -> Recognised | Ignored:
    status, units = word(session.get("payment_status")), session.get("amount_total")
    if status != "paid":
        return Ignored(f"a checkout session that is {status or 'without a payment status'}")
    if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
        return Ignored("a checkout session without an amount")
    paid_in = currency(session.get("currency"))
    document = {
        "event_id": _id(event),
        "type": PURCHASE,
        "occurred_at": moment(event.get("created"), session.get("created")),
        "token": _token(session),
        "unit": email(at(session, "customer_details", "email"), session.get("customer_email"))
        or _id_of(session.get("customer")),
        "order_id": _order(session) or text(session.get("id")),
        "value": _whole_units(units, paid_in),
        "currency": paid_in,
    }
    return recognised(document, *_marks(event))


def _refund(event: Record, refund: Record) -> Recognised | Ignored:
    status, units = word(refund.get("status")), refund.get("amount")
    if status != "succeeded":
        return Ignored(f"a refund that is {status or 'without a status'}")
    if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
        return Ignored("a refund without an amount")
    paid_in, name = currency(refund.get("currency")), text(refund.get("id"))
    document = {
        "event_id": event_id(event, name and f"refund:{name}"),
        "type": REFUND,
        "occurred_at": moment(refund.get("created"), event.get("created")),
        "reverses": _order(refund) or _id_of(refund.get("charge")),
        "value": _whole_units(units, paid_in),
        "currency": paid_in,
    }
    return recognised(document, *_marks(event))


def _id(event: Record) -> str:
    """The event's id; of samples that share an id of zeros, a digest."""
    given = text(event.get("id")) or ""
    return event_id(event, "" if re.fullmatch(r"evt_0*", given) else given, "", "pending_webhooks")


def _token(session: Record) -> str | None:
    reference = text(session.get("client_reference_id")) or ""
    dashed = _DASHED.fullmatch(reference)
    return token(at(session, "metadata", "rl"), reference, ".".join(dashed.groups()) if dashed else None)


def _order(thing: Record) -> str | None:
    return order(at(thing, "metadata", "order_id")) or _id_of(thing.get("payment_intent"))


def _id_of(thing: Any) -> str | None:
    """An object's id, whether the object was expanded or not."""
    return text(thing, at(thing, "id"))


def _marks(event: Record) -> tuple[Mark, ...]:
    return (Mark("test", "Stripe's test mode"),) if event.get("livemode") is False else ()


def _whole_units(units: int, paid_in: str | None) -> str | None:
    places = 0 if paid_in in WHOLE else 3 if paid_in in THOUSANDTHS else 2
    return plain(Decimal(units).scaleb(-places)) if units < 10**15 else None
