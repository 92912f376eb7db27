"""Native events to facts."""

import json
import string
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import DAY, HOUR, MICROS, format_time, parse_time
from infra.secrets import Secrets
from ingestion.decode import Edge, decode_event
from ingestion.events import Event, Rejected, hash_id
from ingestion.rules import PROPERTIES, value_micros
from ingestion.tokens import make_token

SECRETS = Secrets(b"m" * 32, {1: b"u" * 32, 2: b"v" * 32}, {1: b"t" * 32})
NOW = parse_time("2026-11-22T10:00:00Z")
EDGE = Edge(SECRETS, ("http", "shop"), NOW)
CLICK = {"event_id": "e1", "type": "click", "occurred_at": "2026-11-22T09:00:00Z", "decision_id": "d1"}


def decoded(**fields: Any) -> Event:
    """The event that this native event becomes."""
    event = decode_event({**CLICK, **fields}, EDGE)
    assert isinstance(event, Event), event
    return event


def reason(**fields: Any) -> str:
    """Why this native event is rejected; a field set to None is left out."""
    raw = {name: value for name, value in {**CLICK, **fields}.items() if value is not None}
    rejected = decode_event(raw, EDGE)
    assert isinstance(rejected, Rejected), rejected
    return rejected.reason


IDS = st.text(string.ascii_letters + string.digits + "._:@+/=-", min_size=1, max_size=64)
NATIVE = st.fixed_dictionaries(
    {
        "event_id": IDS,
        "type": st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True).filter(
            lambda t: t not in ("refund", "activation")
        ),
        "occurred_at": st.integers(parse_time("2000-01-01"), NOW).map(format_time),
    },
    optional={
        "decision_id": IDS,
        "content_id": IDS,
        "position": st.integers(1, 500),
        "value": st.decimals(0, 10**9, places=6).map(str),
        "currency": st.sampled_from(["EUR", "USD"]),
        "order_id": st.text(min_size=1, max_size=40),
        "source": st.sampled_from(["http", "shop"]),
        "properties": st.dictionaries(st.sampled_from([*PROPERTIES, "ip", "email"]), st.text(max_size=20), max_size=5),
    },
)


@given(NATIVE, st.text(min_size=1, max_size=64))
def test_round_trip(native: dict[str, Any], unit: str) -> None:
    """Every field of a valid event arrives in the fact unchanged, customers and orders as hashes."""
    event = decode_event(json.dumps({**native, "unit": unit}).encode(), EDGE)

    assert isinstance(event, Event), event
    assert (
        native["event_id"],
        native["type"],
        native["occurred_at"],
        native.get("decision_id"),
        native.get("content_id"),
        native.get("position"),
        native.get("currency"),
        native.get("source", "http"),
    ) == (
        event.event_id,
        event.type,
        format_time(event.occurred_at),
        event.decision_id,
        event.content_id,
        event.position,
        event.currency,
        event.source,
    )
    assert (SECRETS.unit(unit), SECRETS.unit_before(unit)) == (event.unit, event.unit_before)
    assert (hash_id(native["order_id"]) if "order_id" in native else None) == event.fact_key
    value = None if event.value_micros is None else Decimal(event.value_micros) / MICROS
    assert (Decimal(native["value"]) if "value" in native else None) == value
    kept = {name: text for name, text in native.get("properties", {}).items() if name in PROPERTIES}
    assert kept == event.raw


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_rejected(raw: bytes) -> None:
    """Whatever the bytes, the decoder answers a fact or a reason, and keeps the bytes it rejects."""
    result = decode_event(raw, EDGE)

    assert isinstance(result, Rejected)
    assert raw == result.raw


@given(
    st.dictionaries(
        st.sampled_from([*CLICK, "value", "unit", "token", "position", "properties"]),
        st.text() | st.floats() | st.integers() | st.lists(st.none(), max_size=2),
    )
)
def test_any_fields_are_an_event_or_rejected(fields: dict[str, Any]) -> None:
    """Whatever the fields hold, the decoder answers a fact or a reason that is a sentence."""
    result = decode_event({**CLICK, **fields}, EDGE)

    assert isinstance(result, Event) or len(result.reason) > 20


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        (49.9, 49_900_000),
        ("49.90", 49_900_000),
        (0.1, 100_000),
        (3, 3_000_000),
        ("0.0000015", 2),
        (1e-7, 0),
        (None, None),
    ],
)
def test_values_are_exact_micros(value: Any, micros: int | None) -> None:
    """A value becomes integer millionths, the nearest one, without a binary fraction in between."""
    assert micros == decoded(value=value).value_micros


@given(st.floats(0, 10**10) | st.decimals(0, 10**10, places=6).map(float))
def test_a_float_is_worth_its_digits(value: float) -> None:
    """A number counts the same millionths as the text of its digits."""
    assert value_micros(repr(value)) == value_micros(value)


def test_token_names_the_decision_and_the_position() -> None:
    """A token stands for a decision id, and is recorded as such."""
    event = decoded(decision_id=None, token=make_token(SECRETS, "d9", 3))

    assert (event.decision_id, event.link, event.position) == ("d9", "token", 3)


def test_the_customer_never_leaves_in_clear() -> None:
    """Neither the unit nor the order appears in the fact."""
    event = decoded(unit="jane@example.com", order_id="order-77")

    assert "jane" not in repr(event)
    assert "order-77" not in repr(event)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"occurred_at": None}, "Field 'occurred_at' is missing; add it"),
        ({"value": -3}, "value -3 is negative; send what was paid, and money given back as a refund with 'reverses'"),
        ({"value": "12,50"}, "value '12,50' is not a number; write it like 49.90"),
        ({"source": "nobody"}, "Source 'nobody' is unknown; use one of http, shop or add it to REWARDLOOP_SOURCES"),
        (
            {"token": "1.abc.def", "decision_id": None},
            "The token was not signed by this installation or was changed; send it as /v1/rank returned it",
        ),
        ({"token": make_token(SECRETS, "d2")}, "Token and decision_id name two decisions; send one of them"),
        ({"decision_id": None}, "The event names nobody; add a decision_id, a token or a unit"),
        ({"type": "refund"}, "A refund needs 'reverses': the order_id of the purchase it takes back"),
        (
            {"type": "activation", "decision_id": None, "unit": "u"},
            "An activation needs the decision_id or token of what was sent",
        ),
        ({"colour": "red"}, "Field 'colour' is not a field here; leave it out or correct its name"),
        (
            {"occurred_at": "yesterday at 10"},
            "occurred_at 'yesterday at 10' is not a time; write ISO 8601 like 2026-11-22T10:02:00Z",
        ),
        (
            {"occurred_at": "1970-01-20T13:00:00Z"},
            "occurred_at 1970-01-20T13:00:00Z is before the year 2000; check the sender's clock and unit",
        ),
        (
            {"occurred_at": "2026-11-27T10:00:00Z"},
            "occurred_at 2026-11-27T10:00:00Z is 5.0 days after it was received (2026-11-22T10:00:00Z); "
            "set the sender's clock and send it again",
        ),
    ],
)
def test_reasons_say_what_to_do(fields: dict[str, Any], expected: str) -> None:
    """A rejected event names what was found and what to do."""
    assert expected == reason(**fields)


def test_clocks_may_differ_by_the_skew() -> None:
    """An event is accepted up to the skew in the future, and not a second further."""
    at = format_time(NOW + 24 * HOUR)

    assert decoded(occurred_at=at).occurred_at == NOW + DAY
    assert "set the sender's clock" in reason(occurred_at=format_time(NOW + 24 * HOUR + MICROS))
