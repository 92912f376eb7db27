"""Segment: what its golden files do not show."""

from typing import Any

from ingestion.connectors.segment import TYPES
from tests.ingestion.connectors.golden import TOKEN, items, only, reasons

CALL = {
    "type": "track",
    "event": "Email Opened",
    "userId": "u",
    "messageId": "m-1",
    "timestamp": "2026-06-02T08:00:00Z",
}


def test_the_id_of_a_call_without_one_does_not_depend_on_when_it_was_sent() -> None:
    """Sent again, with other times of sending and receiving, a call without ``messageId`` has the same id."""
    bare = {name: value for name, value in CALL.items() if name != "messageId"}
    first = only(items("segment", bare | {"sentAt": "2026-06-02T08:00:01Z", "receivedAt": "2026-06-02T08:00:02Z"}))
    again = only(items("segment", bare | {"sentAt": "2026-06-02T09:00:01Z", "receivedAt": "2026-06-02T09:00:02Z"}))
    other = only(items("segment", bare | {"event": "Email Delivered"}))

    assert first["event_id"] == again["event_id"] != other["event_id"]


def test_the_next_best_time_is_taken() -> None:
    """``timestamp`` first, then when it was made, received, sent; a batch's own time is the last."""
    names = ("timestamp", "originalTimestamp", "receivedAt", "sentAt")
    call: dict[str, Any] = {name: value for name, value in CALL.items() if name != "timestamp"}
    call |= {name: f"2026-06-0{index + 1}T08:00:00Z" for index, name in enumerate(names)}
    found = []
    for name in names:
        found.append(only(items("segment", {"batch": [call], "sentAt": "2026-06-09T08:00:00Z"}))["occurred_at"][:10])
        del call[name]
    found.append(only(items("segment", {"batch": [call], "sentAt": "2026-06-09T08:00:00Z"}))["occurred_at"][:10])

    assert found == ["2026-06-01", "2026-06-02", "2026-06-03", "2026-06-04", "2026-06-09"]


def test_the_user_id_stands_before_the_address() -> None:
    """The customer is the user id, else the e-mail address, else the anonymous id."""
    address = {"context": {"traits": {"email": " Kunde@Example.com "}}, "anonymousId": "a"}
    nobody = {name: value for name, value in CALL.items() if name != "userId"}

    assert only(items("segment", CALL | address))["unit"] == "u"
    assert only(items("segment", nobody | address))["unit"] == "kunde@example.com"
    assert only(items("segment", nobody | {"anonymousId": "a"}))["unit"] == "a"


def test_utm_content_that_is_no_token_is_no_token() -> None:
    """Ordinary campaign parameters are left alone."""
    found = only(items("segment", CALL | {"context": {"campaign": {"content": "hero.link"}}}))

    assert "token" not in found


def test_a_token_is_found_in_every_documented_place() -> None:
    """Property, ``utm_content``, the link, and the page's URL."""
    link = f"https://shop.example/?a=1&rl={TOKEN}"
    places: list[dict[str, Any]] = [
        {"properties": {"rl": TOKEN}},
        {"context": {"campaign": {"content": TOKEN}}},
        {"properties": {"link_url": link}},
        {"properties": {"link_url": "https://shop.example/", "url": link}},
        {"context": {"page": {"url": link}}},
    ]

    assert [only(items("segment", CALL | place)).get("token") for place in places] == [TOKEN] * len(places)


def test_names_are_compared_without_case_and_underscores() -> None:
    """Libraries spell the Spec's names differently."""
    for spelled in ("email opened", "EMAIL_OPENED", " Email  Opened "):
        assert only(items("segment", CALL | {"event": spelled}))["type"] == TYPES["email opened"]


def test_a_refund_without_an_amount_takes_all_back() -> None:
    """The value is left out, which the join reads as everything."""
    refund = CALL | {"event": "Order Refunded", "properties": {"order_id": 17, "currency": "eur"}}
    found = only(items("segment", refund))

    assert (found["reverses"], found["currency"], "value" in found) == ("17", "EUR", False)


def test_the_value_is_the_total() -> None:
    """``total`` is what was paid; ``revenue`` stands in where it is missing."""
    order = CALL | {"event": "Order Completed"}

    assert only(items("segment", order | {"properties": {"revenue": 5, "total": 7}}))["value"] == 7
    assert only(items("segment", order | {"properties": {"revenue": "5.10"}}))["value"] == "5.10"


def test_one_bad_call_spoils_no_other() -> None:
    """In a batch each call stands alone."""
    found = items("segment", {"batch": [CALL, 7, CALL | {"messageId": "m-2"}]})

    assert reasons(found) == ["", "A record is a JSON object; this is something else", ""]
