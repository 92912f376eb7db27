"""Records nobody can use, and records nobody needs: what a topic holds one day when anybody may write to it."""

import json
from collections.abc import Iterator
from typing import Any

from tests.stack.faults.ledger import Kind, Sending

GOOD = {"event_id": "p-1", "source": "shop", "type": "click", "occurred_at": "2023-01-02T10:00:00Z", "decision_id": "d"}


def poison() -> Iterator[Sending]:
    """Every kind once. Each must end in quarantine with its bytes, or be counted as ignored."""
    for value in _UNREADABLE:
        yield Sending("events", b"poison", value, None)
        yield Sending("decisions", None, value + b" ", None)
    for change in _BROKEN:
        yield _event(change)
    for document in _DECISIONS:
        yield Sending("decisions", b"poison", json.dumps(document).encode(), None)
    yield from _huge()
    yield Sending("events", b"poison", None, None, ignored=True)
    yield Sending("decisions", None, b"", None, ignored=True)


_UNREADABLE = (
    b"{",
    b'{"event_id": "cut off in the mid',
    b"\xff\xfe\x00not utf-8",
    b'{"event_id": "\xc3\x28"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"<xml/>",
    b'{"event_id": NaN}',
    b'{"event_id": Infinity}',
    b"\x00\x00\x00\x00\x07avro?",
    b"event_id,type,occurred_at",
)
_BROKEN: tuple[dict[str, Any], ...] = (
    {"event_id": 7},
    {"event_id": ""},
    {"event_id": "x" * 257},
    {"event_id": "nul\x00"},
    {"event_id": "half \ud800 pair"},
    {"event_id": None},
    {"type": "Click"},
    {"type": ["click"]},
    {"type": "purchase", "value": "NaN"},
    {"type": "purchase", "value": -5},
    {"type": "purchase", "value": 10**30},
    {"type": "purchase", "value": "1e999"},
    {"type": "purchase", "value": {"amount": 5}},
    {"type": "purchase", "value": True},
    {"type": "purchase", "value": 5, "currency": "euro"},
    {"type": "refund"},
    {"occurred_at": "1970-01-01T00:00:00Z"},
    {"occurred_at": "2100-01-01T00:00:00Z"},
    {"occurred_at": "yesterday at noon"},
    {"occurred_at": 1_672_653_600},
    {"source": "nobody-we-know"},
    {"unit": "ann@example.com"},
    {"unit": "u9:" + "0" * 32},
    {"decision_id": None},
    {"decision_id": "d" * 257},
    {"decision_id": None, "token": "1.forged.token"},
    {"position": 0},
    {"position": 2**70},
    {"labels": ["bot"]},
)
_DECISIONS: tuple[dict[str, Any], ...] = (
    {"decision_id": "p-1", "loop": "nobody-made", "campaign": "c", "decided_at": "2023-01-02T10:00:00Z"},
    {"decision_id": "p-2", "loop": "emails", "campaign": "emails-spring", "decided_at": "2023-01-02T10:00:00Z"},
    {
        "decision_id": "p-3",
        "loop": "emails",
        "campaign": "emails-spring",
        "decided_at": "2023-01-02T10:00:00Z",
        "chosen": [{"content_id": "emails-spring-a", "propensity": 0}],
    },
    {
        "decision_id": "p-4",
        "loop": "emails",
        "campaign": "emails-spring",
        "decided_at": "2100-01-02T10:00:00Z",
        "content_id": "emails-spring-a",
    },
)


def bomb(megabytes: int) -> Sending:
    """A record of so many megabytes that travels as a few kilobytes."""
    return Sending("events", None, b'{"event_id": "' + b"0" * (megabytes * 1_000_000), None)


def _event(change: dict[str, Any]) -> Sending:
    document = {name: value for name, value in (GOOD | change).items() if value is not None}
    return Sending("events", b"poison", json.dumps(document).encode(), None)


def _huge() -> Iterator[Sending]:
    kinds: tuple[Kind, ...] = ("events", "decisions")
    for kind in kinds:
        yield Sending(kind, None, json.dumps(GOOD | {"note": "x" * 900_000, "type": 1}).encode(), None)
