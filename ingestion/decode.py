"""Native events: JSON to :class:`Event`, or to :class:`Rejected` with a sentence that says what to do.

A customer's id and an order's id come in clear and leave as hashes. Nothing is raised for a bad record:
bad data is data, and goes to quarantine.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
from pydantic import Field, ValidationError, WithJsonSchema

from infra.clock import DAY, EARLIEST, HOUR, MICROS, format_time, parse_time
from infra.errors import BadInput
from infra.secrets import Secrets
from ingestion.events import ACTIVATION, REFUND, Event, Rejected, hash_id
from ingestion.fields import LONG_ID, Body, DecisionId, Moment, Person, Scalar, sentence
from ingestion.metrics import LARGEST_VALUE, Currency
from ingestion.tokens import read_token

PROPERTIES = ("url", "device", "client", "country", "channel", "note")
"""Properties of an event that are kept; others may hold what must not be stored, and are dropped."""


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
    sources: tuple[str, ...]
    received_at: int
    skew: int = 24 * HOUR
    """How far in the future an event may be dated, microseconds."""

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
    decision_id, link, position = _link(native, edge.secrets)
    _require(native, decision_id)
    return Event(
        source=_source(native, edge),
        event_id=native.event_id,
        type=native.type,
        occurred_at=_occurred_at(native, edge),
        received_at=edge.received_at,
        decision_id=decision_id,
        link=link,  # type: ignore[arg-type]  # one of the two words below
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


def _link(native: NativeEvent, secrets: Secrets) -> tuple[str | None, str | None, int | None]:
    if native.token is None:
        return native.decision_id, "decision_id" if native.decision_id else None, native.position
    said = read_token(secrets, native.token)
    if native.decision_id not in (None, said.decision_id):
        raise BadInput("Token and decision_id name two decisions; send one of them")
    return said.decision_id, "token", native.position or said.position


def _require(native: NativeEvent, decision_id: str | None) -> None:
    if native.type == ACTIVATION and decision_id is None:
        raise BadInput("An activation needs the decision_id or token of what was sent")
    if native.type == REFUND and native.reverses is None:
        raise BadInput("A refund needs 'reverses': the order_id of the purchase it takes back")
    if native.type != REFUND and native.reverses is not None:
        raise BadInput("Only a refund has 'reverses'; leave it out or set the type to refund")
    if decision_id is None and native.unit is None and native.reverses is None:
        raise BadInput("The event names nobody; add a decision_id, a token or a unit")


def _source(native: NativeEvent, edge: Edge) -> str:
    source = native.source or edge.source
    if source not in edge.sources:
        raise BadInput(
            f"Source {source[:64]!r} is unknown; use one of {', '.join(edge.sources)} or add it to REWARDLOOP_SOURCES"
        )
    return source


def _occurred_at(native: NativeEvent, edge: Edge) -> int:
    try:
        moment = parse_time(native.occurred_at)
    except (ValueError, OverflowError):
        raise BadInput(
            f"occurred_at {native.occurred_at!r} is not a time; write ISO 8601 like 2026-11-22T10:02:00Z"
        ) from None
    if moment < EARLIEST:
        raise BadInput(f"occurred_at {native.occurred_at} is before the year 2000; check the sender's clock and unit")
    if moment > edge.received_at + edge.skew:
        ahead = (moment - edge.received_at) / DAY
        raise BadInput(
            f"occurred_at {native.occurred_at} is {ahead:.1f} days after it was received "
            f"({format_time(edge.received_at)}); set the sender's clock and send it again"
        )
    return moment


def value_micros(value: Any) -> int | None:
    """A number in whole units to integer millionths, without a detour over binary fractions."""
    if value is None:
        return None
    text = str(value)
    try:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", text):
            raise InvalidOperation
        amount = Decimal(text)
    except InvalidOperation:
        raise BadInput(f"value {text[:40]!r} is not a number; write it like 49.90") from None
    if amount < 0:
        raise BadInput(
            f"value {text} is negative; send what was paid, and money given back as a refund with 'reverses'"
        )
    if amount > LARGEST_VALUE:
        raise BadInput(f"value {text} is above {LARGEST_VALUE}; check its unit")
    return int((amount * MICROS).to_integral_value(ROUND_HALF_EVEN))


def _bytes(raw: bytes | dict[str, Any]) -> bytes:
    return raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
