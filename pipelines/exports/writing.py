"""Files of an export: rows go straight to disk, and a file appears when it is whole.

write_lines(path, rows) -> Written          JSON lines
write_table(path, schema, rows) -> Written  Parquet, a row group at a time
write_card(path, card)                      what is in the export, written last
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import pyarrow
import pyarrow.parquet

from infra.drafts import replacing

GROUP = 16_384
"""Rows in one row group of a Parquet file: all that memory holds of it."""
_BLOCK = 1 << 20


class Written(NamedTuple):
    """A file that is there: its name, rows, and SHA-256."""

    file: str
    rows: int
    sha256: str


class Counting:
    """A file whose bytes are counted into a digest as they pass."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: Any) -> int:
        """Write, and remember."""
        self.digest.update(data)
        return self._file.write(data)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Written:
    """One JSON object per line."""
    encode, count = msgspec.json.Encoder().encode, 0
    with replacing(path) as file:
        counting = Counting(file)
        for row in rows:
            counting.write(encode(row) + b"\n")
            count += 1
    return Written(path.name, count, counting.digest.hexdigest())


def write_table(path: Path, schema: pyarrow.Schema, rows: Iterable[Sequence[Any]]) -> Written:
    """Rows in the order of the schema's columns."""
    count = 0
    with replacing(path) as file:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in _groups(rows):
                columns = zip(schema, zip(*group, strict=True), strict=True)
                arrays = [pyarrow.array(values, field.type) for field, values in columns]
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
                count += len(group)
        file.flush()
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return Written(path.name, count, digest.hexdigest())


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """What is in the export, as indented JSON."""
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def _groups(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """GROUP rows at a time."""
    found = iter(rows)
    while group := list(islice(found, GROUP)):
        yield group
