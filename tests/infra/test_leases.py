"""Leases: one holder at a time, taken over after a death, fenced against the one that wakes up late."""

import threading

import pytest
from sqlalchemy import Engine, select, update

from infra import tables
from infra.clock import MICROS, system_clock
from infra.database import reading, writing
from infra.errors import Conflict
from infra.leases import check, lease


def hold(engine: Engine, name: str, expires_at: int) -> None:
    """A row as a holder that has died, or lives on, leaves it."""
    with writing(engine) as connection:
        connection.execute(tables.leases.insert().values(name=name, holder="other", token=7, expires_at=expires_at))


def end_of(engine: Engine, name: str) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(tables.leases.c.expires_at)).scalar_one())


def test_a_lease_is_free_after_its_block_and_every_holder_has_a_higher_token(any_engine: Engine) -> None:
    """Two holders one after the other get tokens 1 and 2."""
    with lease(any_engine, "retrain:a") as first:
        pass
    with lease(any_engine, "retrain:a") as second:
        pass

    assert [first.token, second.token] == [1, 2]


def test_leases_of_two_loops_are_independent(engine: Engine) -> None:
    """Holding one loop's lease does not keep another loop from running."""
    with lease(engine, "retrain:a"), lease(engine, "retrain:b") as other:
        assert other.name == "retrain:b"


def test_a_dead_holders_lease_is_taken_over_when_it_ends(engine: Engine) -> None:
    """A lease nobody renews is waited for, then taken with a higher token."""
    hold(engine, "retrain:a", system_clock() + MICROS // 2)

    with lease(engine, "retrain:a") as held:
        assert held.token == 8


def test_a_living_holder_is_refused_in_a_sentence(engine: Engine) -> None:
    """A second run is told that the first one is running as soon as the first renews."""
    entered, done = threading.Event(), threading.Event()

    def living() -> None:
        with lease(engine, "retrain:a", length=MICROS):
            entered.set()
            done.wait(10)

    thread = threading.Thread(target=living)
    thread.start()
    entered.wait(10)
    with pytest.raises(Conflict, match="retrain:a is running already"), lease(engine, "retrain:a"):
        pass
    done.set()
    thread.join()


def test_a_lease_is_renewed_while_it_is_held(engine: Engine) -> None:
    """A holder that works for longer than the lease keeps it."""
    with lease(engine, "retrain:a", length=MICROS // 2) as held:
        before = end_of(engine, "retrain:a")
        threading.Event().wait(1.0)
        assert end_of(engine, "retrain:a") > before
        with writing(engine) as connection:
            check(connection, held)


def test_a_holder_that_lost_its_lease_cannot_write(any_engine: Engine) -> None:
    """The fencing token of a holder that was overtaken is refused in the transaction of the write."""
    with lease(any_engine, "retrain:a") as held:
        with writing(any_engine) as connection:
            connection.execute(update(tables.leases).values(token=held.token + 1))
        with pytest.raises(Conflict, match="taken over"), writing(any_engine) as connection:
            check(connection, held)
