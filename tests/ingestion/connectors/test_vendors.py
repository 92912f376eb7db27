"""SendGrid, Shopify, Stripe and Braze: what their golden files do not show."""

from typing import Any

import pytest

from ingestion.connectors.fields import page
from ingestion.connectors.items import Recognised
from ingestion.connectors.stripe import THOUSANDTHS, WHOLE
from tests.ingestion.connectors.golden import TOKEN, items, only, reasons

CREATE = {"x-shopify-topic": "orders/create"}
ORDER: dict[str, Any] = {
    "id": 17,
    "created_at": "2026-06-03T20:40:00+02:00",
    "currency": "EUR",
    "total_price": "59.90",
    "email": "k@example.com",
}
SESSION: dict[str, Any] = {
    "id": "cs_1",
    "payment_status": "paid",
    "amount_total": 5990,
    "currency": "eur",
    "customer": "cus_1",
}


def stripe(kind: str, thing: dict[str, Any], event_id: str = "evt_1") -> Any:
    """The event recognised in Stripe's envelope."""
    return only(items("stripe", {"id": event_id, "type": kind, "created": 1780512000, "data": {"object": thing}}))


def test_sendgrid_ids_that_are_no_ids_become_digests() -> None:
    """A missing, odd or endless id is replaced, and stays the same for the same event."""
    event = {"event": "open", "email": "k@example.com", "timestamp": 1780387200}
    for odd in (None, "", "two words", "x" * 300, {"a": 1}, "sg_event_id"):
        first, again = (only(items("sendgrid", [event | {"sg_event_id": odd}]))["event_id"] for _ in range(2))

        assert first == again
        assert first.startswith("sha256:")


def test_sendgrid_times_may_be_texts() -> None:
    """Seconds as digits are seconds; a text that is no number is left to the decoder to refuse."""
    event = {"event": "open", "email": "k@example.com", "sg_event_id": "e"}

    assert only(items("sendgrid", [event | {"timestamp": "1780387200"}]))["occurred_at"] == "2026-06-02T08:00:00Z"
    assert only(items("sendgrid", [event | {"timestamp": "soon"}]))["occurred_at"] == "soon"


def test_shopify_ids_beyond_fractions_are_kept_exactly() -> None:
    """A 64-bit number in the body is read to its last digit; the global id is asked first."""
    exact = only(items("shopify", ORDER | {"id": 820982911946154508}, CREATE))
    rounded = ORDER | {"id": 820982911946154500, "admin_graphql_api_id": "gid://shopify/Order/820982911946154508"}

    assert exact["order_id"] == "820982911946154508"
    assert only(items("shopify", rounded, CREATE))["order_id"] == "820982911946154508"


def test_a_shopify_refund_with_only_failed_transactions_is_ignored() -> None:
    """No money went back, so none is taken back."""
    failed = {"kind": "refund", "status": "failure", "amount": "5.00", "currency": "EUR"}
    refund = {"id": 3, "order_id": 17, "created_at": "2026-06-06T10:00:00Z", "transactions": [failed]}

    assert reasons(items("shopify", refund, {"x-shopify-topic": "refunds/create"})) == [
        "a refund that gives no money back"
    ]


def test_a_shopify_refund_whose_parts_have_no_amount_is_unreadable() -> None:
    """An amount that cannot be known is not guessed: the refund goes to quarantine."""
    refund = {"id": 3, "order_id": 17, "created_at": "2026-06-06T10:00:00Z", "refund_line_items": [{"quantity": 1}]}

    assert reasons(items("shopify", refund, {"x-shopify-topic": "refunds/create"})) == [
        "A part of the refund has no amount; send the refund as Shopify made it"
    ]


def test_create_and_paid_are_two_events_of_one_order() -> None:
    """They have ids of their own, so that a change between them is no contradiction, and one order id."""
    created = only(items("shopify", ORDER, CREATE))
    paid = only(items("shopify", ORDER, {"x-shopify-topic": "orders/paid"}))

    assert created["order_id"] == paid["order_id"]
    assert created["event_id"] != paid["event_id"]


def test_a_shopify_token_without_a_tokens_form_is_left_out() -> None:
    """What a visitor typed into the landing page's query is no reason to lose an order."""
    found = only(items("shopify", ORDER | {"landing_site": "/?rl=hello", "note_attributes": "odd"}, CREATE))

    assert "token" not in found


@pytest.mark.parametrize(("code", "value"), [("EUR", "59.90"), ("JPY", "5990"), ("TND", "5.990"), ("UGX", "59.90")])
def test_stripe_counts_in_minor_units(code: str, value: str) -> None:
    """Hundredths, but whole units and thousandths for the currencies that have those."""
    assert stripe("checkout.session.completed", SESSION | {"currency": code.lower()})["value"] == value


def test_no_currency_has_two_kinds_of_minor_units() -> None:
    """The two lists are apart, and the two currencies that Stripe counts in hundredths are in neither."""
    assert not WHOLE & THOUSANDTHS
    assert not {"UGX", "ISK", "HUF", "TWD"} & (WHOLE | THOUSANDTHS)


def test_a_stripe_token_may_stand_with_dashes() -> None:
    """Payment Links take no dots; a content that holds dashes itself is read back right, and a plain id is no token."""
    token = "1.MDp-x-_y-LTE." + "-A" * 11
    dashed = "-".join(token.split("."))

    found = stripe("checkout.session.completed", SESSION | {"client_reference_id": dashed})
    assert found["token"] == token
    found = stripe("checkout.session.completed", SESSION | {"client_reference_id": "customer-17"})
    assert "token" not in found


def test_stripe_metadata_leads() -> None:
    """The token of the metadata stands before the reference; the order id before the payment."""
    found = stripe(
        "checkout.session.completed",
        SESSION
        | {"metadata": {"rl": TOKEN, "order_id": "A-1"}, "client_reference_id": "9" + TOKEN, "payment_intent": "pi"},
    )

    assert (found["token"], found["order_id"]) == (TOKEN, "A-1")


def test_a_stripe_refund_finds_the_purchase_of_its_payment() -> None:
    """Without an order id on either side the payment intent joins the two."""
    purchase = stripe("checkout.session.completed", SESSION | {"payment_intent": "pi_1"})
    refund = stripe(
        "refund.created",
        {
            "id": "re_1",
            "amount": 1000,
            "currency": "eur",
            "status": "succeeded",
            "created": 1780512001,
            "payment_intent": "pi_1",
        },
    )

    assert refund["reverses"] == purchase["order_id"] == "pi_1"


@pytest.mark.parametrize("status", ["pending", "failed", "canceled", "requires_action", None])
def test_a_stripe_refund_counts_when_it_succeeded(status: str | None) -> None:
    """Every other state is ignored, by name."""
    thing = {"id": "re_1", "amount": 1000, "currency": "eur", "status": status, "payment_intent": "pi_1"}
    found = items("stripe", {"id": "evt_1", "type": "refund.updated", "created": 1, "data": {"object": thing}})

    assert reasons(found) == [f"a refund that is {status or 'without a status'}"]


@pytest.mark.parametrize("said", [True, "true"])
def test_braze_says_true_in_two_ways(said: Any) -> None:
    """A suspicion is a label, with or without reasons, and not a loss."""
    event = {
        "event_type": "users.messages.email.Click",
        "id": "b-1",
        "time": 1780387200,
        "user": {"external_user_id": "u"},
        "properties": {"is_suspected_bot_click": said, "suspected_bot_click_reason": None},
    }
    (found,) = items("braze", event)

    assert isinstance(found, Recognised)
    assert [(mark.label, mark.reason) for mark in found.marks] == [("bot", "suspected by Braze")]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://user:word@shop.example.com/sale?email=jane@example.com#top", "https://shop.example.com/sale"),
        ("/sale?rl=1", "/sale"),
        ("app://product/7?x=1", "app://product/7"),
        ("mailto:jane@example.com", None),
        ("tel:+49301234567", None),
    ],
)
def test_of_an_address_only_the_page_is_kept(url: str, kept: str | None) -> None:
    """What may name the customer is not kept: no query, no user, nothing of a link that writes or calls."""
    assert page(url) == kept
