"""Topic records for tests, and a place to decode them at."""

import json
from typing import Any

from infra.broker import Record
from infra.clock import parse_time
from infra.secrets import Secrets
from ingestion.loops import parse_definition
from ingestion.stream.messages import Decoded, Place, decode_record
from ingestion.stream.topics import topics

SECRETS = Secrets(b"m" * 32, {1: b"u" * 32, 2: b"v" * 32}, {1: b"t" * 32})
NOW = parse_time("2026-11-22T10:00:00Z")
SENT_MS = NOW // 1_000 - 60_000
TOPICS = topics("t")
LOOP = parse_definition({"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}})
PLACE = Place(SECRETS, ("http", "shop"), NOW, topics=TOPICS, loops={"mail": (LOOP, 3)})
JANE = SECRETS.unit("jane")

CLICK = {"event_id": "e1", "type": "click", "occurred_at": "2026-11-22T09:00:00Z", "decision_id": "d1"}
CHOICE = {
    "decision_id": "d1",
    "loop": "mail",
    "campaign": "june",
    "decided_at": "2026-11-22T08:00:00Z",
    "unit": JANE,
    "content_id": "a",
    "propensity": 0.5,
}
COPY = {"campaign": "june", "content_id": "a", "slots": {"subject": "Hello"}}


def record(topic: str, value: Any, headers: dict[str, str] | None = None, offset: int = 7) -> Record:
    """A record of the topic ``events``, ``decisions`` or ``contents``; ``value``: bytes, None or a JSON document."""
    raw = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    pairs = tuple((name, text.encode()) for name, text in (headers or {}).items())
    return Record(getattr(TOPICS, topic).name, 2, offset, SENT_MS, None, raw, pairs)


def decoded(topic: str, document: Any, headers: dict[str, str] | None = None, place: Place = PLACE) -> Decoded:
    """What the record is decoded to; fields set to ``...`` are left out."""
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if value is not ...}
    return decode_record(record(topic, document, headers), place)
