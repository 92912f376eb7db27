"""Vendors' webhooks: ``POST /v1/webhooks/{connection}``.

1. The connection, by its name in the secrets file: it says which connector reads the body and which keys are in force.
2. The signature, over the raw bytes, before anything unpacks or parses them. Every cause gives the same 401. Then a
   body in gzip is unpacked, as far as the limit on bodies goes; signed were the bytes as they came.
3. The connector's items become facts, each for itself; the connection's name is their source.
4. They are kept like those of ``/v1/events``, in the store or on the topic; only then the vendor is answered.

At least once is safe: vendors send again until they see a 200, and every event is stored once. A body that cannot be
used is no reason to send it again, so it is answered with 200 and lies in quarantine.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from infra.clock import HOUR, format_time
from infra.errors import BadInput, Misconfigured, NotFound, StrangeEncoding, TooLarge, Unauthorized
from infra.logs import log
from infra.secrets import Secrets, Webhook
from infra.telemetry import webhooks_refused
from ingestion import store
from ingestion.connectors import CONNECTORS, signatures
from ingestion.connectors.items import Ignored
from ingestion.connectors.signatures import SCHEMES, Check, Delivery
from ingestion.decode import Edge
from ingestion.events import Rejected
from ingestion.fields import Body
from ingestion.http.bodies import RejectedEvent
from ingestion.http.problems import responses
from ingestion.http.wiring import Collector, Wired
from ingestion.intake import Outcome, Taken, batch_of, take
from ingestion.stream.publisher import accept

router = APIRouter(prefix="/v1")

SHORTEST_KEY = 16
"""Least characters of a key. Vendors make theirs far longer; bearer keys are often made by hand."""


class WebhookAnswer(Body):
    """What became of each record: the numbers and the list add up to the records sent."""

    accepted: int = Field(description="New facts, joined with their decisions; with Kafka, on the events topic.")
    duplicate: int = Field(description="Known already, with the same body.")
    pending: int = Field(description="New facts whose decision is not known yet.")
    ignored: dict[str, int] = Field(description="No events for us, by reason; not stored.")
    rejected: list[RejectedEvent] = Field(description="Put into quarantine.")


def check_webhooks(secrets: Secrets) -> None:
    """Refuse a connection to nowhere, and warn of those that take anybody's word. Raises :class:`Misconfigured`."""
    for name, webhook in secrets.webhooks.items():
        if webhook.connector not in CONNECTORS:
            known = ", ".join(CONNECTORS)
            raise Misconfigured(f"Webhook {name!r} names connector {webhook.connector!r}; there are {known}")
        if webhook.signature not in (None, *SCHEMES):
            known = ", ".join(SCHEMES)
            raise Misconfigured(f"Webhook {name!r} names signature {webhook.signature!r}; there are {known}")
        if _check(webhook) is signatures.sendgrid and not all(map(signatures.public_key, webhook.keys)):
            raise Misconfigured(
                f"Webhook {name!r} needs SendGrid's verification key; copy it whole, as it is shown there"
            )
        if short := [len(key) for key in webhook.keys if len(key) < SHORTEST_KEY]:
            raise Misconfigured(
                f"Webhook {name!r} has a key of {short[0]} characters, which can be guessed; have the sender use one of "
                f"{SHORTEST_KEY} or more"
            )
        if webhook.unsigned:
            log.warning("webhook_unsigned", connection=name, advice="anybody who reaches it can write events")


async def _delivery(request: Request) -> Delivery:
    """The request as it came: raw bytes, nothing parsed."""
    wired: Collector = request.app.state.collector
    return Delivery(await request.body(), dict(request.headers), wired.clock())


@router.post(
    "/webhooks/{connection}",
    tags=["events"],
    summary="Take a vendor's webhook",
    responses=responses(401, 404, 413, 415),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}},
)
def receive(connection: str, wired: Wired, delivery: Annotated[Delivery, Depends(_delivery)]) -> WebhookAnswer:
    """Store what a vendor reports: clicks, purchases, refunds and what else its connector recognises.

    The connection and its keys are in the secrets file, under `webhooks`. Each record stands or falls alone.
    """
    webhook = wired.secrets.webhooks.get(connection)
    if webhook is None:
        raise NotFound(f'No webhook {connection[:64]!r}; add it to the secrets file, under "webhooks"')
    if not _is_signed(webhook, delivery):
        webhooks_refused.labels(connection).inc()
        raise Unauthorized("The request does not carry a valid signature; check the key of this webhook")
    skew = wired.settings.clock_skew_hours * HOUR
    edge = Edge(wired.secrets, (connection,), delivery.received_at, skew)
    body = unpacked(delivery, wired.settings.body_limit_bytes)
    items = CONNECTORS[webhook.connector].read(body, delivery.headers)
    outcomes = take(webhook.connector, items, edge, format_time(delivery.received_at))
    return _answer(list(_stored(wired, outcomes, delivery.received_at)))


def unpacked(delivery: Delivery, limit: int) -> bytes:
    """The body without its ``Content-Encoding``, of which gzip is understood; never more than ``limit`` bytes are made.

    Raises :class:`StrangeEncoding` for another, :class:`TooLarge`, and :class:`BadInput` for a damaged body.
    """
    encoding = delivery.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return delivery.body
    if encoding not in ("gzip", "x-gzip"):
        raise StrangeEncoding(
            f"Content-Encoding {encoding[:64]!r} is not understood; send the body as it is, or in gzip"
        )
    try:
        with gzip.GzipFile(fileobj=BytesIO(delivery.body)) as file:
            body = file.read(limit + 1)
    except (OSError, EOFError, zlib.error):
        raise BadInput("The body is no whole gzip file; send it again, or without Content-Encoding") from None
    if len(body) > limit:
        raise TooLarge(f"The body is larger than {limit} bytes once it is unpacked; send it in smaller parts")
    return body


def _is_signed(webhook: Webhook, delivery: Delivery) -> bool:
    return webhook.unsigned or _check(webhook)(delivery, webhook.keys)


def _check(webhook: Webhook) -> Check:
    """The vendor's way of signing, or the one that the connection names in its place."""
    return SCHEMES[webhook.signature] if webhook.signature else CONNECTORS[webhook.connector].check


def _stored(wired: Collector, outcomes: Sequence[Outcome], now: int) -> Iterator[tuple[Outcome, Any]]:
    """Each outcome with what the store made of it, in transactions of at most ``events_limit`` records."""
    most = wired.settings.events_limit
    for start in range(0, len(outcomes), most):
        some = outcomes[start : start + most]
        states = iter(accept(wired, batch_of(some), now))
        yield from ((outcome, next(states) if isinstance(outcome, Taken) else outcome) for outcome in some)


def _answer(stored: Sequence[tuple[Outcome, Any]]) -> WebhookAnswer:
    words = Counter(state for _, state in stored if isinstance(state, str))
    ignored = Counter(state.reason for _, state in stored if isinstance(state, Ignored))
    if words["ignored"]:
        ignored[store.FORGOTTEN] += words["ignored"]
    if words["sealed"]:
        ignored[store.SEALED] += words["sealed"]
    return WebhookAnswer(
        accepted=words["applied"] + words["published"],
        duplicate=words["duplicate"],
        pending=words["pending"],
        ignored=dict(ignored),
        rejected=[
            RejectedEvent(index=index, event_id=_event_id(outcome), reason=state.reason)
            for index, (outcome, state) in enumerate(stored)
            if isinstance(state, Rejected)
        ],
    )


def _event_id(outcome: Outcome) -> str | None:
    """The id in what was rejected, where it had one."""
    if isinstance(outcome, Taken):
        return outcome.event.event_id
    _, kind, name = outcome.position.split("/", 2) if isinstance(outcome, Rejected) else ("", "", "")
    return name if kind == "event" else None
