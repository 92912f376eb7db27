"""Who sent this? Each vendor's signature, checked over the raw bytes before anything parses them.

Every check answers True or False and never says why. All live keys are tried, all comparisons take constant time, and
texts are compared as written: a changed character is refused even where two spellings mean the same bytes. Stripe's
signatures and those of Standard Webhooks are good for five minutes; the others may be sent again, which changes
nothing, because every event is stored once.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from infra.clock import MICROS

TOLERANCE_SECONDS = 300


class Delivery(NamedTuple):
    """One request: its raw body, its headers under lower-case names, and when it came, microseconds."""

    body: bytes
    headers: Mapping[str, str]
    received_at: int


Check = Callable[[Delivery, Sequence[str]], bool]
"""Whether one of the keys signed the delivery."""


def sendgrid(delivery: Delivery, keys: Sequence[str]) -> bool:
    """ECDSA on P-256 over timestamp and raw body; the keys are public, base64 of DER (or PEM)."""
    stamp = delivery.headers.get("x-twilio-email-event-webhook-timestamp", "")
    signature = _base64(delivery.headers.get("x-twilio-email-event-webhook-signature", ""))
    if not signature or not stamp:
        return False
    verified = [_verifies(key, signature, _utf8(stamp) + delivery.body) for key in keys]
    return any(verified)


def shopify(delivery: Delivery, keys: Sequence[str]) -> bool:
    """HMAC-SHA256 of the raw body in base64; the header's newer name has no ``X-``."""
    headers = delivery.headers
    given = headers.get("x-shopify-hmac-sha256") or headers.get("shopify-hmac-sha256") or ""
    return _among([_text(hmac.digest(_utf8(key), delivery.body, hashlib.sha256)) for key in keys], [given])


def stripe(delivery: Delivery, keys: Sequence[str]) -> bool:
    """``Stripe-Signature: t=...,v1=...``: HMAC-SHA256 in hex of ``<t>.<body>``; one of several ``v1`` is enough."""
    parts = [part.partition("=") for part in delivery.headers.get("stripe-signature", "").split(",")]
    stamps = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(stamps) != 1 or not _is_fresh(stamps[0], delivery.received_at):
        return False
    signed = _utf8(stamps[0]) + b"." + delivery.body
    return _among([hmac.digest(_utf8(key), signed, hashlib.sha256).hex() for key in keys], given)


def segment(delivery: Delivery, keys: Sequence[str]) -> bool:
    """``X-Signature``: HMAC-SHA1 of the raw body in hex, Segment's only scheme."""
    expected = [hmac.digest(_utf8(key), delivery.body, hashlib.sha1).hex() for key in keys]
    return _among(expected, [delivery.headers.get("x-signature", "")])


def bearer(delivery: Delivery, keys: Sequence[str]) -> bool:
    """``Authorization: Bearer <key>``: the sender is known, the body is not signed."""
    return _among([f"Bearer {key}" for key in keys], [delivery.headers.get("authorization", "")])


def standard(delivery: Delivery, keys: Sequence[str]) -> bool:
    """Standard Webhooks: ``v1,`` and base64 of HMAC-SHA256 over ``<id>.<timestamp>.<body>``; several are allowed.

    A CloudEvent in binary mode is refused: its attributes are headers, and these are not signed.
    """
    headers = delivery.headers
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not name or not _is_fresh(stamp, delivery.received_at) or "ce-specversion" in headers:
        return False
    signed = b".".join((_utf8(name), _utf8(stamp), delivery.body))
    expected = [f"v1,{_text(hmac.digest(_standard_key(key), signed, hashlib.sha256))}" for key in keys]
    return _among(expected, headers.get("webhook-signature", "").split(" "))


SCHEMES: Mapping[str, Check] = {"bearer": bearer, "standard": standard}
"""Ways of signing that a connection may ask for in place of its vendor's own."""


def _among(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Whether one of the given texts is one of the expected; looks at all of them."""
    same = [hmac.compare_digest(_utf8(one), _utf8(other)) for one in expected for other in given]
    return any(same)


def _is_fresh(stamp: str, received_at: int) -> bool:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        return False
    return abs(int(stamp) * MICROS - received_at) <= TOLERANCE_SECONDS * MICROS


def public_key(key: str) -> EllipticCurvePublicKey | None:
    """The public key of a text, base64 of DER or PEM; None for anything else."""
    try:
        public = load_pem_public_key(_utf8(key)) if key.startswith("-----") else load_der_public_key(_base64(key))
    except ValueError:
        return None
    return public if isinstance(public, EllipticCurvePublicKey) else None


def _verifies(key: str, signature: bytes, signed: bytes) -> bool:
    public = public_key(key)
    if public is None:
        return False
    try:
        public.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _standard_key(key: str) -> bytes:
    """The bytes of a key: what follows ``whsec_`` is base64, anything else is taken as it is."""
    return _base64(key.removeprefix("whsec_")) or _utf8(key) if key.startswith("whsec_") else _utf8(key)


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _base64(text: str) -> bytes:
    """The bytes behind a base64 text in its one canonical spelling; nothing for any other."""
    try:
        found = base64.b64decode(_utf8(text), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if _text(found) == text else b""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
