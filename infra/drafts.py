"""Files that appear whole: written beside their place as ``<name>.part``, and moved there at the end.

A process that is killed leaves its part behind; the next one writes it anew. Two processes never write one part: it is
locked, and the lock ends with its process.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from infra.errors import BadInput, Conflict


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` if the block ends well; until then, and else, what was there stays.

    Raises :class:`Conflict` while another process writes it, :class:`BadInput` where nothing can be written.
    """
    part = path.with_name(f"{path.name}.part")
    with _locked(part) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in the folder on disk: of files that were made, moved or deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The file, empty and ours alone; one that was moved away between opening and locking is not it."""
    while True:
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise BadInput(f"{part.parent} cannot be written: {error.strerror}") from None
        with os.fdopen(descriptor, "w+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"Another process writes {part}; wait for its end") from None
            if part.exists() and os.fstat(file.fileno()).st_ino == part.stat().st_ino:
                file.truncate()
                yield file
                return
