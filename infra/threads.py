"""Work in the background: what is done again and again, and what waits in a queue to be done together."""

import queue
import threading
from collections.abc import Callable, Iterator
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

    def stop(self) -> None:
        """End it after what it is doing."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)

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
