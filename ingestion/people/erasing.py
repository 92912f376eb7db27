"""Rows about a person taken out of files, and the files named that no row can be taken out of.

Rows are taken out of CSV, NDJSON and Parquet, of clicks in the spool, and names out of logs, which a process may be writing;
in the data folder only where such files are ours to change (``_OURS``), in folders that are given anywhere. All others are
read, and reported if the person is named in them. The database has its own way (``ingestion/people/forgetting.py``).
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import pyarrow
import pyarrow.parquet

from infra.drafts import replacing
from infra.errors import RewardloopError
from ingestion.people.mentions import Mentions

_OURS = ("sends", "spool", "logs", "exports", "reports", "mlflow/artifacts")
"""Folders of the data folder in which rows are taken out of files."""
_DATABASE = "rewardloop.db"
_BLOCK = 1 << 20
_OVERLAP = 4_096
"""Longer than the longest form of an id."""


class Erased(NamedTuple):
    """Rows taken out, of how many files; and the files left that name the person, with the reason."""

    rows: int
    files: int
    left: dict[str, str]


class _Cannot(Exception):
    """Why a file was left as it is."""


def erase(mentions: Mentions, home: Path, also: Sequence[Path], dry_run: bool) -> Erased:
    """Look through the data folder and ``also``."""
    rows, files, left = 0, 0, {}
    for path, ours in _files(home, also):
        try:
            if not _speaks(path, mentions):
                continue
            if not ours or path.suffix not in _WAYS:
                raise _Cannot("rows cannot be taken out of a file like this; delete it or mend it by hand")
            taken = _taken_out(path, mentions, dry_run)
        except (OSError, _Cannot, RewardloopError, pyarrow.ArrowInvalid) as error:
            left[str(path)] = str(error)
        else:
            rows, files = rows + taken, files + 1
    return Erased(rows, files, left)


def _files(home: Path, also: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Every file, and whether it is ours to change."""
    ours = tuple(home / name for name in _OURS)
    for path in _below(home):
        if not (path.parent == home and path.name.startswith(_DATABASE)):
            yield path, any(path.is_relative_to(folder) for folder in ours)
    for given in also:
        yield from ((path, True) for path in _below(given))


def _below(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _speaks(path: Path, mentions: Mentions) -> bool:
    """Whether the file names the person. What is compressed is read as what it holds."""
    if path.suffix == ".parquet":
        return any(_row_of(row, mentions) for batch in _batches(path) for row in batch.to_pylist())
    if path.suffix == ".spool":
        return any(mentions.meant(line) for line in path.read_bytes().splitlines())
    with path.open("rb") as file:
        before = b""
        while block := file.read(_BLOCK):
            if mentions.named(before + block):
                return True
            before = block[-_OVERLAP:]
    return False


def _taken_out(path: Path, mentions: Mentions, dry_run: bool) -> int:
    """How many rows were (in a dry run: would be) taken out. Times stay, because files are kept for a time."""
    with ExitStack() as stack:
        _hold(path, stack)
        before = path.stat()
        taken = _WAYS[path.suffix](path, mentions, dry_run)
        if not dry_run:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return taken


def _hold(path: Path, stack: ExitStack) -> None:
    """Nobody else may be at work on the file: a send is decided under the lock of its folder, a spool under its own."""
    lock = path if path.suffix == ".spool" else path.with_name("lock")
    if not lock.exists():
        return
    file = stack.enter_context(lock.open("rb"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _Cannot("it is in use; say it again when that is done") from None


def _lines(path: Path, mentions: Mentions, dry_run: bool) -> int:
    return _rewritten(path, lambda file: file, mentions.meant if path.suffix == ".spool" else mentions.named, dry_run)


def _csv(path: Path, mentions: Mentions, dry_run: bool) -> int:
    """The first row is the header."""

    def records(file: BinaryIO) -> Iterator[bytes]:
        held = b""
        for line in file:
            held += line
            if held.count(b'"') % 2 == 0:
                yield held
                held = b""
        if held:
            yield held

    return _rewritten(path, records, mentions.named, dry_run, header=True)


def _rewritten(
    path: Path,
    records: Callable[[BinaryIO], Iterator[bytes] | BinaryIO],
    named: Callable[[bytes], bool],
    dry_run: bool,
    header: bool = False,
) -> int:
    taken = 0
    with path.open("rb") as file, ExitStack() as stack:
        whole = None if dry_run else stack.enter_context(replacing(path))
        for number, record in enumerate(records(file)):
            if named(record) and not (header and number == 0):
                taken += 1
            elif whole is not None:
                whole.write(record)
    return taken


def _parquet(path: Path, mentions: Mentions, dry_run: bool) -> int:
    taken = 0
    with ExitStack() as stack:
        writer: pyarrow.parquet.ParquetWriter | None = None
        if not dry_run:
            whole = stack.enter_context(replacing(path))
            schema = pyarrow.parquet.read_schema(path)
            writer = stack.enter_context(pyarrow.parquet.ParquetWriter(whole, schema, compression="zstd"))
        for batch in _batches(path):
            kept = [not _row_of(row, mentions) for row in batch.to_pylist()]
            taken += kept.count(False)
            if writer is not None:
                writer.write_batch(batch.filter(pyarrow.array(kept)))
    return taken


def _batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from file.iter_batches()


def _row_of(row: dict[str, object], mentions: Mentions) -> bool:
    return mentions.named(msgspec.json.encode(list(row.values()), enc_hook=str))


def _masked(path: Path, mentions: Mentions, dry_run: bool) -> int:
    """A log goes on being written where it is: names in it are crossed out, in place."""
    masked = 0
    with path.open("rb" if dry_run else "r+b") as file:
        while line := file.readline():
            if mentions.named(line):
                masked += 1
                if not dry_run:
                    file.seek(-len(line), os.SEEK_CUR)
                    file.write(mentions.without(line, b"x"))
    return masked


_WAYS: dict[str, Callable[[Path, Mentions, bool], int]] = {
    ".csv": _csv,
    ".ndjson": _lines,
    ".jsonl": _lines,
    ".spool": _lines,
    ".parquet": _parquet,
    ".log": _masked,
}
"""How rows are taken out, by the ending."""
