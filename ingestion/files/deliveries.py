"""Vendors' payloads in files: one JSON document, a JSON array, or JSON lines, each also gzipped; or Avro.

Every document, array element, line or Avro record is a delivery: a body as the vendor posts it, or, as many tools
record requests, ``{"headers": {...}, "body": ...}``. JSON lines and Avro object containers (as vendors export to
storage) are read as a stream; a single document is read whole. What an Avro record leaves to the folders it lies in
(``event_type=users.messages.email.Click/…``) is taken from there.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import fastavro
import msgspec

from infra.errors import BadInput

_GZIP = b"\x1f\x8b"
_AVRO = b"Obj\x01"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Stored(NamedTuple):
    """A delivery from a file: raw body, and headers under lower-case names."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class DeliveryFile:
    """An opened file. ``deliveries`` can be read once; ``position`` says how many of ``size`` bytes are behind it."""

    deliveries: Iterator[Stored]
    size: int
    position: Callable[[], int]


@contextmanager
def open_deliveries(path: Path) -> Iterator[DeliveryFile]:
    """The deliveries in ``path``. Raises :class:`BadInput` when the file cannot be read."""
    try:
        with path.open("rb") as file:
            stream: Any = gzip.GzipFile(fileobj=file) if _begins(file, _GZIP) else file
            found = _records(stream, _said_by_folders(path)) if _begins(stream, _AVRO) else _deliveries(stream)
            yield DeliveryFile(found, path.stat().st_size, file.tell)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def open_delivery(raw: bytes) -> Stored:
    """Body and headers of a recorded request; anything else is a body without headers."""
    document = _document(raw)
    headers = document.get("headers") if isinstance(document, dict) else None
    if not isinstance(headers, dict) or "body" not in document:
        return Stored(raw, {})
    body = document["body"]
    return Stored(
        body.encode() if isinstance(body, str) else msgspec.json.encode(body),
        {name.lower(): value for name, value in headers.items() if isinstance(value, str)},
    )


def _begins(stream: IO[bytes], mark: bytes) -> bool:
    found = stream.read(len(mark)) == mark
    stream.seek(0)
    return found


def _said_by_folders(path: Path) -> dict[str, str]:
    return dict(part.split("=", 1) for part in path.resolve().parts if "=" in part)


def _records(stream: IO[bytes], common: dict[str, str]) -> Iterator[Stored]:
    """The records of an Avro object container, which brings its own schema, each with what is common to all."""
    try:
        for record in fastavro.reader(stream):
            document = common | record if isinstance(record, dict) else record
            yield Stored(msgspec.json.encode(document), {})
    except Exception as error:  # what fastavro makes of a damaged file has no name in common
        found = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise BadInput(f"The Avro file is damaged ({found}); export it again. What was read is kept") from None


def _deliveries(stream: IO[bytes]) -> Iterator[Stored]:
    """JSON lines if the first line is a whole document and another follows; else the file is one document."""
    lines = _without_mark(stream)
    begin = list(_up_to_the_second(lines))
    said = _said(begin)
    if len(said) > 1 and _document(said[0]) is not None:
        yield from map(open_delivery, chain(said, (line.strip() for line in lines if line.strip())))
        return
    whole = b"".join(chain(begin, lines))
    document = _document(whole)
    if isinstance(document, list):
        yield from (open_delivery(msgspec.json.encode(element)) for element in document)
    elif document is not None or not _is_lines(whole):
        yield open_delivery(whole)
    else:
        yield from map(open_delivery, _said(whole.splitlines()))


def _without_mark(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines, without the byte order mark that some files begin with."""
    for first in stream:
        yield first.removeprefix(_BYTE_ORDER_MARK)
        yield from stream


def _up_to_the_second(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines up to the second that is not blank."""
    found = 0
    for line in lines:
        yield line
        found += bool(line.strip())
        if found == 2:
            return


def _said(lines: Iterable[bytes]) -> list[bytes]:
    """The lines that are not blank."""
    return [line.strip() for line in lines if line.strip()]


def _is_lines(content: bytes) -> bool:
    """Whether a file that is no document has lines that are: JSON lines, of which the first is damaged."""
    return any(isinstance(_document(line), dict | list) for line in content.splitlines())


def _document(raw: bytes) -> Any:
    """The JSON document, or None."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
