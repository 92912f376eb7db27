"""SendGrid's Event Webhook: a list of events, one object per event.

Source: twilio.com/docs/sendgrid/for-developers/tracking-events/event.

- Token: the custom argument ``rl``, which comes back at the top level of each event; or ``rl`` in the query of ``url``.
- Customer: the e-mail address in lower case; SendGrid knows no other id.
- Event id: ``sg_event_id``, else, or where a sample holds only the name of the field, a digest.
- Opens by a mailbox provider's machine are labelled ``bot``.
"""

from collections.abc import Iterator, Mapping

from ingestion.connectors.fields import (
    clean,
    email,
    event_id,
    moment,
    page,
    recognised,
    said_true,
    text,
    token,
    token_in_url,
    word,
)
from ingestion.connectors.items import Ignored, Item, Mark, Recognised, Record, listed, read_each

TYPES = {
    "delivered": "delivered",
    "open": "open",
    "click": "click",
    "bounce": "bounce",
    "spamreport": "spam_report",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "unsubscribe",
}


def read(body: bytes, _headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body."""
    return read_each(body, listed, _event)


def _event(event: Record) -> Recognised | Ignored:
    said = word(event.get("event"))
    if said not in TYPES:
        return Ignored(f"event {said!r} does not count" if said else "no event type")
    agent = text(event.get("useragent"))
    document = {
        "event_id": event_id(event, event.get("sg_event_id"), "sg_event_id"),
        "type": TYPES[said],
        "occurred_at": moment(event.get("timestamp")),
        "token": token(event.get("rl")) or token_in_url(event.get("url")),
        "unit": email(event.get("email")),
        "properties": {"url": page(event.get("url")), "client": clean(agent) if agent else None},
    }
    machine = (Mark("bot", "opened by a machine of the mailbox provider"),)
    return recognised(document, *(machine if said_true(event.get("sg_machine_open")) else ()))
