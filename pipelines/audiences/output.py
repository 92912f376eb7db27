"""What a send writes: a row per recipient, in the order of the audience, as CSV, NDJSON or Parquet by the file's ending.

    line, unit, <kept columns>, content_id, propensity, group, learning_mode, reason, decision_id, token, link.<name> …

``reason`` says why nothing is to be sent. In CSV a text that a spreadsheet would take for a formula begins with a quote.
The same rows give the same bytes, however they come in parts.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import msgspec
import pyarrow
import pyarrow.parquet

from infra.drafts import replacing
from infra.errors import BadInput
from ingestion.files.audience import Unread, Value
from reward_models.scoring import harmless

FORMATS = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
"""Format by ending."""
LINK = "link."
_GROUP = 16_384
"""Rows in one row group of a Parquet file."""
_TYPES = {"line": pyarrow.int64(), "propensity": pyarrow.float64()}


class Answer(NamedTuple):
    """The choice for one recipient, as it is written. ``token`` and ``links``: null where nothing is to be sent or
    stored."""

    content_id: str
    propensity: float | None
    group: str | None
    learning_mode: str | None
    reason: str | None
    decision_id: str | None
    token: str | None
    links: tuple[str | None, ...] = ()


class Rows(Protocol):
    """Takes rows until it is closed."""

    def write(self, rows: Sequence[Sequence[Value | None]]) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is left; the file stays open."""


def format_of(path: Path) -> str:
    """The format that the ending names. Raises :class:`BadInput`."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise BadInput(f"{path.name} must end in one of {', '.join(FORMATS)}: the ending says the format")
    return found


def columns_of(keep: Sequence[str], links: Sequence[str]) -> list[str]:
    """Names of the columns. Raises :class:`BadInput` for a kept column that would be written twice."""
    columns = ["line", "unit", *keep, *Answer._fields[:-1], *(f"{LINK}{name}" for name in links)]
    if twice := [name for name in keep if columns.count(name) > 1]:
        raise BadInput(f"The output has a column {twice[0]!r} of its own; rename the one to keep")
    return columns


@contextmanager
def writing_rows(path: Path, columns: Sequence[str]) -> Iterator[Rows]:
    """The file in the place of ``path`` once the block has ended well."""
    with replacing(path) as file:
        rows = _writer(file, path, columns)
        yield rows
        rows.close()


def rejects_of(path: Path) -> Path:
    """Where the rows that could not be used are written: beside the output."""
    return path.with_name(f"{path.name}.rejected.ndjson")


@contextmanager
def writing_rejects(path: Path) -> Iterator["Rejects"]:
    """The file of rejected rows, in its place once the block has ended well; without any there is none."""
    with replacing(path) as file:
        rejects = Rejects(file)
        yield rejects
    if not rejects.count:
        path.unlink()


class Rejects:
    """Rejected rows as NDJSON: ``{line, reason, raw}``. Bytes that are not UTF-8 are written as ``\\xhh``."""

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0
        self._file = file

    def write(self, row: Unread) -> None:
        """Add a row."""
        self.count += 1
        raw = row.raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self._file.write(msgspec.json.encode({"line": row.line, "reason": row.reason, "raw": raw}) + b"\n")


class _Csv:
    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        self._writer = csv.writer(self._text)
        self._writer.writerow([harmless(name) for name in columns])

    def write(self, rows: Sequence[Sequence[Value | None]]) -> None:
        self._writer.writerows([_cell(value) for value in row] for row in rows)

    def close(self) -> None:
        self._text.detach()


def _cell(value: Value | None) -> Value | None:
    if isinstance(value, str):
        return harmless(value)
    return str(value).lower() if isinstance(value, bool) else value


class _Ndjson:
    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        self._file, self._columns = file, columns
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, rows: Sequence[Sequence[Value | None]]) -> None:
        self._file.write(self._encode([dict(zip(self._columns, row, strict=True)) for row in rows]))

    def close(self) -> None:
        pass


class _Parquet:
    """Kept columns are texts, because one column has one type."""

    def __init__(self, file: BinaryIO, columns: Sequence[str]) -> None:
        self._schema = pyarrow.schema([(name, _TYPES.get(name, pyarrow.string())) for name in columns])
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Sequence[Value | None]] = []

    def write(self, rows: Sequence[Sequence[Value | None]]) -> None:
        self._rows += rows
        while len(self._rows) >= _GROUP:
            self._put(self._rows[:_GROUP])
            self._rows = self._rows[_GROUP:]

    def close(self) -> None:
        if self._rows:
            self._put(self._rows)
        self._writer.close()

    def _put(self, rows: Sequence[Sequence[Value | None]]) -> None:
        typed = zip(self._schema, zip(*rows, strict=True), strict=True)
        arrays = [pyarrow.array(_of_type(field.type, values), field.type) for field, values in typed]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))


def _of_type(kind: pyarrow.DataType, values: Sequence[Value | None]) -> Sequence[Value | None]:
    if kind != pyarrow.string():
        return values
    return [value if value is None or isinstance(value, str) else str(_cell(value)) for value in values]


def _writer(file: BinaryIO, path: Path, columns: Sequence[str]) -> Rows:
    match format_of(path):
        case "csv":
            return _Csv(file, columns)
        case "ndjson":
            return _Ndjson(file, columns)
        case _:
            return _Parquet(file, columns)
