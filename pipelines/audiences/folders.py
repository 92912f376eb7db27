"""What the API keeps of a send: a folder per send under the data folder, until retention takes it.

    sends/<keyed hash of loop and send>/
        send.json            what was asked for
        part-00000.ndjson    the audience, as it came in
        lock                 held by whoever starts the send, and handed to the process that decides it; shared by all
                             who put a part in, or look whether it is held
        progress.json        rows behind it; there from the start on
        report.json          what became of every row; failed.json: why it ended
        result.csv           and result.csv.rejected.ndjson

Names come from the loop's secret, so that nobody finds a folder who does not know the send. The folder holds customers'
ids in clear: only its owner reads it.
"""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from infra.drafts import replacing
from infra.errors import Conflict, NotFound, TooMany
from infra.randomness import digest
from infra.secrets import Secrets
from pipelines.audiences.deciding import Report

Format = Literal["csv", "ndjson", "parquet"]
State = Literal["open", "running", "done", "failed", "stopped"]
"""open: parts may come; stopped: its process ended without a word, start it again."""

PARTS = 1_000
"""Most parts of one audience."""
SENDS = 100
"""Most sends that are kept at once, of all loops."""
PATIENCE_SECONDS = 2.0
"""How long a start waits for those who look, or put a part in."""
_RETRY_SECONDS = 0.01
_DAY = 86_400.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    loop: str
    send: str
    campaign: str
    format: Format = "csv"
    links: dict[str, str] = {}


class Failure(msgspec.Struct):
    """Why a send ended before its audience did."""

    detail: str
    retriable: bool


class Folder:
    """One send's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def order(self) -> Order:
        """What was asked for."""
        return msgspec.json.decode((self.path / "send.json").read_bytes(), type=Order)

    @property
    def result(self) -> Path:
        """Where the output is once it is whole."""
        return self.path / f"result.{self.order.format}"

    @property
    def state(self) -> State:
        """How the send stands."""
        if self._is_held():
            return "running"
        if (self.path / "report.json").exists():
            return "done"
        if (self.path / "failed.json").exists():
            return "failed"
        return "stopped" if (self.path / "progress.json").exists() else "open"

    @property
    def rows(self) -> int:
        """Rows that were read by the run that is under way, or was last."""
        return int(self._read("progress.json", int) or 0)

    @property
    def report(self) -> Report | None:
        """What became of every row, once it is done."""
        found: Report | None = self._read("report.json", Report)
        return found

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        found: Failure | None = self._read("failed.json", Failure)
        return found

    @property
    def parts(self) -> list[Path]:
        """The parts of the audience, in their order."""
        return sorted(self.path.glob("part-*.ndjson"))

    def put_part(self, number: int, recipients: list[Any]) -> None:
        """Store a part; the same number again replaces it. The send is open then, whatever its last run said; the same
        part again changes nothing. Raises :class:`Conflict` while the send is decided."""
        path, lines = self.path / f"part-{number:05d}.ndjson", msgspec.json.Encoder().encode_lines(recipients)
        with self._shared():
            if path.exists() and path.read_bytes() == lines:
                return
            self._forget("progress.json")
            self.write(path.name, lines)

    def write(self, name: str, content: bytes) -> None:
        """A file of the folder, whole or not at all."""
        with replacing(self.path / name) as file:
            file.write(content)

    def begin(self) -> None:
        """Before a run, by whoever holds the send: what the one before said holds no more."""
        self._forget()
        self.write("progress.json", b"0")

    @contextmanager
    def held(self, patience: float = 0.0) -> Iterator[int]:
        """The right to decide the send: the lock's descriptor. A process that inherits it has the right until it closes it.
        Raises :class:`Conflict` while another has it, after ``patience`` seconds."""
        with (self.path / "lock").open("ab") as lock:
            deadline = time.monotonic() + patience
            while not _is_taken(lock, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise Conflict("The send is in use; ask how it stands, and start it again")
                time.sleep(_RETRY_SECONDS)
            yield lock.fileno()

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """That nobody decides the send. Any number may have it at once. Raises :class:`Conflict` while somebody does."""
        with (self.path / "lock").open("ab") as lock:
            if not _is_taken(lock, fcntl.LOCK_SH):
                raise Conflict("The send is being decided; send more of its audience when it is done")
            yield

    def _is_held(self) -> bool:
        try:
            with self._shared():
                return False
        except Conflict:
            return True

    def _forget(self, *more: str) -> None:
        for name in ("report.json", "failed.json", *more):
            (self.path / name).unlink(missing_ok=True)

    def _read(self, name: str, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None


def _is_taken(lock: BinaryIO, kind: int) -> bool:
    """Take the lock, if it is free."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Folders:
    """All folders of an installation. ``days``: how long one is kept after its last change."""

    def __init__(self, home: Path, secrets: Secrets, days: int) -> None:
        self._root, self._secrets, self._days = home / "sends", secrets, days

    def create(self, order: Order) -> Folder:
        """The folder of a send; the same order again finds it. Raises :class:`Conflict` for another order,
        :class:`TooMany` when too many are kept."""
        path = self._path(order.loop, order.send)
        if not (path / "send.json").exists():
            self.sweep()
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sum(1 for _ in self._root.iterdir()) >= SENDS:
                raise TooMany(
                    f"{SENDS} sends are kept already; they are deleted {self._days} days after they ended", 3_600
                )
            path.mkdir(mode=0o700, exist_ok=True)
            with suppress(Conflict):  # another server is doing the same
                Folder(path).write("send.json", msgspec.json.encode(order))
        folder = self.find(order.loop, order.send)
        if folder.order != order:
            raise Conflict(f"The send {order.send!r} was asked for otherwise; give this one its own name", "/campaign")
        return folder

    def find(self, loop: str, send: str) -> Folder:
        """The folder of a send. Raises :class:`NotFound`."""
        path = self._path(loop, send)
        if not (path / "send.json").exists():
            raise NotFound(f"No send {send[:64]!r} of this loop; create it with PUT /v1/loops/{loop}/sends/{send[:64]}")
        return Folder(path)

    def sweep(self) -> int:
        """Delete what was not touched for as long as it is kept; returns how many sends that were."""
        oldest, swept = time.time() - self._days * _DAY, 0
        for path in self._root.glob("*"):
            with suppress(FileNotFoundError, Conflict):
                newest = max(one.stat().st_mtime for one in (path, *path.iterdir()))
                if newest < oldest:
                    with Folder(path).held():
                        shutil.rmtree(path)
                    swept += 1
        return swept

    def _path(self, loop: str, send: str) -> Path:
        return self._root / digest(self._secrets.loop(loop), "send-folder", send).hex()[:32]
