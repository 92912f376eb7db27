"""Work in the background: what is done again and again, and what waits in a queue to be done together."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from infra.errors import Unavailable
from infra.logs import log

STOP_SECONDS = 10.0
"""How long a stop waits for what is being done."""

Waiting = TypeVar("Waiting")


def groups(waiting: "queue.Queue[Waiting | None]", most: int) -> Iterator[list[Waiting]]:
    """What waits, together, at most ``most`` at once. Ends at None; what was put before it still comes."""
    while (first := waiting.get()) is not None:
        group = [first]
        while len(group) < most:
            try:
                another = waiting.get_nowait()
            except queue.Empty:
                break
            if another is None:
                yield group
                return
            group.append(another)
        yield group


def stop_all(threads: "Sequence[Repeating]") -> None:
    """End them all, and wait for all together as long as for one."""
    for thread in threads:
        thread.end()
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.stop(max(0.0, deadline - time.monotonic()))


class Repeating:
    """A thread that does one thing again and again. A failure is logged once, and tried again."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._name, self._seconds, self._work = name, seconds, work
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def end(self) -> None:
        """Let it end after what it is doing, without waiting for that."""
        self._stop.set()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it, and wait for what it is doing."""
        self.end()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._work()
                self._failed = False
            except Exception as error:  # a thread that ends would stop the learning without a word
                if not self._failed:
                    self._say(error)
                self._failed = True

    def _say(self, error: Exception) -> None:
        if isinstance(error, Unavailable):
            log.warning("background_work_waits", thread=self._name, reason=str(error))
        else:
            log.error("background_work_failed", thread=self._name, exc_info=error)
