"""What a connector makes of a body: one item per record, whatever the body holds.

A connector is pure: bytes and headers in, items out, nothing raised. ``Recognised`` holds a native event document,
which passes through ``decode_event`` like one from ``/v1/events``, so that limits and rules are the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from infra.errors import BadInput

MOST_RECORDS = 10_000
"""Most records in one body; a vendor sends hundreds."""

Record = dict[str, Any]

UNTIMED: Record = {"occurred_at": None}
"""In the document of an event of which the vendor does not say when it happened."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Mark(NamedTuple):
    """A label the vendor itself puts on an event: ``bot`` or ``test``, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Recognised:
    """An event that may count: its native document, and the vendor's record as bytes."""

    document: Record
    marks: tuple[Mark, ...] = ()
    raw: bytes = b""


@dataclass(frozen=True)
class Ignored:
    """A record that is no event for us, and why: a few words, counted."""

    reason: str


@dataclass(frozen=True)
class Unreadable:
    """A record that cannot be read at all, with its bytes: for quarantine."""

    reason: str
    raw: bytes


Item = Recognised | Ignored | Unreadable


def read_each(
    body: bytes,
    split: Callable[[Any], list[Any]],
    read: Callable[[Record], Recognised | Ignored],
    raw: Callable[[Record], Any] = lambda record: record,
) -> Iterator[Item]:
    """The items of a JSON body: ``split`` finds its records, ``read`` understands one.

    ``raw`` is what is kept of a record, when that is more than the record itself.
    """
    try:
        records = split(msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Unreadable("The body is not readable JSON; send it as the vendor made it", body)
        return
    if len(records) > MOST_RECORDS:
        yield Unreadable(f"The body holds {len(records)} records; send at most {MOST_RECORDS} at a time", body)
        return
    for record in records:
        yield _item(record, body, read, raw)


def listed(document: Any) -> list[Any]:
    """The records of a list, or the one record that stands alone."""
    return document if isinstance(document, list) else [document]


def _item(
    record: Any, body: bytes, read: Callable[[Record], Recognised | Ignored], raw: Callable[[Record], Any]
) -> Item:
    try:
        kept = msgspec.json.encode(raw(record) if isinstance(record, dict) else record)
        if not isinstance(record, dict):
            return Unreadable("A record is a JSON object; this is something else", kept)
        item = read(record)
    except RecursionError:
        return Unreadable("The record is nested too deep; flatten it", body)  # it cannot be written out by itself
    except BadInput as error:
        return Unreadable(str(error), kept)
    return replace(item, raw=kept) if isinstance(item, Recognised) else item
