"""Audience files: who a send goes to, read as a stream of recipients. CSV, NDJSON or Parquet; texts gzipped or not.

    unit,age,plan            {"unit": "u1", "age": 34, "plan": "gold"}
    u1,34,gold               {"unit": "u1", "context": {"age": 34, "plan": "gold"}}

One column names the customer. Columns that are ``keep``-ed are carried along; every other is a feature of the context,
under the column's own name. What a file is, is told by its first bytes.

Values are what ``/v1/rank`` takes: numbers, booleans, texts. In CSV a cell is a number if JSON would write it so
(``7``, ``0.5``, ``1e3``; ``007`` and ``+49`` are texts), ``true`` and ``false`` in any of their usual spellings are
booleans, an empty cell or ``nan`` is missing. Null is missing everywhere.

A row that cannot be used becomes :class:`Unread`, with its line, the reason and its text; reading goes on. A CSV record
over several lines that cannot be read gives its first line back only, because an open quote swallows what follows.
"""

import csv
import gzip
import io
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import pyarrow
import pyarrow.parquet

from infra.errors import BadInput
from ingestion.fields import FEATURES_LIMIT, can_name, scalar, storable

UNIT = "unit"
"""Default name of the column that names the customer."""
CONTEXT = "context"
"""A member of this name that is an object holds features of its own."""
ROW_LIMIT = 65_536
"""Most characters of a row."""
KEEP_LIMIT = 20
NAME_LIMIT = 128
GROUP_LIMIT = 1 << 30
"""Most bytes of a Parquet row group, unpacked: a small file may hold a very large one."""

Value = float | int | str | bool

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LARGEST = 2**53
_BATCH = 4_096


class Recipient(NamedTuple):
    """One customer. ``kept``: the values of the columns that are carried along, in their order."""

    line: int
    unit: str
    context: dict[str, Value]
    kept: tuple[Value | None, ...] = ()


class Unread(NamedTuple):
    """A row that cannot be used."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Audience:
    """An opened file. ``rows`` can be read once; ``position`` says how many of ``size`` are behind it."""

    rows: Iterator[Recipient | Unread]
    size: int
    position: Callable[[], int]
    stream: Any = None
    """Held, because a text stream nobody holds closes the file under it."""


@dataclass(frozen=True)
class Columns:
    """Which columns are not context."""

    unit: str = UNIT
    keep: tuple[str, ...] = ()

    def check(self, named: Sequence[str]) -> None:
        """Raise :class:`BadInput` unless a file with these columns can be read."""
        if self.unit not in named:
            raise BadInput(f"The file has no column {self.unit!r}, which names the customer; columns: {_some(named)}")
        if missing := [name for name in self.keep if name not in named]:
            raise BadInput(f"The file has no column {missing[0]!r} to keep; columns: {_some(named)}")
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise BadInput(f"The file has two columns {twice[0]!r}; rename one")
        self.check_own()
        for name in named:
            _check_name(name)
        if len(named) - 1 - len(self.keep) > FEATURES_LIMIT:
            raise BadInput(f"The file has {len(named)} columns; a context has at most {FEATURES_LIMIT} features")

    def check_own(self) -> None:
        """Raise :class:`BadInput` for names that contradict each other."""
        if len(self.keep) > KEEP_LIMIT:
            raise BadInput(f"{len(self.keep)} columns are kept; at most {KEEP_LIMIT}")
        if self.unit in self.keep or len(set(self.keep)) < len(self.keep):
            raise BadInput("Name each column to keep once, and not the one that names the customer")


@contextmanager
def open_audience(path: Path, columns: Columns) -> Iterator[Audience]:
    """The audience in ``path``, closed at the end. Raises :class:`BadInput` when it cannot be read as one."""
    columns.check_own()
    try:
        with path.open("rb") as file:
            yield _open(file, path, columns)
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        said = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise BadInput(f"{path.name} cannot be read as CSV, NDJSON or Parquet: {said}") from None


@lru_cache(maxsize=65_536)
def read_cell(cell: str) -> Value | None:
    """A CSV cell as a value; null is missing. Raises ``ValueError`` that says what a value may be."""
    text = cell.strip()
    if not text or text.lower() == "nan":
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if matched := _NUMBER.fullmatch(text):
        whole = matched[2] is None and matched[3] is None
        number = int(text) if whole else float(text)
        if not whole or abs(number) <= _LARGEST:
            return checked(number)
    return checked(cell)


def checked(value: Any) -> Value | None:
    """A value that a feature may have. Raises ``ValueError``."""
    if isinstance(value, str):
        storable(value)
    found: Value | None = scalar(value)
    return found


def _open(file: IO[bytes], path: Path, columns: Columns) -> Audience:
    stream: Any = gzip.GzipFile(fileobj=file) if _starts(file, 2) == _GZIP else file
    first = _starts(stream, 64)
    if first.startswith(_PARQUET):
        return _parquet(file, columns)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    size = path.stat().st_size
    if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return Audience(_json_rows(_Lines(text), columns), size, file.tell, text)
    return Audience(_csv_rows(_Lines(text), path, columns), size, file.tell, text)


class _TooLong(Exception):
    """More than a row may have."""


class _Lines:
    """Lines of a text stream. ``taken``: those handed out since the last record was done."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.taken: list[str] = []
        self.line = 1
        """Number of the first line of ``taken``."""
        self._size = 0
        self._stream = stream
        self._back: deque[str] = deque()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._stream.readline(ROW_LIMIT + 1)
        if not line:
            raise StopIteration
        self.taken.append(line)
        self._size += len(line)
        if self._size > ROW_LIMIT:
            raise _TooLong
        return line

    def done(self) -> str:
        """The record is read: its text."""
        text = "".join(self.taken).rstrip("\r\n")
        self.line += len(self.taken)
        self.taken, self._size = [], 0
        return text

    def give_back(self) -> str:
        """The record cannot be read: its first line; the others come again. What is too long is skipped to its end."""
        first, *others = self.taken
        self._back.extendleft(reversed(others))
        if len(first) > ROW_LIMIT:
            while (rest := self._stream.readline(ROW_LIMIT)) and not rest.endswith(("\n", "\r")):
                pass
        self.line += 1
        self.taken, self._size = [], 0
        return first.rstrip("\r\n")


def _csv_rows(lines: _Lines, path: Path, columns: Columns) -> Iterator[Recipient | Unread]:
    csv.field_size_limit(ROW_LIMIT)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
    except (csv.Error, _TooLong):
        header = None
    if not header:
        raise BadInput(f"{path.name} does not begin with a line of column names")
    lines.done()
    columns.check(header)
    read = _CsvRow(header, columns)
    while True:
        line = lines.line
        try:
            cells = next(reader, None)
        except (csv.Error, _TooLong) as error:
            yield Unread(line, _unreadable(error), lines.give_back())
            continue
        if cells is None:
            return
        if len(cells) != len(header) and len(lines.taken) > 1:
            yield Unread(line, "the quotes in the row do not close", lines.give_back())
            continue
        raw = lines.done()
        if cells:  # a blank line is no row
            yield read(line, cells, raw)


def _unreadable(error: Exception) -> str:
    if isinstance(error, _TooLong):
        return f"the row is longer than {ROW_LIMIT} characters, or its quotes do not close"
    return f"the row cannot be read: {error}"


class _CsvRow:
    """Cells to a recipient, with everything that is the same for all rows made once."""

    def __init__(self, header: Sequence[str], columns: Columns) -> None:
        self._width, self._unit = len(header), header.index(columns.unit)
        self._keep = [header.index(name) for name in columns.keep]
        others = {columns.unit, *columns.keep}
        self._features = [(name, place) for place, name in enumerate(header) if name not in others]

    def __call__(self, line: int, cells: Sequence[str], raw: str) -> Recipient | Unread:
        if len(cells) != self._width:
            return Unread(line, f"the row has {len(cells)} cells, the header {self._width}", raw)
        name = ""
        context: dict[str, Value] = {}
        try:
            for name, place in self._features:
                value = read_cell(cells[place])
                if value is not None:
                    context[name] = value
            return Recipient(line, _unit(cells[self._unit].strip()), context, tuple(cells[i] for i in self._keep))
        except _NoUnit as error:
            return Unread(line, str(error), raw)
        except ValueError as error:
            return Unread(line, f"column {name!r} {error}", raw)


class _NoUnit(ValueError):
    """The row names no customer."""


def _unit(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        raise _NoUnit("the row names no customer")
    if not isinstance(value, str) or not _named(value):
        raise _NoUnit("the customer must be a text of 1 to 256 characters in UTF-8")
    return value


def _named(text: str) -> bool:
    """``can_name``, quicker for what most ids are."""
    return len(text) <= 256 if text.isascii() and "\x00" not in text else can_name(text)


def _json_rows(lines: _Lines, columns: Columns) -> Iterator[Recipient | Unread]:
    decode = msgspec.json.Decoder().decode
    while True:
        line = lines.line
        try:
            text = next(lines, None)
        except _TooLong as error:
            yield Unread(line, _unreadable(error), lines.give_back())
            continue
        if text is None:
            return
        raw = lines.done()
        if not raw.strip():
            continue
        try:
            document = decode(text.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            yield Unread(line, f"the line is not readable JSON in UTF-8 ({error})", raw)
            continue
        yield _recipient(line, document, columns, lambda raw=raw: raw)  # type: ignore[misc]


def _recipient(line: int, document: Any, columns: Columns, raw: Callable[[], str]) -> Recipient | Unread:
    """A recipient from an object of names and values."""
    if not isinstance(document, dict):
        return Unread(line, "the row must be an object of names and values", raw())
    name = ""
    context: dict[str, Value] = {}
    try:
        for name, given in _features(document, columns):
            value = checked(given)
            if value is not None:
                _check_name(name)
                context[name] = value
        if len(context) > FEATURES_LIMIT:
            return Unread(line, f"the context has {len(context)} features; at most {FEATURES_LIMIT}", raw())
        return Recipient(line, _unit(document.get(columns.unit)), context, _kept(document, columns))
    except _NoUnit as error:
        return Unread(line, str(error), raw())
    except BadInput as error:
        return Unread(line, str(error), raw())
    except ValueError as error:
        return Unread(line, f"column {name!r} {error}", raw())


def _features(document: Mapping[str, Any], columns: Columns) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name == CONTEXT and isinstance(value, dict):
            yield from value.items()
        elif name != columns.unit and name not in columns.keep:
            yield name, value


def _kept(document: Mapping[str, Any], columns: Columns) -> tuple[Value | None, ...]:
    values = (document.get(name) for name in columns.keep)
    return tuple(value if isinstance(value, float | int | str | bool | None) else _text(value) for value in values)


def _parquet(file: IO[bytes], columns: Columns) -> Audience:
    parquet = pyarrow.parquet.ParquetFile(file)
    columns.check(list(parquet.schema_arrow.names))
    for group in range(parquet.metadata.num_row_groups):
        if parquet.metadata.row_group(group).total_byte_size > GROUP_LIMIT:
            raise BadInput(f"Row group {group} of the file has more than {GROUP_LIMIT} bytes; write smaller ones")
    done = 0

    def rows() -> Iterator[Recipient | Unread]:
        nonlocal done
        for batch in parquet.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                done += 1
                plain = {name: _plain(value) for name, value in row.items()}
                yield _recipient(done, plain, columns, lambda plain=plain: _text(plain)[:ROW_LIMIT])  # type: ignore[misc]

    return Audience(rows(), parquet.metadata.num_rows, lambda: done)


def _plain(value: Any) -> Any:
    """A Parquet value as JSON would have it: times and decimals are texts, nan is missing."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, int | str | list | None):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _check_name(name: str) -> None:
    try:
        storable(name)
    except ValueError as error:
        raise BadInput(f"A column's name {error}") from None
    if not 1 <= len(name) <= NAME_LIMIT:
        raise BadInput(f"Column {name[:40]!r} has {len(name)} characters; a name has 1 to {NAME_LIMIT}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:20]) + (" …" if len(names) > 20 else "")


def _starts(stream: Any, size: int) -> bytes:
    found: bytes = stream.read(size)
    stream.seek(0)
    return found
