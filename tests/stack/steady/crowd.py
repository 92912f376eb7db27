"""Callers who keep asking for decisions, each over a connection of its own, and remember what they were answered."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.stack.steady.servers import Address, Answer
from tests.stack.steady.world import CONTEXTS

_numbers = itertools.count()


class Asked(NamedTuple):
    """One question and its answer. ``at``: when it was answered, monotonic seconds."""

    decision_id: str
    context: Mapping[str, Any]
    answer: Answer
    at: float

    @property
    def asked_at(self) -> float:
        """When it was asked."""
        return self.at - self.answer.seconds

    @property
    def is_durable(self) -> bool:
        """Whether it was answered as stored."""
        return self.answer.is_ok and bool(self.answer.document["durable"])

    @property
    def is_baseline(self) -> bool:
        """Whether it was answered with the baseline, because nothing else could be."""
        return self.answer.is_ok and self.answer.document["learning_mode"] == "fallback"


class Crowd:
    """``callers`` threads that ask ``server`` again and again; ``pause``: seconds between an answer and a question."""

    def __init__(self, server: Address, callers: int, pause: float = 0.005, **fields: Any) -> None:
        self.asked: list[Asked] = []
        self._server, self._pause, self._fields = server, pause, fields
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the answers that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self._server.caller() as caller:
            while not self._stopping.is_set():
                question = question_of(next(_numbers), **self._fields)
                answer = caller.post("/v1/rank", question)
                self.asked.append(Asked(question["decision_id"], question["context"], answer, time.monotonic()))
                time.sleep(self._pause)


@contextmanager
def asking(server: Address, callers: int = 6, **fields: Any) -> Iterator[Crowd]:
    """A crowd that asks while this is entered."""
    crowd = Crowd(server, callers, **fields)
    crowd.start()
    try:
        yield crowd
    finally:
        crowd.stop()


def question_of(number: int, **fields: Any) -> dict[str, Any]:
    """A question of its own id."""
    plain = {"loop": "mail", "campaign": "june", "unit": f"u{number}", "context": CONTEXTS[number % len(CONTEXTS)]}
    return {"decision_id": f"asked-{number}"} | plain | fields


def lasting(crowd: Crowd, seconds: float, step: Callable[[], object] = lambda: None, least: int = 20) -> list[Asked]:
    """What is asked from now on for so long, and until at least so much was; ``step`` is done ten times a second."""
    first, end = len(crowd.asked), time.monotonic() + seconds
    while time.monotonic() < end or len(crowd.asked) - first < least:
        step()
        time.sleep(0.1)
    return crowd.asked[first:]
