"""Work that is repeated in a thread, or done together."""

import queue
import threading

from infra.threads import Repeating, groups


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


def test_what_waits_is_handed_out_together_until_the_end() -> None:
    """Groups keep the order and their size; None ends them after what was put before it, and nothing comes later."""
    waiting: queue.Queue[int | None] = queue.Queue()
    for one in (1, 2, 3, 4, 5, None, 6):
        waiting.put(one)

    assert list(groups(waiting, 2)) == [[1, 2], [3, 4], [5]]
    assert waiting.get_nowait() == 6
