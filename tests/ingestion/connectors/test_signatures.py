"""Signatures: what each vendor's valid request looks like, and that nothing else passes."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import MICROS
from ingestion.connectors import CONNECTORS, signatures
from ingestion.connectors.signatures import SCHEMES, TOLERANCE_SECONDS, Check, Delivery
from tests.ingestion.importing import real

NOW = 1_780_387_200
BODY = '[{"event":"click","email":"k@example.com"},\r\n{"ü":1}]\r\n'.encode()
KEY, OLD_KEY = "whsec_" + base64.b64encode(b"k" * 24).decode(), "an-older-secret-of-the-shop"

_PRIVATE, _OTHER = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())


def public(private: object, encoding: Encoding = Encoding.DER) -> str:
    """A public key as SendGrid's pages show it."""
    raw: bytes = private.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return base64.b64encode(raw).decode() if encoding is Encoding.DER else raw.decode()


def sha256(key: str | bytes, signed: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.new(key if isinstance(key, bytes) else key.encode(), signed, hashlib.sha256).digest()


@cache
def sendgrid(key: str, body: bytes = BODY) -> dict[str, str]:
    """The headers of SendGrid; ``key`` chooses whose private key signs. Each signature differs, so one is kept."""
    private = _PRIVATE if key == KEY else _OTHER
    signature = private.sign(str(NOW).encode() + body, ECDSA(SHA256()))
    return {
        "x-twilio-email-event-webhook-timestamp": str(NOW),
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
    }


def shopify(key: str, body: bytes = BODY) -> dict[str, str]:
    """The header of Shopify."""
    return {"x-shopify-hmac-sha256": base64.b64encode(sha256(key, body)).decode()}


def stripe(key: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    """The header of Stripe."""
    return {"stripe-signature": f"t={at},v1={sha256(key, f'{at}.'.encode() + body).hex()}"}


def segment(key: str, body: bytes = BODY) -> dict[str, str]:
    """The header of Segment."""
    return {"x-signature": hmac.new(key.encode(), body, hashlib.sha1).hexdigest()}


def braze(key: str, _: bytes = BODY) -> dict[str, str]:
    """The header of Braze."""
    return {"authorization": f"Bearer {key}"}


def standard(key: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    """The headers of Standard Webhooks."""
    secret = b"k" * 24 if key == KEY else key.encode()
    signature = base64.b64encode(sha256(secret, f"msg_1.{at}.".encode() + body)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


SIGNERS: dict[str, Callable[[str, bytes], dict[str, str]]] = {
    "sendgrid": sendgrid,
    "shopify": shopify,
    "stripe": stripe,
    "segment": segment,
    "braze": braze,
    "native": standard,
    "cloudevents": standard,
}
VENDORS = pytest.mark.parametrize("vendor", SIGNERS)


def keys_of(vendor: str, *keys: str) -> list[str]:
    """The keys as the connection holds them: SendGrid's are public."""
    if vendor != "sendgrid":
        return list(keys)
    return [public(_PRIVATE if key == KEY else _OTHER) for key in keys]


def passes(vendor: str, headers: dict[str, str], *keys: str, body: bytes = BODY, at: int = NOW) -> bool:
    """Whether the vendor's check accepts the delivery."""
    return CONNECTORS[vendor].check(Delivery(body, headers, at * MICROS), keys_of(vendor, *keys))


def test_every_connector_is_checked_here() -> None:
    """No connector lacks a signature in these tests."""
    assert set(SIGNERS) == set(CONNECTORS)


@VENDORS
def test_any_of_the_live_keys_may_have_signed(vendor: str) -> None:
    """While a key is rotated both the new and the old one are accepted, and a third never."""
    headers = SIGNERS[vendor](OLD_KEY, BODY)

    assert passes(vendor, headers, KEY, OLD_KEY)
    assert passes(vendor, headers, OLD_KEY, KEY)
    assert not passes(vendor, headers, KEY)
    assert not passes(vendor, headers)


@VENDORS
def test_without_its_headers_nothing_passes(vendor: str) -> None:
    """A missing or empty header is a refusal, not an error."""
    headers = SIGNERS[vendor](KEY, BODY)

    assert not passes(vendor, {}, KEY)
    for missing in headers:
        assert not passes(vendor, {name: value for name, value in headers.items() if name != missing}, KEY)
        assert not passes(vendor, headers | {missing: ""}, KEY)


@pytest.mark.parametrize("vendor", [name for name in SIGNERS if name != "braze"])
@given(st.data())
@settings(deadline=None)
def test_a_changed_body_is_refused(vendor: str, data: st.DataObject) -> None:
    """One flipped bit, one byte less or one more anywhere in the body."""
    place = data.draw(st.integers(0, len(BODY) - 1))
    bit = data.draw(st.integers(0, 7))
    headers = SIGNERS[vendor](KEY, BODY)
    flipped = BODY[:place] + bytes([BODY[place] ^ 1 << bit]) + BODY[place + 1 :]

    for body in (flipped, BODY[:place] + BODY[place + 1 :], BODY[:place] + b" " + BODY[place:]):
        assert passes(vendor, headers, KEY, body=body) is (body == BODY)


@VENDORS
@given(st.data())
@settings(deadline=None)
def test_a_changed_header_is_refused(vendor: str, data: st.DataObject) -> None:
    """One flipped bit in any header that takes part in the signature."""
    headers = SIGNERS[vendor](KEY, BODY)
    name = data.draw(st.sampled_from(sorted(headers)))
    raw = headers[name].encode()
    place, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    flipped = raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]

    assert not passes(vendor, headers | {name: flipped.decode("latin-1")}, KEY)


@VENDORS
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_hostile_headers_and_keys_never_raise(vendor: str, data: st.DataObject) -> None:
    """Whatever stands in headers and keys, the answer is no."""
    names = sorted(SIGNERS[vendor](KEY, BODY))
    headers = {name: data.draw(st.text(max_size=200)) for name in names}
    check = CONNECTORS[vendor].check

    assert not check(Delivery(BODY, headers, NOW * MICROS), [data.draw(st.text(max_size=200)) + "x"])


@pytest.mark.parametrize("signer", [stripe, standard])
def test_a_signature_grows_old(signer: Callable[..., dict[str, str]]) -> None:
    """Signatures that carry a time are good for five minutes, before and after."""
    vendor = "stripe" if signer is stripe else "native"
    for age in (-TOLERANCE_SECONDS, 0, TOLERANCE_SECONDS):
        assert passes(vendor, signer(KEY, at=NOW - age), KEY)
    for age in (-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1):
        assert not passes(vendor, signer(KEY, at=NOW - age), KEY)


def test_stripe_signs_with_several_keys_at_once() -> None:
    """One right ``v1`` among several is enough; another scheme, or a second time, is none."""
    right = stripe(KEY)["stripe-signature"]
    stamp, _, signature = right.partition(",")

    assert passes("stripe", {"stripe-signature": f"{stamp},v1={'0' * 64},{signature}"}, KEY)
    assert passes("stripe", {"stripe-signature": f"{right},v0={'0' * 64}"}, KEY)
    assert not passes("stripe", {"stripe-signature": right.replace("v1=", "v0=")}, KEY)
    assert not passes("stripe", {"stripe-signature": f"{right},{stamp}"}, KEY)


def test_shopify_has_a_second_name_for_its_header() -> None:
    """``shopify-hmac-sha256`` is read like ``x-shopify-hmac-sha256``."""
    assert passes("shopify", {"shopify-hmac-sha256": shopify(KEY)["x-shopify-hmac-sha256"]}, KEY)


@pytest.mark.parametrize("check", [CONNECTORS["cloudevents"].check, SCHEMES["standard"]])
def test_a_signature_of_the_body_does_not_vouch_for_a_cloudevent_in_headers(check: Check) -> None:
    """In binary mode id, type and customer are headers, which Standard Webhooks does not sign: whoever saw one delivery
    could make others of it."""
    delivery = Delivery(BODY, standard(KEY), NOW * MICROS)
    forged = {"ce-specversion": "1.0", "ce-id": "2", "ce-type": "purchase", "ce-source": "s", "ce-rlunit": "jane"}

    assert check(delivery, [KEY])
    assert not check(delivery._replace(headers={**delivery.headers, **forged}), [KEY])


def test_standard_webhooks_may_carry_several_signatures() -> None:
    """Signatures are separated by spaces; one that is right is enough."""
    headers = standard(KEY)

    assert passes("native", headers | {"webhook-signature": f"v1,AAAA v1a,BBBB {headers['webhook-signature']}"}, KEY)


def test_sendgrids_key_may_be_pem_but_not_of_another_kind() -> None:
    """The public key is read as base64 of DER or as PEM; a key for another algorithm verifies nothing."""
    delivery = Delivery(BODY, sendgrid(KEY), NOW * MICROS)
    rsa = public(generate_rsa_key(65537, 2048))

    assert signatures.sendgrid(delivery, [public(_PRIVATE, Encoding.PEM)])
    assert not signatures.sendgrid(delivery, [rsa])
    assert not signatures.sendgrid(delivery, ["no key at all", "-----BEGIN nothing"])


@pytest.mark.data
def test_the_published_vectors_of_sendgrid() -> None:
    """SendGrid's own vectors verify, and its four broken ones do not."""
    document = json.loads(real("vendor/sendgrid/vector__ecdsa_signatures.json").read_text())
    for vector in document["vectors"]:
        headers = {
            "x-twilio-email-event-webhook-timestamp": vector["timestamp"],
            "x-twilio-email-event-webhook-signature": vector["signature"],
        }
        delivery = Delivery(base64.b64decode(vector["body_base64"]), headers, NOW * MICROS)

        assert signatures.sendgrid(delivery, [vector["public_key"]]) is vector["valid"], vector["name"]


@pytest.mark.data
def test_the_vectors_of_stripe_and_shopify() -> None:
    """Vectors made by the documented schemes verify; changed ones do not."""
    for vector in json.loads(real("vendor/stripe/vector__webhook_hmac.json").read_text())["vectors"]:
        delivery = Delivery(
            vector["body"].encode(), {"stripe-signature": vector["header"]}, vector["timestamp"] * MICROS
        )
        assert signatures.stripe(delivery, [vector["secret"]]) is vector["valid_ignoring_tolerance"], vector["name"]
    for vector in json.loads(real("vendor/shopify/vector__hmac_synthetic.json").read_text())["vectors"]:
        delivery = Delivery(vector["body"].encode(), {"x-shopify-hmac-sha256": vector["hmac"]}, 0)
        assert signatures.shopify(delivery, [vector["secret"]]) is vector["valid"], vector["name"]
