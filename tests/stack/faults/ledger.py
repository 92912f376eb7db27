"""What was sent, written down by itself: a file of lines, each on the disk before the next step is taken.

1. *intent*: the whole record, before the broker hears of it.
2. *acknowledged*: the numbers of the intents that the broker confirmed.

A sender that dies in between leaves intents without acknowledgement: the broker may hold them or not. The ledger
knows nothing of how the product decodes: ``fact`` is what the record means, put down by whoever made it up.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from ingestion.events import Decision, Event

Kind = Literal["decisions", "events"]
"""Which topic."""


@dataclass(frozen=True)
class Sending:
    """One record as it goes to a topic, and what it means."""

    kind: Kind
    key: bytes | None
    value: bytes | None
    fact: Decision | Event | None
    """None: nothing that can be used."""
    labels: tuple[str, ...] = ()
    """What is said about the event."""
    ignored: bool = False
    """Without a fact: to be counted and left alone, instead of kept in quarantine."""
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Line:
    """A record of the ledger: its number, what was sent, and whether the broker confirmed it."""

    number: int
    sending: Sending
    acknowledged: bool


class Ledger:
    """Append-only; every call is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = _mend(path)
        self._file = path.open("ab")

    def intend(self, sendings: Sequence[Sending]) -> range:
        """Write down what is about to be sent; returns the numbers."""
        numbers = range(self._next, self._next + len(sendings))
        self._write({"intent": number, **_document(sending)} for number, sending in zip(numbers, sendings, strict=True))
        self._next = numbers.stop
        return numbers

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Write down what the broker confirmed."""
        self._write([{"acknowledged": list(numbers)}])

    def lines(self) -> Iterator[Line]:
        """Everything ever intended, in the order of sending."""
        yield from read_ledger(self.path)

    def close(self) -> None:
        """Close the file; it can be opened again."""
        self._file.close()

    def _write(self, documents: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(document).encode() + b"\n" for document in documents))
        self._file.flush()
        os.fsync(self._file.fileno())


def read_ledger(path: Path) -> Iterator[Line]:
    """The ledger in that file; a last line cut off by a crash was never written."""
    acknowledged: set[int] = set()
    for document in _documents(path):
        acknowledged.update(document.get("acknowledged", ()))
    for document in _documents(path):
        if "intent" in document:
            yield Line(document["intent"], _sending(document), document["intent"] in acknowledged)


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _mend(path: Path) -> int:
    """Cut off what a crash left of a line; returns the number of the next intent."""
    if not path.exists():
        path.touch()
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return max((document["intent"] for document in _documents(path) if "intent" in document), default=-1) + 1


def _document(sending: Sending) -> dict[str, Any]:
    fact = sending.fact
    return {
        "kind": sending.kind,
        "key": _text(sending.key),
        "value": _text(sending.value),
        "headers": [(name, _text(value)) for name, value in sending.headers],
        "fact": None if fact is None else msgspec.to_builtins(fact),
        "labels": sending.labels,
        "ignored": sending.ignored,
    }


def _sending(document: dict[str, Any]) -> Sending:
    type_: type[Decision] | type[Event] = Decision if document["kind"] == "decisions" else Event
    fact = document["fact"]
    return Sending(
        kind=document["kind"],
        key=_bytes(document["key"]),
        value=_bytes(document["value"]),
        headers=tuple((name, _bytes(value) or b"") for name, value in document["headers"]),
        fact=None if fact is None else msgspec.convert(fact, type_),
        labels=tuple(document["labels"]),
        ignored=document["ignored"],
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
