"""CloudEvents 1.0 over HTTP: binary, structured and batched; in files: structured, alone or in a list.

What an attribute means is said in ``ingestion/cloudevents.py``. Here the sender is the connection, so the attribute
``source`` only makes the id unique: the event id is ``<source>:<id>``, or a digest of both.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.errors import BadInput
from ingestion.cloudevents import BATCH, STRUCTURED, as_structured, from_headers_and_body, from_structured
from ingestion.connectors.fields import event_id, recognised, text
from ingestion.connectors.items import Ignored, Item, Recognised, Record, Unreadable, listed, read_each

VERSION = "ce-specversion"


def read(body: bytes, headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body. ``headers`` have lower-case names."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if VERSION in headers and media not in (STRUCTURED, BATCH):
        yield _binary(body, headers)
    else:
        yield from read_each(body, listed, lambda record: _event(from_structured(record)))


def _binary(body: bytes, headers: Mapping[str, str]) -> Item:
    raw = as_structured(headers, body, "ce-")
    try:
        item = _event(from_headers_and_body(headers, body))
    except BadInput as error:
        return Unreadable(str(error), raw)
    return Recognised(item.document, raw=raw) if isinstance(item, Recognised) else item


def _event(document: Record) -> Recognised | Ignored:
    named: dict[str, Any] = {"source": document.pop("source", None), "id": document["event_id"]}
    return recognised(document | {"event_id": event_id(named, f"{text(named['source'])}:{named['id']}")})
