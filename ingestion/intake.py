"""From a connector's items to facts: the same rules for a webhook, a file and a replayed record.

``take`` decodes, ``batch_of`` makes a batch of what was taken. An event without a time happened when it was sent, if
somebody knows when that was; sent again it has another time and waits in quarantine, so that it is never counted twice.
In a file nobody knows, and it is ignored. The position of a record in quarantine begins with its
connector, so that a replay reads the vendor's bytes through it again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from ingestion.connectors import CONNECTORS
from ingestion.connectors.items import Ignored, Item, Mark, Recognised, Unreadable
from ingestion.decode import Edge, decode_event
from ingestion.events import Batch, Event, Label, Rejected
from ingestion.files.deliveries import open_delivery
from ingestion.rules import fault

NO_TIME = "no timestamp"


class Taken(NamedTuple):
    """An event with the labels its vendor put on it."""

    event: Event
    labels: tuple[Label, ...]


Outcome = Taken | Ignored | Rejected


def take(connector: str, items: Iterable[Item], edge: Edge, sent_at: str | None = None) -> list[Outcome]:
    """What becomes of each item. ``sent_at``: when untimed events happened. Nothing is raised for a bad one."""
    return [_taken(connector, index, _timed(item, sent_at), edge) for index, item in enumerate(items)]


def batch_of(outcomes: Sequence[Outcome]) -> Batch:
    """The batch that applies them."""
    taken = [outcome for outcome in outcomes if isinstance(outcome, Taken)]
    return Batch(
        events=tuple(one.event for one in taken),
        labels=tuple(label for one in taken for label in one.labels),
        rejected=tuple(outcome for outcome in outcomes if isinstance(outcome, Rejected)),
        ignored=dict(Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Ignored))),
    )


def connector_of(position: str) -> str | None:
    """The connector whose bytes a quarantined record holds; None for bytes of our own format."""
    name = position.partition("/")[0]
    return name if name in CONNECTORS and "/" in position else None


def take_again(position: str, raw: bytes, edge: Edge, sent_at: str) -> tuple[Event | Label, ...] | Rejected:
    """A quarantined record of a vendor through its connector again, by the rules of today: the event, its labels."""
    connector = connector_of(position) or "native"
    body, headers = open_delivery(raw)
    outcomes = take(connector, CONNECTORS[connector].read(body, headers), edge, sent_at)
    if len(outcomes) == 1 and isinstance(outcomes[0], Taken):
        return outcomes[0].event, *outcomes[0].labels
    reasons = [outcome.reason for outcome in outcomes if not isinstance(outcome, Taken)]
    reason = reasons[0] if reasons else "The bytes do not hold exactly one record; import them with --format"
    return Rejected(source=edge.source, position=position, reason=reason, raw=raw)


def _timed(item: Item, sent_at: str | None) -> Item:
    if not isinstance(item, Recognised) or item.document.get("occurred_at", "") is not None:
        return item
    return replace(item, document=item.document | {"occurred_at": sent_at}) if sent_at else Ignored(NO_TIME)


def _taken(connector: str, index: int, item: Item, edge: Edge) -> Outcome:
    if isinstance(item, Ignored):
        return item
    if isinstance(item, Unreadable):
        return Rejected(source=edge.source, position=f"{connector}/item/{index}", reason=item.reason, raw=item.raw)
    position = _position(connector, index, item)
    if found := fault(item.document):
        return Rejected(source=edge.source, position=position, reason=found, raw=item.raw)
    decoded = decode_event(item.document, edge, position)
    if isinstance(decoded, Rejected):
        return msgspec.structs.replace(decoded, raw=item.raw)
    return Taken(decoded, tuple(_label(decoded, mark) for mark in item.marks))


def _position(connector: str, index: int, item: Recognised) -> str:
    name = item.document.get("event_id")
    known = isinstance(name, str) and name.isprintable()
    return f"{connector}/event/{name}"[:256] if known else f"{connector}/item/{index}"


def _label(event: Event, mark: Mark) -> Label:
    """Said when the event happened, so that the same delivery again says nothing new, and a person's word holds."""
    return Label(
        source=event.source,
        event_id=event.event_id,
        label=mark.label,
        labelled_at=event.occurred_at,
        reason=mark.reason,
    )
