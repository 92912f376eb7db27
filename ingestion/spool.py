"""A place on disk for records while their log is away: at least once out again, in order, however the process ends.

A record is one line, ``<CRC-32 in hex> <bytes>``; ``append`` returns once it is fsynced. ``drain`` hands the lines
to the log and deletes a file when the log has taken all of it; a crash in between hands them over again, so the
taker must be idempotent.

A line can only be torn at the end of a file, because nothing is appended after a write that failed or by another
process: each opens a file of its own, named by time, and holds a lock on it (``flock``, which a dead process loses).
A torn last line was never acknowledged and is passed over; any other unreadable line is handed over as damaged.
"""

import fcntl
import os
import secrets as entropy
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from infra.clock import system_clock
from infra.database import chunks
from infra.drafts import sync_folder
from infra.errors import Unavailable
from infra.logs import log

FILE_BYTES = 4_194_304
"""Size after which a new file is begun."""
MOST = 500
"""Most lines handed over at once."""


class Line(NamedTuple):
    """One line of a file. ``content`` is None where it is damaged: then ``raw`` is all there is."""

    position: str
    raw: bytes
    content: bytes | None


class Spool:
    """The files of a folder, for any number of threads and processes. The folder is made when it is needed."""

    def __init__(self, folder: Path, limit: int, file_bytes: int = FILE_BYTES) -> None:
        self._folder, self._limit, self._file_bytes = folder, limit, file_bytes
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None

    def append(self, record: bytes) -> None:
        """Keep a record (without line breaks) so that it outlives the process and the machine's power.

        Raises :class:`Unavailable` when the spool is full or cannot be written.
        """
        line = _line(record)
        with self._lock:
            try:
                if self.size() + len(line) > self._limit:
                    raise Unavailable(
                        f"The spool {self._folder} is full ({self._limit} bytes); bring the log back, or raise "
                        "REWARDLOOP_SPOOL_LIMIT_BYTES"
                    )
                self._write(line)
            except OSError as error:
                self._close()  # it may end in half a line: nothing is appended to it any more
                raise Unavailable(f"The spool {self._folder} cannot be written: {error.strerror}") from error

    def drain(self, take: Callable[[Sequence[Line]], None]) -> int:
        """Hand over all lines, oldest files first; returns how many. What ``take`` raises leaves its file in place."""
        drained = sum(self._drain(path, take) for path in self._files())
        with self._lock:
            self._close()  # only now: while the log is away one file goes on growing instead of many
        return drained + sum(self._drain(path, take) for path in self._files())

    def size(self) -> int:
        """Bytes that wait."""
        return sum(_size(path) for path in self._files())

    def close(self) -> None:
        """Let another process have the file that was written last."""
        with self._lock:
            self._close()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.spool"))

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._file = _open_new(self._folder)
        written = 0
        while written < len(line):
            written += self._file.write(line[written:])
        os.fsync(self._file.fileno())
        if self._file.tell() >= self._file_bytes:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _drain(self, path: Path, take: Callable[[Sequence[Line]], None]) -> int:
        with _held(path) as file:
            if file is None:
                return 0
            lines = list(_lines(path.name, file.read()))
            for some in chunks(lines, MOST):
                take(some)
            path.unlink(missing_ok=True)
        return len(lines)


def _line(record: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(record), record)


def _lines(name: str, content: bytes) -> Iterator[Line]:
    """The lines of a file, without a torn last one."""
    *whole, rest = content.split(b"\n")
    found = [Line(f"{name}/{number}", raw, _record(raw)) for number, raw in enumerate(whole, 1)]
    if found and found[-1].content is None:
        rest = found.pop().raw
    if rest:
        log.warning("spool_line_torn", file=name, bytes=len(rest))
    yield from found


def _record(raw: bytes) -> bytes | None:
    checksum, _, record = raw.partition(b" ")
    return record if checksum == b"%08x" % zlib.crc32(record) else None


def _open_new(folder: Path) -> BinaryIO:
    """A new file, locked; its name is on disk before anything is in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = folder / f"{system_clock():020}-{entropy.token_hex(4)}.spool"  # by name is by time, to the microsecond
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # 0: somebody drained it, empty, before it was locked
            break
        os.close(descriptor)
    sync_folder(folder)
    return os.fdopen(descriptor, "ab", buffering=0)


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO | None]:
    """The file, locked; None when a process writes or drains it, or has drained it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        held = False
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(file.fileno()).st_nlink > 0
        yield file if held else None


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
