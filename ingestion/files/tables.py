"""Tables in files: CSV and Parquet, each also gzipped, read as a stream of rows of text.

What a file is, is told by its first bytes, not by its name. Every cell is text; an empty cell is ``""``. Bytes
that are not UTF-8 survive as surrogate escapes, so that :func:`raw_row` can give them back.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from infra.errors import BadInput

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_CELL_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True)
class TableFile:
    """An opened table. ``rows`` can be read once; ``position`` says how many of ``size`` are behind it."""

    columns: list[str]
    rows: Iterator[list[str]]
    size: int
    position: Callable[[], int]
    stream: Any = None
    """Held, because a text stream nobody holds closes the file under it."""


@contextmanager
def open_table(path: Path) -> Iterator[TableFile]:
    """The table in ``path``, closed at the end. Raises :class:`BadInput` when it cannot be read as one."""
    try:
        with path.open("rb") as file:
            yield _open(file, path)
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise BadInput(f"{path} cannot be read as CSV or Parquet: {_reason(error)}") from None


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes. Raises :class:`BadInput` when it cannot be read, or is gzipped and cut short."""
    try:
        with path.open("rb") as file:
            if _starts_with(file, _GZIP):
                _read_to_the_end(gzip.GzipFile(fileobj=file))
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {_reason(error)}") from None


def raw_row(cells: Sequence[str]) -> bytes:
    """The row as one CSV line: what is kept of a rejected row."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue().encode("utf-8", "surrogateescape")


def _open(file: IO[bytes], path: Path) -> TableFile:
    zipped = _starts_with(file, _GZIP)
    stream: Any = gzip.GzipFile(fileobj=file) if zipped else file
    if _starts_with(stream, _PARQUET):
        return _parquet(pyarrow.BufferReader(stream.read()) if zipped else file)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(_CELL_LIMIT)
    rows = csv.reader(text)
    columns = next(rows, None)
    if not columns:
        raise BadInput(f"{path} is empty; a CSV file begins with a line of column names")
    return TableFile(columns, _csv_rows(rows), path.stat().st_size, file.tell, text)


def _csv_rows(rows: Any) -> Iterator[list[str]]:
    """Rows of a CSV; a line the reader chokes on becomes a row of one cell, which no mapping accepts."""
    while True:
        try:
            if row := next(rows):  # blank lines are no rows
                yield row
        except StopIteration:
            return
        except csv.Error as error:
            yield [f"unreadable line: {error}"]


def _parquet(source: Any) -> TableFile:
    parquet = pyarrow.parquet.ParquetFile(source)
    done = 0

    def rows() -> Iterator[list[str]]:
        nonlocal done
        for batch in parquet.iter_batches(batch_size=4096):
            columns = [[_text(value) for value in column.to_pylist()] for column in batch.columns]
            for row in zip(*columns, strict=True):
                done += 1
                yield list(row)

    return TableFile(list(parquet.schema_arrow.names), rows(), parquet.metadata.num_rows, lambda: done)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)


def _read_to_the_end(stream: gzip.GzipFile) -> None:
    while stream.read(1 << 20):
        pass


def _starts_with(stream: Any, magic: bytes) -> bool:
    found = bool(stream.read(len(magic)) == magic)
    stream.seek(0)
    return found


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
