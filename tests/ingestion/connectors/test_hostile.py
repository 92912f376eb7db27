"""Hostile documents: whatever comes, a connector and the intake answer with items, never with an error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import MICROS
from infra.secrets import Secrets
from ingestion.connectors import CONNECTORS, shopify
from ingestion.connectors.items import Ignored, Unreadable
from ingestion.decode import Edge
from ingestion.events import Rejected
from ingestion.intake import Taken, take
from tests.ingestion.connectors.golden import FILES, TOKEN, items

EDGE = Edge(Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32}), ("shop",), 1_790_000_000 * MICROS)
TIME = "2026-06-02T08:00:00Z"
CASES = [(path.parent.name, json.loads(path.read_text())) for path in FILES]

words = st.sampled_from(
    [
        *("", " ", "0", "-1", "NaN", "1e400", "true", "99999999999", "2026-13-45", "0001-01-01"),
        *("gid://", "gid://shopify/Order/", "http://[", "//", "?rl=", "rl", TOKEN, TOKEN.replace(".", "-")),
        *("track", "click", "event", "ecommerce.order_placed", "order_id", "paid", "succeeded", "sg_event_id"),
        *("\x00", "\u202e", "ü" * 300, "x" * 3_000),
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | words
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)


ODD: list[Any] = [None, True, -1, 2**70, 1e300, "", "NaN", "x" * 3_000, "http://[", "\x00", [], {}, [[{}]], {"id": {}}]


def with_one_part_odd(document: Any) -> Iterator[Any]:
    """The document once for each of its parts and each odd value, with the value in the part's place."""
    yield from ODD
    if isinstance(document, dict):
        for name, part in document.items():
            yield from (document | {name: odd} for odd in with_one_part_odd(part))
    elif isinstance(document, list):
        for place, part in enumerate(document):
            yield from ([*document[:place], odd, *document[place + 1 :]] for odd in with_one_part_odd(part))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_any_part_may_be_odd(path: Path) -> None:
    """Every part of every delivery of the corpus, replaced by every odd value, ends as items."""
    case = json.loads(path.read_text())
    for body in with_one_part_odd(case["body"]):
        for outcome in take(path.parent.name, items(path.parent.name, body, case["headers"]), EDGE, TIME):
            assert isinstance(outcome, Taken | Ignored | Rejected)


def spoilt(document: Any, data: st.DataObject) -> Any:
    """The document with one part replaced by anything, somewhere."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 4)):
        name = data.draw(st.sampled_from(sorted(document)))
        return document | {name: spoilt(document[name], data)}
    if isinstance(document, list) and document and data.draw(st.integers(0, 4)):
        place = data.draw(st.integers(0, len(document) - 1))
        return [spoilt(part, data) if index == place else part for index, part in enumerate(document)]
    return data.draw(values)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_spoilt_record_is_taken_ignored_or_rejected(data: st.DataObject) -> None:
    """A real delivery with any of its parts replaced by anything is never an error, and every item has its end."""
    connector, case = data.draw(st.sampled_from(CASES))
    body = spoilt(spoilt(case["body"], data), data)
    found = items(connector, body, case["headers"])

    for outcome in take(connector, found, EDGE, TIME):
        assert isinstance(outcome, Taken | Ignored | Rejected)
        assert "\x00" not in getattr(outcome, "reason", "")
        assert len(getattr(outcome, "reason", "")) < 600
        assert outcome.event.source == "shop" if isinstance(outcome, Taken) else True


@pytest.mark.parametrize("connector", CONNECTORS)
@given(body=st.binary(max_size=200), headers=st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=3))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_read(connector: str, body: bytes, headers: dict[str, str]) -> None:
    """Any bytes under any headers give a list of items."""
    topic = headers | {shopify.TOPIC: "orders/create", "ce-specversion": "1.0"}

    assert isinstance(items(connector, body, headers) + items(connector, body, topic), list)


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize(
    "hostile",
    [
        b'{"value":' + b"9" * 5_000 + b"}",
        b'{"event_id":' + b"9" * 5_000 + b',"type":"click","occurred_at":"2026-06-02T08:00:00Z"}',
        b'{"event_id":"a","type":"click","occurred_at":"2026-06-02T08:00:00Z","unit":"u","value":'
        + b"9" * 5_000
        + b"}",
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"' + b"a" * 500_000 + b'":1}',
        b'{"type":"track","event":"' + b"\\u0000" * 1_000 + b'","userId":"u"}',
    ],
    ids=["huge number", "huge id", "huge value", "deep", "huge name", "NUL"],
)
def test_huge_and_deep_documents_are_read(connector: str, hostile: bytes) -> None:
    """Numbers of 5,000 digits, 900 levels and names of half a megabyte end as items, too."""
    for outcome in take(connector, items(connector, hostile), EDGE, TIME):
        assert isinstance(outcome, Ignored | Rejected)
        assert outcome.reason.isprintable()
        assert len(outcome.reason) < 600


DEEP = {
    "segment": b'{"type":"track","event":"Order Completed","userId":"u","properties":{"x":%b}}',
    "sendgrid": b'[{"event":"click","email":"a@example.com","timestamp":1780387200,"x":%b}]',
    "shopify": b'{"refund_line_items":[],"order_id":2,"transactions":[{"kind":"refund","amount":"1"}],"x":%b}',
    "stripe": b'{"type":"checkout.session.completed","data":{"object":'
    b'{"payment_status":"paid","amount_total":5,"currency":"usd","customer_email":"a@example.com","x":%b}}}',
    "braze": b'{"event_type":"users.messages.email.click","time":1780387200,"external_user_id":"u","x":%b}',
    "cloudevents": b'{"specversion":"1.0","id":"1","source":"s","type":"click","data":{"unit":"u","x":%b}}',
    "native": b'{"event_id":"a","type":"click","unit":"u","x":%b}',
}


@pytest.mark.parametrize("connector", CONNECTORS)
def test_any_depth_is_read(connector: str) -> None:
    """Also a depth that can be decoded and just not encoded again is no error."""
    for depth in range(950, 1_010):
        body = DEEP[connector] % (b"[" * depth + b"]" * depth)
        (outcome,) = take(connector, items(connector, body), EDGE, TIME)
        assert isinstance(outcome, Taken | Ignored | Rejected)


@pytest.mark.parametrize("amount", ["1e99999999", "-1e999999", "1e-99999999", "0e99999999", 1e308])
def test_amounts_of_any_size_are_read(amount: Any) -> None:
    """A short text for an enormous amount is rejected as it is, neither computed with nor written out."""
    refund = {"id": 1, "order_id": 2, "created_at": TIME, "transactions": [{"kind": "refund", "amount": amount}]}
    (outcome,) = take("shopify", items("shopify", refund, {shopify.TOPIC: "refunds/create"}), EDGE, TIME)

    assert isinstance(outcome, Rejected)
    assert "no amount" in outcome.reason


def test_a_record_too_deep_to_be_written_out_keeps_its_bytes() -> None:
    """Whatever cannot be read goes to quarantine with bytes, also where Python reads deeper than it writes."""
    bodies = [b'{"type":"track","a":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}" for depth in range(900, 1_000)]
    found = [item for body in bodies for item in CONNECTORS["segment"].read(body, {})]
    too_deep = [item for item in found if isinstance(item, Unreadable) and "too deep" in item.reason]

    assert len(found) == len(bodies)
    assert too_deep
    assert all(item.raw in bodies for item in too_deep)
