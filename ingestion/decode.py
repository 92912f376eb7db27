"""Native events: JSON to :class:`Event`, or to :class:`Rejected` with a sentence that says what to do.

A customer's id and an order's id come in clear and leave as hashes. Nothing is raised for a bad record:
bad data is data, and goes to quarantine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from pydantic import Field, ValidationError, WithJsonSchema

from infra.clock import HOUR
from infra.errors import BadInput
from infra.secrets import Secrets
from ingestion.events import Event, Rejected, hash_id
from ingestion.fields import LONG_ID, Body, DecisionId, Moment, Person, Scalar, sentence
from ingestion.metrics import Currency
from ingestion.rules import PROPERTIES, known_source, moment, named_decision, require, require_signed, value_micros


class NativeEvent(Body):
    """One thing that happened: a click, a purchase, a refund …"""

    event_id: str = Field(pattern=LONG_ID, description="The sender's id: the same id is counted once.")
    type: str = Field(
        pattern=r"^[a-z][a-z0-9_.]{0,62}$", description="click, purchase, refund, unsubscribe, activation …"
    )
    occurred_at: Moment = Field(description="When it happened, ISO 8601.")
    decision_id: DecisionId | None = Field(None, description="The decision it belongs to.")
    token: str | None = Field(None, max_length=2_000, description="Instead of `decision_id`: the token of /v1/rank.")
    unit: Person | None = Field(None, description="The customer, in clear; stored as a keyed hash.")
    content_id: str | None = Field(None, pattern=LONG_ID, description="The content of a slate it is about.")
    position: int | None = Field(None, ge=1, le=500, description="The position of a slate it is about; 1 is first.")
    value: Annotated[Any, WithJsonSchema({"type": ["number", "string", "null"]})] = Field(
        None, description="Amount or number, in whole units: 49.90."
    )
    currency: Currency | None = Field(None, description="ISO 4217, for money.")
    order_id: str | None = Field(
        None, min_length=1, max_length=256, description="Order or checkout session: one purchase, whoever reports it."
    )
    reverses: str | None = Field(
        None, min_length=1, max_length=256, description="For a refund: the `order_id` of the purchase it takes back."
    )
    source: str | None = Field(
        None, max_length=256, description="One of the sources in the settings; default: the first."
    )
    properties: dict[str, Scalar] = Field(
        default_factory=dict, max_length=50, description=f"Further fields; kept are {', '.join(PROPERTIES)}."
    )


@dataclass(frozen=True)
class Edge:
    """What the decoder must know of the place it stands at."""

    secrets: Secrets
    sources: Sequence[str]
    received_at: int
    skew: int = 24 * HOUR
    """How far in the future an event may be dated, microseconds."""
    signed: bool = False
    """Whether the connection's key is public: only what a token proves is taken."""

    @property
    def source(self) -> str:
        """The connection's own name, for events that give none."""
        return self.sources[0]


def decode_event(raw: bytes | dict[str, Any], edge: Edge, position: str = "") -> Event | Rejected:
    """One native event. ``position`` says where it was read, for the quarantine."""
    try:
        document = msgspec.json.decode(raw) if isinstance(raw, bytes) else raw
        return _event(NativeEvent.model_validate(document), edge)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reason = "The event is not readable JSON; send one JSON object per event"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = (
            f"Field {sentence(first)}"
            if first["loc"]
            else "An event is a JSON object with event_id, type and occurred_at"
        )
    except BadInput as error:
        reason = str(error)
    return Rejected(source=edge.source, position=position, reason=reason, raw=_bytes(raw))


def _event(native: NativeEvent, edge: Edge) -> Event:
    if edge.signed:
        require_signed(native.type, native.token, native.unit, native.order_id or native.reverses)
    decision_id, link, position = named_decision(native.decision_id, native.token, native.position, edge.secrets)
    require(native.type, decision_id, native.unit, native.reverses)
    return Event(
        source=known_source(native.source, edge.sources),
        event_id=native.event_id,
        type=native.type,
        occurred_at=moment("occurred_at", native.occurred_at, edge.received_at, edge.skew),
        received_at=edge.received_at,
        decision_id=decision_id,
        link=link,
        unit=edge.secrets.unit(native.unit) if native.unit else None,
        unit_before=edge.secrets.unit_before(native.unit) if native.unit else None,
        content_id=native.content_id,
        position=position,
        value_micros=value_micros(native.value),
        currency=native.currency,
        fact_key=hash_id(native.order_id) if native.order_id else None,
        reverses=hash_id(native.reverses) if native.reverses else None,
        raw={name: native.properties[name] for name in PROPERTIES if name in native.properties},
    )


def _bytes(raw: bytes | dict[str, Any]) -> bytes:
    return raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
