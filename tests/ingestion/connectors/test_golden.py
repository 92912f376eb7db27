"""The golden corpus of every connector, and what all connectors promise alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingestion.connectors import CONNECTORS
from ingestion.connectors.items import MOST_RECORDS, Recognised, Unreadable
from ingestion.files.deliveries import open_delivery
from tests.ingestion.connectors.golden import FILES, items, reasons, shown


def name_of(path: Path) -> str:
    """The connector and the case."""
    return f"{path.parent.name}/{path.stem}"


SAMPLE = pytest.mark.parametrize("path", FILES, ids=name_of)
VENDORS = [path for path in FILES if path.parent.name != "native"]
"""Native events refuse a field that nobody knows, as ``/v1/events`` does."""


def test_every_connector_has_a_corpus() -> None:
    """No connector is without golden files, and no golden file without a connector."""
    assert {path.parent.name for path in FILES} == set(CONNECTORS)


@SAMPLE
def test_a_delivery_gives_the_items_on_record(path: Path) -> None:
    """Every delivery of the corpus is read as its file says."""
    case = json.loads(path.read_text())

    assert [shown(item) for item in items(path.parent.name, case["body"], case["headers"])] == case["items"]


@pytest.mark.parametrize("path", VENDORS, ids=name_of)
def test_fields_nobody_knows_change_nothing(path: Path) -> None:
    """A vendor may add fields anywhere; the items stay the same, but for ids that are digests of the record."""
    case = json.loads(path.read_text())
    found = [shown(item) for item in items(path.parent.name, with_more_fields(case["body"]), case["headers"])]

    assert [without_digests(item) for item in found] == [without_digests(item) for item in case["items"]]


@SAMPLE
def test_what_is_kept_of_a_record_is_read_like_the_record(path: Path) -> None:
    """The bytes that quarantine keeps of one record give the same item through the same connector."""
    case = json.loads(path.read_text())
    for item in items(path.parent.name, case["body"], case["headers"]):
        if isinstance(item, Recognised):
            again = items(path.parent.name, *open_delivery(item.raw))

            assert [shown(one) for one in again] == [shown(item)]


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"\\ud800"', b"1e999"])
def test_a_body_that_is_no_json_is_one_unreadable_item(connector: str, body: bytes) -> None:
    """The whole body goes to quarantine, as it came."""
    assert [(type(item), getattr(item, "raw", None)) for item in items(connector, body)] == [(Unreadable, body)]


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_record_that_is_no_object_stands_alone(connector: str) -> None:
    """Numbers, texts and null among the records are unreadable, each for itself."""
    found = items(connector, [1, "two", None])

    assert reasons(found) == ["A record is a JSON object; this is something else"] * 3


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_byte_order_mark_is_no_part_of_the_body(connector: str) -> None:
    """Some senders begin their JSON with one."""
    assert items(connector, b"\xef\xbb\xbf[]") == []


def test_a_body_of_very_many_records_is_refused_whole() -> None:
    """Above the limit the body is one unreadable item, not millions."""
    found = items("segment", [{}] * (MOST_RECORDS + 1))

    assert reasons(found) == ["The body holds 10001 records; send at most 10000 at a time"]


def with_more_fields(body: Any) -> Any:
    """The body with a field that nobody knows in every object but the envelopes that hold nothing else."""
    if isinstance(body, list):
        return [with_more_fields(part) for part in body]
    if not isinstance(body, dict):
        return body
    more = {"x_new": {"deep": [1, None, "ü"]}} if len(body) > 1 else {}
    return {name: with_more_fields(value) for name, value in body.items()} | more


def without_digests(item: dict[str, Any]) -> dict[str, Any]:
    """The item without an id that is a digest of the whole record."""
    document = dict(item.get("recognised", {}))
    if str(document.get("event_id", "")).startswith("sha256:"):
        del document["event_id"]
    return item | {"recognised": document}
