"""The spool: what was acknowledged comes out again, whenever the process ends."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.errors import Unavailable
from ingestion.spool import Line, Spool

PLENTY = 1_000_000


class Append(NamedTuple):
    """The record is kept and acknowledged."""

    record: str


class Crash(NamedTuple):
    """The process is gone, after writing this much of a next line."""

    torn: bytes = b""


class Away(NamedTuple):
    """The spool is drained, and the log is not there."""


class Drain(NamedTuple):
    """The spool is drained into the log; ``dies_after``: the process is gone after so many lines were committed."""

    dies_after: int | None = None


class Died(Exception):
    """What ends a drain where a history says so."""


Step = Append | Crash | Away | Drain


def run(folder: Path, history: Sequence[Step]) -> tuple[list[str], list[str]]:
    """What the log holds at the end of a history, as often as it was handed over; and what still waits."""
    log: list[str] = []
    spool = Spool(folder, PLENTY)
    for step in history:
        match step:
            case Append(record):
                spool.append(record.encode())
            case Crash(torn):
                spool.close()  # nothing is buffered: the file is as a killed process leaves it, and its lock is gone
                if torn:
                    newest(folder).open("ab").write(torn)
                spool = Spool(folder, PLENTY)
            case Away():
                with pytest.raises(Unavailable):
                    spool.drain(lambda _: unavailable())
            case Drain(None):
                spool.drain(lambda lines: log.extend(texts(lines)))
            case Drain(int() as limit):
                with pytest.raises(Died):
                    spool.drain(partial(die_after, limit, log))
                spool.close()
                spool = Spool(folder, PLENTY)
    waiting: list[str] = []
    Spool(folder, PLENTY).drain(lambda lines: waiting.extend(texts(lines)))
    spool.drain(lambda lines: waiting.extend(texts(lines)))
    return log, waiting


def unavailable() -> None:
    """The log is away."""
    raise Unavailable("The log is away")


def die_after(limit: int, log: list[str], lines: Sequence[Line]) -> None:
    """Commit some lines, then end."""
    log.extend(texts(lines[:limit]))
    raise Died


def texts(lines: Sequence[Line]) -> list[str]:
    """The records of lines; a damaged one shows as its bytes in brackets."""
    return [line.content.decode() if line.content is not None else f"[{line.raw!r}]" for line in lines]


def newest(folder: Path) -> Path:
    """The file that was begun last."""
    return max(folder.glob("*.spool"))


HISTORIES: dict[str, tuple[list[Step], list[str], list[str]]] = {
    "drained": ([Append("a"), Append("b"), Drain()], ["a", "b"], []),
    "in order over files": ([Append("a"), Crash(), Append("b"), Crash(), Append("c"), Drain()], ["a", "b", "c"], []),
    "nothing was there": ([Drain(), Crash(), Drain()], [], []),
    "waits": ([Append("a"), Away(), Append("b"), Away(), Append("c")], [], ["a", "b", "c"]),
    "the log comes back": ([Append("a"), Away(), Append("b"), Drain(), Append("c"), Drain()], ["a", "b", "c"], []),
    "killed after the fsync": ([Append("a"), Crash(), Drain()], ["a"], []),
    "killed in a write": ([Append("a"), Crash(b"1234 {ha"), Append("b"), Drain()], ["a", "b"], []),
    "killed in the first write": ([Append("a"), Crash(b"0"), Drain()], ["a"], []),
    "power lost in a write": ([Append("a"), Crash(b"\0" * 512), Append("b"), Drain()], ["a", "b"], []),
    "a whole last line that is wrong": ([Append("a"), Crash(b"00000000 x\n"), Drain()], ["a"], []),
    "killed before the commit": ([Append("a"), Append("b"), Drain(0)], [], ["a", "b"]),
    "killed between two commits": ([Append("a"), Append("b"), Drain(1), Drain()], ["a", "a", "b"], []),
    "killed after the commit": ([Append("a"), Append("b"), Drain(2), Drain()], ["a", "b", "a", "b"], []),
    "killed again and again": (
        [Append("a"), Drain(1), Drain(1), Append("b"), Crash(b"x"), Drain(0), Drain()],
        ["a", "a", "a", "b"],
        [],
    ),
    "damaged in the middle": (
        [Append("a"), Crash(b"00000000 x\n00000000 y\n"), Append("b"), Drain()],
        ["a", "[b'00000000 x']", "b"],
        [],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_crash_histories(name: str, tmp_path: Path) -> None:
    """Every acknowledged record is handed over at least once, none is invented, and what was not committed waits."""
    history, handed_over, waiting = HISTORIES[name]

    assert run(tmp_path / "spool", history) == (handed_over, waiting)


def test_a_file_cut_anywhere_loses_only_its_end(tmp_path: Path) -> None:
    """Whatever length of the file reached the disk, exactly the records that are whole in it come out."""
    lengths = [len(b"00000000 a\n") + number for number in range(5)]
    spool = Spool(tmp_path / "spool", PLENTY)
    for number in range(5):
        spool.append(b"a" * (number + 1))
    spool.close()
    whole = newest(tmp_path / "spool").read_bytes()
    for length in range(len(whole) + 1):
        folder = tmp_path / f"cut-{length}"
        folder.mkdir()
        (folder / "0.spool").write_bytes(whole[:length])
        found: list[Line] = []
        Spool(folder, PLENTY).drain(found.extend)
        fitting = [number for number in range(5) if sum(lengths[: number + 1]) <= length]

        assert [line.content for line in found] == [b"a" * (number + 1) for number in fitting]


def test_a_full_spool_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """The size is bounded: one record more is refused with the setting to change, and drained room is free again."""
    spool = Spool(tmp_path, 40)
    spool.append(b"x" * 20)
    with pytest.raises(Unavailable, match="REWARDLOOP_SPOOL_LIMIT_BYTES"):
        spool.append(b"y" * 20)
    found: list[Line] = []
    spool.drain(found.extend)
    spool.append(b"z" * 20)

    assert [line.content for line in found] == [b"x" * 20]
    assert spool.size() == 30


def test_a_long_spool_is_many_files(tmp_path: Path) -> None:
    """A file that is large enough is followed by another one, and the order stays."""
    spool = Spool(tmp_path, PLENTY, file_bytes=50)
    for number in range(10):
        spool.append(b"%020d" % number)
    files = len(list(tmp_path.glob("*.spool")))
    found: list[Line] = []
    spool.drain(found.extend)

    assert files == 5
    assert [line.content for line in found] == [b"%020d" % number for number in range(10)]
    assert list(tmp_path.glob("*.spool")) == []


def test_while_the_log_is_away_one_file_grows(tmp_path: Path) -> None:
    """A drain that fails again and again does not begin a file each time."""
    spool = Spool(tmp_path, PLENTY)
    for number in range(20):
        spool.append(b"%d" % number)
        with pytest.raises(Unavailable):
            spool.drain(lambda _: unavailable())

    assert len(list(tmp_path.glob("*.spool"))) == 2


def test_a_folder_that_cannot_be_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not even tell how full it is raises what a full one does: whoever waits is led on."""
    spool = Spool(tmp_path, PLENTY)
    spool.append(b"a")
    monkeypatch.setattr("ingestion.spool._size", fail)

    with pytest.raises(Unavailable, match="cannot be written: No space left on device"):
        spool.append(b"b")


def test_a_disk_that_fails_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose fsync failed is not acknowledged, nothing is appended behind it, and the next one is kept."""
    spool = Spool(tmp_path, PLENTY)
    spool.append(b"a")
    with monkeypatch.context() as broken:
        broken.setattr("ingestion.spool.os.fsync", fail)
        with pytest.raises(Unavailable, match="cannot be written: No space left on device"):
            spool.append(b"b")
    spool.append(b"c")
    found: list[Line] = []
    spool.drain(found.extend)

    contents = [line.content for line in found]

    assert len({line.position.split("/")[0] for line in found}) == 2
    assert (contents[0], contents[-1]) == (b"a", b"c")


def test_what_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    """A file is drained by others only once its writer is gone."""
    writer, other = Spool(tmp_path, PLENTY), Spool(tmp_path, PLENTY)
    writer.append(b"a")
    early, late = list[Line](), list[Line]()
    other.drain(early.extend)
    writer.close()
    other.drain(late.extend)

    assert (early, [line.content for line in late]) == ([], [b"a"])


def test_many_writers_and_drains_at_once(tmp_path: Path) -> None:
    """With threads appending while two spools drain, every record comes out."""
    writer, other = Spool(tmp_path, PLENTY, file_bytes=300), Spool(tmp_path, PLENTY)
    done = threading.Event()
    found: list[bytes | None] = []

    def drain(spool: Spool) -> None:
        while not done.is_set():
            spool.drain(lambda lines: found.extend(line.content for line in lines))

    def append(thread: int) -> None:
        for number in range(50):
            writer.append(b"%d-%d" % (thread, number))

    drains = [threading.Thread(target=drain, args=(spool,)) for spool in (writer, other)]
    writers = [threading.Thread(target=append, args=(thread,)) for thread in range(4)]
    for thread in (*drains, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in drains:
        thread.join()
    writer.drain(lambda lines: found.extend(line.content for line in lines))

    assert {b"%d-%d" % (thread, number) for thread in range(4) for number in range(50)} == set(found)


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """A process killed with -9 while it appends leaves every record it reported as kept."""
    code = (
        "import sys; from pathlib import Path; from ingestion.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 10**9, file_bytes=2_000)\n"
        "for number in range(10**9):\n"
        "    spool.append(b'%d' % number); print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(300)]
    process.kill()
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.wait()
    found: list[Line] = []
    Spool(tmp_path, PLENTY).drain(found.extend)
    numbers = [int(line.content or b"-1") for line in found]

    assert numbers == list(range(len(numbers)))
    assert acknowledged == numbers[: len(acknowledged)]


def fail(_: int) -> None:
    """The disk is full."""
    raise OSError(28, os.strerror(28))
