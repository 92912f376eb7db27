"""Whether decisions can be stored: who waits, who tries, and who is told at once."""

import pytest

from infra.errors import Conflict, Unavailable
from reward_models.serving.reach import LONGEST_PAUSE, SLOW_SECONDS, Reach


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 seconds."""
    return Clock()


@pytest.fixture
def reach(clock: Clock) -> Reach:
    """A reach on this clock."""
    return Reach(clock)


def fail(reach: Reach) -> None:
    """A commit that finds the database away."""
    with pytest.raises(Unavailable), reach.committing():
        raise Unavailable("The database does not answer: refused")


def test_nobody_joins_a_commit_that_hangs(reach: Reach, clock: Clock) -> None:
    """Behind a commit that takes long nobody queues; once it is done, everybody may again."""
    with reach.committing():
        reach.check()
        clock.now += SLOW_SECONDS * 2
        with pytest.raises(Unavailable, match="takes long"):
            reach.check()
    reach.check()


def test_after_one_failure_the_next_decision_tries_at_once(reach: Reach) -> None:
    """One failure costs nobody a wait; while that one tries, the others are told why there is no use."""
    fail(reach)
    reach.check()

    with pytest.raises(Unavailable, match="refused"):
        reach.check()


def test_pauses_grow_up_to_the_longest(reach: Reach, clock: Clock) -> None:
    """With every failure the next try comes later, and never later than the longest pause."""
    tries = []
    for _ in range(30):
        fail(reach)
        before = clock.now
        while True:
            try:
                reach.check()
                break
            except Unavailable:
                clock.now += 0.01
        tries.append(clock.now - before)

    assert tries[0] == 0.0
    assert tries == sorted(tries)
    assert tries[-1] == pytest.approx(LONGEST_PAUSE, abs=0.02)


def test_a_try_that_is_never_made_is_not_the_last(reach: Reach, clock: Clock) -> None:
    """If the decision that was to try gave up first, another one tries after the longest pause."""
    fail(reach)
    reach.check()
    clock.now += LONGEST_PAUSE

    reach.check()


def test_a_success_ends_it(reach: Reach) -> None:
    """Once a commit went well, everybody may store again."""
    fail(reach)
    with reach.committing():
        pass
    for _ in range(3):
        reach.check()


def test_what_is_not_the_databases_fault_changes_nothing(reach: Reach) -> None:
    """An error that trying again does not mend keeps nobody from storing."""
    with pytest.raises(Conflict), reach.committing():
        raise Conflict("odd")
    reach.check()
