"""Vendors' webhooks through the real app: signatures, answers per record, and what counts in the end."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from infra import tables
from infra.clock import MICROS, format_time, system_clock
from infra.database import open_database
from infra.errors import Misconfigured
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.telemetry import webhooks_refused
from ingestion import quarantine
from ingestion.decode import Edge
from ingestion.events import Event, Label
from ingestion.intake import take_again
from ingestion.ledger import conservation
from tests.pipelines.api import define, ok, rank, refused, running, trace

KEY = "a-secret-of-the-shop"
WEBHOOKS = {
    "shopify": {"keys": [KEY]},
    "shop-eu": {"connector": "shopify", "keys": ["the-newer-secret", KEY]},
    "segment": {"keys": [KEY]},
    "stripe": {"keys": [KEY]},
    "braze": {"keys": [KEY]},
    "native": {"keys": [KEY]},
    "cloudevents": {"keys": [KEY]},
    "rudder": {"connector": "segment", "signature": "bearer", "keys": [KEY]},
    "inside": {"connector": "segment", "unsigned": True},
}


@pytest.fixture
def api(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The app with connections of several vendors, and the campaign of ``api.define``."""
    write_webhooks(tmp_path, WEBHOOKS)
    with running(sqlite_url, tmp_path) as client:
        define(client, refund_horizon="30d")
        yield client


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Engine]:
    """The app's database, looked at from outside."""
    engine = open_database(sqlite_url)
    yield engine
    engine.dispose()


def write_webhooks(home: Path, webhooks: Any) -> None:
    """Add connections to the secrets of an installation."""
    found = Settings(home=home)
    load_secrets(found)
    stored = json.loads(found.secrets_path.read_text())
    found.secrets_path.write_text(json.dumps(stored | {"webhooks": webhooks}))


def now() -> str:
    """The time, ISO 8601."""
    return format_time(system_clock())


def shopify(client: TestClient, topic: str, order: Any, connection: str = "shopify", key: str = KEY) -> Any:
    """Post a signed document of Shopify."""
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    signature = base64.b64encode(hmac.new(key.encode(), body, hashlib.sha256).digest()).decode()
    headers = {"X-Shopify-Topic": topic, "X-Shopify-Hmac-SHA256": signature}
    return client.post(f"/v1/webhooks/{connection}", content=body, headers=headers)


def segment(client: TestClient, calls: Any, connection: str = "segment") -> Any:
    """Post signed calls of Segment."""
    body = json.dumps(calls).encode()
    headers = {"X-Signature": hmac.new(KEY.encode(), body, hashlib.sha1).hexdigest()}
    return client.post(f"/v1/webhooks/{connection}", content=body, headers=headers)


def stripe(client: TestClient, event: Any) -> Any:
    """Post a signed event of Stripe."""
    body, stamp = json.dumps(event).encode(), system_clock() // MICROS
    signature = hmac.new(KEY.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return client.post("/v1/webhooks/stripe", content=body, headers={"Stripe-Signature": f"t={stamp},v1={signature}"})


def order(number: int, total: str = "49.90", **fields: Any) -> dict[str, Any]:
    """An order of Shopify."""
    return {
        "id": number,
        "created_at": now(),
        "currency": "EUR",
        "total_price": total,
        "email": "Kunde@Example.com",
    } | fields


def call(event: str, **fields: Any) -> dict[str, Any]:
    """A track call of Segment."""
    return {"type": "track", "event": event, "timestamp": now(), "messageId": f"id of {event}"} | fields


def counts(answer: Any) -> tuple[int, int, int, int, int]:
    """Accepted, duplicate, pending, ignored, rejected."""
    document = ok(answer)
    ignored = sum(document["ignored"].values())
    return document["accepted"], document["duplicate"], document["pending"], ignored, len(document["rejected"])


def outcome(client: TestClient, decision_id: str, metric: str) -> Any:
    """The decision's outcome in that metric, None for none."""
    found = [row for row in trace(client, decision_id)["outcomes"] if row["metric"] == metric]
    return found[0]["value"] if found else None


def test_a_click_and_a_purchase_reach_their_decision(api: TestClient) -> None:
    """A token in a link credits the click, a cart attribute the purchase, without any customer id."""
    chosen = rank(api, decision_id="mail-1", unit="somebody")
    link = f"https://shop.example/?rl={chosen['token']}"
    clicked = segment(api, call("Email Link Clicked", anonymousId="a", properties={"link_url": link}))
    note = [{"name": "rl", "value": chosen["token"]}]
    bought = shopify(api, "orders/create", order(17, email="else@example.com", note_attributes=note))

    assert (counts(clicked), counts(bought)) == ((1, 0, 0, 0, 0), (1, 0, 0, 0, 0))
    assert (outcome(api, "mail-1", "click"), outcome(api, "mail-1", "revenue")) == (1, 49.9)


def test_the_customer_is_known_without_a_token(api: TestClient) -> None:
    """An e-mail address as the unit of the decision credits the order of the same address, whatever its case."""
    rank(api, decision_id="mail-1", unit="kunde@example.com")
    shopify(api, "orders/create", order(17))

    assert outcome(api, "mail-1", "revenue") == 49.9


def test_one_order_reported_by_three_vendors_counts_once(api: TestClient) -> None:
    """Shopify twice, Segment and Stripe report one order; its revenue counts once, and all reports are kept."""
    rank(api, decision_id="mail-1", unit="kunde@example.com")
    session = {
        "id": "cs_1",
        "payment_status": "paid",
        "amount_total": 4990,
        "currency": "eur",
        "metadata": {"order_id": "17"},
        "customer_details": {"email": "kunde@example.com"},
    }
    properties = {"order_id": "17", "total": 49.90, "currency": "EUR"}
    reports = [
        shopify(api, "orders/create", order(17)),
        shopify(api, "orders/paid", order(17)),
        segment(api, call("Order Completed", userId="kunde@example.com", properties=properties)),
        stripe(
            api,
            {
                "id": "evt_1",
                "type": "checkout.session.completed",
                "created": system_clock() // MICROS,
                "livemode": True,
                "data": {"object": session},
            },
        ),
    ]

    assert [counts(report) for report in reports] == [(1, 0, 0, 0, 0)] * 4
    assert outcome(api, "mail-1", "revenue") == 49.9


def test_refunds_and_cancellations_take_money_back(api: TestClient) -> None:
    """A refund lowers the purchase by its amount; a cancelled order leaves nothing, also after a refund."""
    rank(api, decision_id="mail-1", unit="kunde@example.com")
    shopify(api, "orders/create", order(17))
    part = {"kind": "refund", "status": "success", "amount": "9.90", "currency": "EUR"}
    shopify(api, "refunds/create", {"id": 3, "order_id": 17, "created_at": now(), "transactions": [part]})
    after_the_refund = outcome(api, "mail-1", "revenue")
    shopify(api, "orders/cancelled", order(17, cancelled_at=now()))

    assert (after_the_refund, outcome(api, "mail-1", "revenue")) == (40.0, None)


def test_the_same_delivery_again_changes_nothing(api: TestClient, database: Engine) -> None:
    """Vendors send again: the second time everything is a duplicate, and the books balance."""
    rank(api, decision_id="mail-1", unit="u")
    click = {
        "event_type": "users.messages.email.Click",
        "id": "b-1",
        "time": system_clock() // MICROS,
        "user": {"external_user_id": "u"},
        "properties": {"is_suspected_bot_click": True},
    }
    body, headers = json.dumps({"events": [click]}), {"Authorization": f"Bearer {KEY}"}
    first, again = (api.post("/v1/webhooks/braze", content=body, headers=headers) for _ in range(2))
    with database.connect() as connection:
        labels = connection.execute(select(tables.event_labels.c.label, tables.event_labels.c.reason)).all()

    assert (counts(first), counts(again)) == ((1, 0, 0, 0, 0), (0, 1, 0, 0, 0))
    assert [tuple(row) for row in labels] == [("bot", "suspected by Braze")]
    assert outcome(api, "mail-1", "click") is None
    assert conservation(database) == 0


def test_each_record_has_its_own_answer(api: TestClient) -> None:
    """In a batch partly bad the good count, the others are ignored by reason or rejected by place."""
    rank(api, decision_id="mail-1", unit="u")
    opened = call("Email Opened", userId="u")
    batch = [
        opened,
        opened,
        call("Checkout Started", userId="u"),
        7,
        call("Email Delivered", userId="u", messageId="early", timestamp="1999-01-01T00:00:00Z"),
        call("Email Opened", userId="u", messageId="forged", properties={"rl": f"1.{'A' * 12}.{'A' * 22}"}),
    ]
    answer = ok(segment(api, {"batch": batch}))

    assert {name: answer[name] for name in ("accepted", "duplicate", "pending")} == {
        "accepted": 1,
        "duplicate": 1,
        "pending": 0,
    }
    assert answer["ignored"] == {"track 'checkout started' does not count": 1}
    assert [(one["index"], one["event_id"]) for one in answer["rejected"]] == [(3, None), (4, "early"), (5, "forged")]
    assert "before the year 2000" in answer["rejected"][1]["reason"]
    assert "token" in answer["rejected"][2]["reason"]


def test_more_records_than_fit_one_batch_are_all_stored(sqlite_url: str, tmp_path: Path) -> None:
    """A vendor's large body is stored in several transactions and answered in one."""
    write_webhooks(tmp_path, WEBHOOKS)
    with running(sqlite_url, tmp_path, events_limit=10) as client:
        batch = [call("Email Opened", userId="u", messageId=f"m-{number}") for number in range(25)]

        assert counts(segment(client, {"batch": [*batch, 7]})) == (0, 0, 25, 0, 1)


def test_a_body_that_is_no_json_is_kept_and_not_sent_again(api: TestClient, database: Engine) -> None:
    """Whoever is authenticated is answered 200; the bytes wait in quarantine."""
    body = b"{not json"
    answer = shopify(api, "orders/create", body)
    held = quarantine.list_held(database)

    assert counts(answer) == (0, 0, 0, 0, 1)
    assert [(row.source, row.position) for row in held] == [("shopify", "shopify/item/0")]


def test_a_quarantined_record_is_read_again_as_its_vendor_wrote_it(
    api: TestClient, database: Engine, tmp_path: Path
) -> None:
    """The bytes kept of a rejected order give the purchase, once what was wrong is mended."""
    ok(shopify(api, "orders/create", order(17, currency="XX", created_at="2026-06-01T10:00:00Z")))
    secrets = load_secrets(Settings(home=tmp_path))
    held = quarantine.show(database, secrets, quarantine.list_held(database)[0].id)
    assert held.raw is not None
    edge = Edge(secrets, ("shopify",), system_clock())
    still = take_again(held.position, held.raw, edge, now())
    mended = take_again(held.position, held.raw.replace(b'"XX"', b'"EUR"'), edge, now())

    assert "currency" in getattr(still, "reason", "")
    assert isinstance(mended, tuple)
    (event,) = mended
    assert isinstance(event, Event)
    assert (event.type, event.source, event.value_micros) == ("purchase", "shopify", 49_900_000)


def test_a_replayed_record_keeps_its_vendors_label(api: TestClient, database: Engine, tmp_path: Path) -> None:
    """A test order that waited in quarantine is still one afterwards: labelled, and not counted."""
    ok(shopify(api, "orders/create", order(18, test=True, currency="XX")))
    secrets = load_secrets(Settings(home=tmp_path))
    held = quarantine.show(database, secrets, quarantine.list_held(database)[0].id)
    assert held.raw is not None
    again = take_again(
        held.position, held.raw.replace(b'"XX"', b'"EUR"'), Edge(secrets, ("shopify",), system_clock()), now()
    )

    assert isinstance(again, tuple)
    assert [(fact.label, fact.event_id) for fact in again if isinstance(fact, Label)] == [("test", "orders/create:18")]


def test_a_call_without_a_time_happened_when_it_came(api: TestClient) -> None:
    """Its time is that of the delivery; sent again at another time it is quarantined, never counted twice."""
    rank(api, decision_id="mail-1", unit="u")
    timeless = {"type": "track", "event": "Email Link Clicked", "userId": "u", "messageId": "m-1"}

    assert counts(segment(api, timeless)) == (1, 0, 0, 0, 0)
    assert counts(segment(api, timeless)) in ((0, 0, 0, 0, 1), (0, 1, 0, 0, 0))
    assert outcome(api, "mail-1", "click") == 1


def test_old_and_new_key_are_live(api: TestClient) -> None:
    """A connection with two keys takes either, under its own name as source."""
    assert counts(shopify(api, "orders/create", order(1), "shop-eu", KEY)) == (0, 0, 1, 0, 0)
    assert counts(shopify(api, "orders/create", order(2), "shop-eu", "the-newer-secret")) == (0, 0, 1, 0, 0)
    refused(shopify(api, "orders/create", order(3), "shop-eu", "another"), 401)


def test_every_cause_has_the_same_answer_and_is_counted(api: TestClient) -> None:
    """Missing, wrong and stale signatures cannot be told apart; the metric knows only the connection."""
    before = webhooks_refused.labels("stripe")._value.get()
    stale = {"Stripe-Signature": f"t=1000000000,v1={'0' * 64}"}
    answers = [
        refused(api.post("/v1/webhooks/stripe", content=b"{}", headers=headers), 401)
        for headers in ({}, {"Stripe-Signature": "nonsense"}, stale)
    ]

    assert len(set(answers)) == 1
    assert webhooks_refused.labels("stripe")._value.get() == before + 3


def test_nothing_is_parsed_or_stored_before_the_signature(api: TestClient, database: Engine) -> None:
    """A body that is no JSON, without a signature, is a 401 like any other, and leaves nothing."""
    for body in (b"{not json", b"[" * 10_000, b"", b"\xff"):
        refused(api.post("/v1/webhooks/shopify", content=body), 401)

    assert quarantine.list_held(database) == []


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_on_the_way_is_a_401(api: TestClient, place: int, bit: int) -> None:
    """Through the whole app: one changed bit anywhere in the body is refused."""
    body = json.dumps(order(17, created_at="2026-06-01T10:00:00Z")).encode()
    signature = base64.b64encode(hmac.new(KEY.encode(), body, hashlib.sha256).digest()).decode()
    place %= len(body)
    changed = body[:place] + bytes([body[place] ^ 1 << bit]) + body[place + 1 :]
    headers = {"X-Shopify-Topic": "orders/create", "X-Shopify-Hmac-SHA256": signature}

    refused(api.post("/v1/webhooks/shopify", content=changed, headers=headers), 401)


def test_an_unknown_connection_is_a_404(api: TestClient) -> None:
    """Only connections of the secrets file exist, also where a connector has that name."""
    assert "secrets file" in refused(api.post("/v1/webhooks/sendgrid", content=b"[]"), 404)
    refused(api.post("/v1/webhooks/nothing", content=b"[]"), 404)


def test_unsigned_only_where_it_is_said(api: TestClient) -> None:
    """A connection marked unsigned takes anybody's word."""
    assert counts(api.post("/v1/webhooks/inside", json=call("Email Opened", userId="u"))) == (0, 0, 1, 0, 0)


def test_a_body_above_the_limit_is_a_413(sqlite_url: str, tmp_path: Path) -> None:
    """Size is checked before anything else."""
    write_webhooks(tmp_path, WEBHOOKS)
    with running(sqlite_url, tmp_path, body_limit_bytes=1_000) as client:
        refused(client.post("/v1/webhooks/segment", content=b"x" * 1_001), 413)


def test_standard_webhooks_carry_native_events_and_cloudevents(api: TestClient) -> None:
    """Both are signed by Standard Webhooks; a batch of CloudEvents keeps its media type."""
    rank(api, decision_id="mail-1", unit="u")
    event = {"event_id": "n-1", "type": "click", "occurred_at": now(), "decision_id": "mail-1"}
    cloud = {
        "specversion": "1.0",
        "type": "com.example.click",
        "source": "/web",
        "id": "1",
        "time": now(),
        "rlunit": "u",
    }
    for connection, document, media in (
        ("native", {"events": [event]}, "application/json"),
        ("cloudevents", [cloud], "application/cloudevents-batch+json"),
    ):
        body, stamp = json.dumps(document).encode(), str(system_clock() // MICROS)
        signed = b".".join((b"msg_1", stamp.encode(), body))
        signature = base64.b64encode(hmac.new(KEY.encode(), signed, hashlib.sha256).digest()).decode()
        headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
        answer = api.post(f"/v1/webhooks/{connection}", content=body, headers=headers | {"content-type": media})

        assert counts(answer) == (1, 0, 0, 0, 0)


def test_a_connection_may_be_signed_otherwise(api: TestClient) -> None:
    """With a bearer token in place of the vendor's signature, the vendor's own is refused."""
    calls = call("Email Opened", userId="u")
    answer = api.post("/v1/webhooks/rudder", json=calls, headers={"Authorization": f"Bearer {KEY}"})

    assert counts(answer) == (0, 0, 1, 0, 0)
    refused(segment(api, calls, "rudder"), 401)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"connector": "shopiffy", "keys": [KEY]}, "'shop' names connector 'shopiffy'"),
        ({"connector": "shopify", "signature": "bare", "keys": [KEY]}, "'shop' names signature 'bare'"),
        ({"connector": "sendgrid", "keys": ["MFkwEw… and so on"]}, "'shop' needs SendGrid's verification key"),
        ({"connector": "braze", "keys": [KEY, "s3cret"]}, "'shop' has a key of 6 characters, which can be guessed"),
        ({"connector": "segment", "signature": "bearer", "keys": ["x" * 15]}, "have the sender use one of 16 or more"),
    ],
)
def test_a_connection_to_nowhere_stops_the_start(sqlite_url: str, tmp_path: Path, entry: Any, sentence: str) -> None:
    """A connector or a way of signing that does not exist is named before the first request."""
    write_webhooks(tmp_path, {"shop": entry})
    with pytest.raises(Misconfigured, match=sentence), running(sqlite_url, tmp_path):
        pass
