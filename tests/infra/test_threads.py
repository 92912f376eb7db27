"""Work that is repeated in a thread, or done together."""

import queue
import threading

import pytest

from infra.threads import Repeating, groups, stop_all


def test_a_failure_does_not_end_the_work() -> None:
    """What fails is tried again, until the thread is stopped; then nothing is done any more."""
    rounds = threading.Semaphore(0)

    def work() -> None:
        rounds.release()
        raise ZeroDivisionError

    with Repeating("test", 0.001, work) as thread:
        came = [rounds.acquire(timeout=60) for _ in range(3)]
    thread.stop()
    while rounds.acquire(blocking=False):
        pass

    assert came == [True, True, True]
    assert not rounds.acquire(timeout=0.05)


def test_threads_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that does not end holds a stop up once, however many threads of it there are; the others have ended."""
    monkeypatch.setattr("infra.threads.STOP_SECONDS", 0.2)
    waited: list[float] = []
    go, begun = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        go.wait(60)

    threads = [Repeating(f"test{number}", 0.001, hang) for number in range(3)]
    for _ in threads:
        assert begun.acquire(timeout=60)
    for thread in threads:
        monkeypatch.setattr(thread._thread, "join", waited.append)
    stop_all(threads)
    go.set()

    assert waited == sorted(waited, reverse=True)
    assert 0.0 <= waited[-1] <= waited[0] <= 0.2
    assert all(thread._stop.is_set() for thread in threads)


def test_what_waits_is_handed_out_together_until_the_end() -> None:
    """Groups keep the order and their size; None ends them after what was put before it, and nothing comes later."""
    waiting: queue.Queue[int | None] = queue.Queue()
    for one in (1, 2, 3, 4, 5, None, 6):
        waiting.put(one)

    assert list(groups(waiting, 2)) == [[1, 2], [3, 4], [5]]
    assert waiting.get_nowait() == 6
