"""Native events, as ``/v1/events`` takes them: one, a list, or ``{"events": [...]}``; signed by Standard Webhooks."""

from collections.abc import Iterator, Mapping
from typing import Any

from ingestion.connectors.items import Item, Recognised, listed, read_each


def read(body: bytes, _headers: Mapping[str, str]) -> Iterator[Item]:
    """The items of a body."""
    return read_each(body, _events, Recognised)


def _events(document: Any) -> list[Any]:
    events = document.get("events") if isinstance(document, dict) else None
    return events if isinstance(events, list) else listed(document)
