"""Work that is repeated in a thread."""

import threading

from infra.threads import Repeating


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
