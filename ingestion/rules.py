"""What makes a fact whole, in one place: the rules that every door shares, whatever a record looks like outside.

Each rule takes plain values and raises :class:`BadInput` with a sentence that says what to do. HTTP bodies reach them
through ``ingestion/decode.py``, records of topics through ``ingestion/stream/messages.py``.
"""

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Literal

from infra.clock import DAY, EARLIEST, MICROS, format_time, parse_time
from infra.errors import BadInput
from infra.secrets import Secrets
from ingestion.events import ACTIVATION, REFUND
from ingestion.metrics import LARGEST_VALUE
from ingestion.tokens import read_token

PROPERTIES = ("url", "device", "client", "country", "channel", "note")
"""Properties of an event that are kept; others may hold what must not be stored, and are dropped."""

DEPTH = 32
"""How deep a document may be nested."""

Link = Literal["decision_id", "token"]

_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_EXACT = 10**9
"""Below it a float with at most six decimals is the only float for them, so millionths need no decimal arithmetic."""


def named_decision(
    decision_id: str | None, token: str | None, position: int | None, secrets: Secrets
) -> tuple[str | None, Link | None, int | None]:
    """Decision, how it was named, and position: as said, or as the token says."""
    if token is None:
        return decision_id, "decision_id" if decision_id else None, position
    said = read_token(secrets, token)
    if decision_id not in (None, said.decision_id):
        raise BadInput("Token and decision_id name two decisions; send one of them")
    return said.decision_id, "token", position or said.position


def require(kind: str, decision_id: str | None, unit: str | None, reverses: str | None) -> None:
    """An event names what its type needs, and somebody."""
    if kind == ACTIVATION and decision_id is None:
        raise BadInput("An activation needs the decision_id or token of what was sent")
    if kind == REFUND and reverses is None:
        raise BadInput("A refund needs 'reverses': the order_id of the purchase it takes back")
    if kind != REFUND and reverses is not None:
        raise BadInput("Only a refund has 'reverses'; leave it out or set the type to refund")
    if decision_id is None and unit is None and reverses is None:
        raise BadInput("The event names nobody; add a decision_id, a token or a unit")


def require_signed(kind: str, token: str | None, unit: str | None, order: str | None) -> None:
    """What a public key may send touches no decision but that of the token: everybody can read such a key."""
    if token is None:
        raise BadInput("A key with the scope 'signed' sends events with the token of /v1/rank only; add it")
    if unit is not None:
        raise BadInput("A key with the scope 'signed' names no unit: the token says whose event it is; leave it out")
    if order is not None or kind == REFUND:
        raise BadInput(
            "A key with the scope 'signed' reports neither orders nor refunds, which concern others too; leave out "
            "order_id and reverses, or send it from a server whose key has the scope 'events'"
        )


def known_source(named: str | None, sources: Sequence[str]) -> str:
    """The source, which must be on the list; the first of the list when none is named."""
    source = named or sources[0]
    if source not in sources:
        raise BadInput(
            f"Source {source[:64]!r} is unknown; use one of {', '.join(sources)} or add it to REWARDLOOP_SOURCES"
        )
    return source


def moment(name: str, text: str, now: int, skew: int) -> int:
    """The time in field ``name``, microseconds: not before 2000, not further in the future than the skew."""
    try:
        found = parse_time(text)
    except (ValueError, OverflowError):
        raise BadInput(f"{name} {text!r} is not a time; write ISO 8601 like 2026-11-22T10:02:00Z") from None
    if found < EARLIEST:
        raise BadInput(f"{name} {text} is before the year 2000; check the sender's clock and unit")
    if found > now + skew:
        ahead = (found - now) / DAY
        raise BadInput(
            f"{name} {text} is {ahead:.1f} days after it was received "
            f"({format_time(now)}); set the sender's clock and send it again"
        )
    return found


def value_micros(value: Any) -> int | None:
    """A number in whole units to integer millionths, without a detour over binary fractions."""
    if value is None:
        return None
    if type(value) is int and 0 <= value <= LARGEST_VALUE:
        return value * MICROS
    if type(value) is float and 0 <= value < _EXACT and (micros := round(value * MICROS)) / MICROS == value:
        return micros
    text = str(value)
    try:
        if isinstance(value, bool) or not _NUMBER.fullmatch(text):
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


def fault(document: Any, depth: int = 0) -> str | None:
    """What no document may hold, as a sentence: nesting deeper than :data:`DEPTH`, or U+0000; None: neither."""
    if depth > DEPTH:
        return f"The body is nested deeper than {DEPTH}; flatten it"
    if isinstance(document, str) and "\x00" in document:
        return "A text in the body holds the character U+0000; take it out"
    if isinstance(document, dict):
        return next((found for pair in document.items() for part in pair if (found := fault(part, depth + 1))), None)
    if isinstance(document, list):
        return next((found for part in document if (found := fault(part, depth + 1))), None)
    return None
