"""Webhooks whose bodies come packed: in gzip, signed as they came, and never larger than a body may be."""

import base64
import gzip
import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInput
from ingestion.connectors.signatures import Delivery
from ingestion.http.webhooks import unpacked
from tests.pipelines.api import ok, refused, running
from tests.pipelines.test_webhooks import KEY, WEBHOOKS, now, write_webhooks

CALL = {"type": "track", "event": "Email Link Clicked", "userId": "u", "messageId": "m1"}
LIMIT = 100_000


@pytest.fixture(scope="module")
def api(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The app with connections of several vendors, and a small limit on bodies."""
    home = tmp_path_factory.mktemp("packed")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    write_webhooks(home, WEBHOOKS)
    with running(f"sqlite:///{home / 'rewardloop.db'}", home, body_limit_bytes=LIMIT) as client:
        yield client


def segment(body: bytes, encoding: str) -> dict[str, str]:
    """Headers of Segment over the bytes as they are sent."""
    return {"X-Signature": hmac.new(KEY.encode(), body, hashlib.sha1).hexdigest(), "Content-Encoding": encoding}


def packed(**fields: Any) -> bytes:
    """A call, in gzip."""
    return gzip.compress(json.dumps(CALL | {"timestamp": now()} | fields).encode())


def test_a_packed_body_counts_as_any_other(api: TestClient) -> None:
    """A signed body in gzip, a bearer's and an unsigned one are unpacked and read; what was signed is what came."""
    body = packed()
    assert ok(api.post("/v1/webhooks/segment", content=body, headers=segment(body, "gzip")))["pending"] == 1
    body = packed(messageId="m2")
    bearer = {"Authorization": f"Bearer {KEY}", "Content-Encoding": "GZIP"}
    assert ok(api.post("/v1/webhooks/rudder", content=body, headers=bearer))["pending"] == 1
    plain = {"Content-Encoding": "identity"}
    assert (
        ok(api.post("/v1/webhooks/inside", content=gzip.decompress(packed(messageId="m3")), headers=plain))["pending"]
        == 1
    )
    order = json.dumps({"id": 5, "created_at": now(), "currency": "EUR", "total_price": "5", "email": "a@example.com"})
    body = gzip.compress(order.encode())
    signature = base64.b64encode(hmac.new(KEY.encode(), body, hashlib.sha256).digest()).decode()
    headers = {"X-Shopify-Topic": "orders/create", "X-Shopify-Hmac-SHA256": signature, "Content-Encoding": "gzip"}
    assert ok(api.post("/v1/webhooks/shopify", content=body, headers=headers))["pending"] == 1


def test_nothing_is_unpacked_for_a_stranger(api: TestClient) -> None:
    """A bomb without a valid signature is 401, whatever it holds; so is a signature over the bytes once unpacked."""
    bomb = gzip.compress(b" " * 10_000_000)
    refused(
        api.post("/v1/webhooks/segment", content=bomb, headers={"Content-Encoding": "gzip", "X-Signature": "0" * 40}),
        401,
    )
    body = packed()
    headers = segment(gzip.decompress(body), "gzip")
    refused(api.post("/v1/webhooks/segment", content=body, headers=headers), 401)


def test_a_bomb_is_too_large(api: TestClient) -> None:
    """A signed body that would unpack to more than a body may be is 413; one that is exactly as large is read."""
    bomb = gzip.compress(b" " * 50_000_000)
    tracemalloc.start()
    try:
        detail = refused(api.post("/v1/webhooks/segment", content=bomb, headers=segment(bomb, "gzip")), 413)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "once it is unpacked" in detail
    assert peak < 20 * LIMIT
    whole = json.dumps(CALL | {"timestamp": now(), "messageId": "full"}).encode()
    exact = gzip.compress(whole + b" " * (LIMIT - len(whole)))
    assert ok(api.post("/v1/webhooks/segment", content=exact, headers=segment(exact, "gzip")))["pending"] == 1
    over = gzip.compress(whole + b" " * (LIMIT - len(whole) + 1))
    refused(api.post("/v1/webhooks/segment", content=over, headers=segment(over, "gzip")), 413)


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip;q=1", "x" * 500])
def test_other_encodings_are_refused(api: TestClient, encoding: str) -> None:
    """A body packed in another way is 415 with what to do, once its sender is proven."""
    body = packed()
    detail = refused(api.post("/v1/webhooks/segment", content=body, headers=segment(body, encoding)), 415)
    assert "send the body as it is, or in gzip" in detail
    assert len(detail) < 200


def taken(body: bytes) -> bytes:
    """What is unpacked; nothing where it is refused."""
    try:
        return unpacked(Delivery(body, {"content-encoding": "gzip"}, 0), 100)
    except BadInput:
        return b""


@given(st.binary(max_size=400) | st.binary(max_size=200).map(gzip.compress), st.integers(0, 60), st.binary(max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_unpacked_or_refused(raw: bytes, at: int, other: bytes) -> None:
    """Whatever is said to be gzip, whole, cut, changed or none at all, ends as at most the limit's bytes or as a refusal."""
    for body in (raw, raw[:at], raw[:at] + other + raw[at + len(other) :], raw + raw):
        assert len(taken(body)) <= 100
