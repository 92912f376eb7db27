"""The decision log: stored before it is answered, once per id."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from sqlalchemy import Connection, Engine, event, func, select

from infra import tables
from infra.database import open_database, reading, writing
from infra.errors import Unavailable
from ingestion.events import Decision
from reward_models.serving import decision_log
from reward_models.serving.decision_log import DecisionLog, read_decisions
from reward_models.serving.ranker import rank
from tests.reward_models.serving.worlds import SECRETS, request, snapshot

WORLD = snapshot(counts={"c00": (100, 3), "c01": (100, 5)})


def made(decision_id: str, digest: str = "a" * 64) -> Decision:
    """A decision that was not stored yet."""
    return rank(WORLD, request(decision_id, unit="u", slots=2, request_digest=digest), SECRETS, 500)


@pytest.fixture
def any_log(any_engine: Engine) -> Iterator[DecisionLog]:
    """A running log on either database."""
    log = DecisionLog(any_engine)
    log.start()
    yield log
    log.stop()


def test_stored_before_it_is_answered(any_log: DecisionLog) -> None:
    """When ``store`` returns, the row is committed, not yet counted, and reads back as the same decision."""
    answered = any_log.store(made("d1"))

    with reading(any_log.engine) as connection:
        stored = read_decisions(connection, ["d1"])["d1"]
        batch_no = connection.scalar(select(tables.decisions.c.batch_no))
    assert answered == stored
    assert made("d1") == stored
    assert batch_no is None


def test_the_first_body_of_an_id_stays(any_log: DecisionLog) -> None:
    """A second decision under a stored id is answered with the stored one."""
    first = any_log.store(made("d1", "a" * 64))

    assert first == any_log.store(made("d1", "b" * 64))


def test_two_writers_of_one_id(any_log: DecisionLog) -> None:
    """Of many threads that store one id, exactly one wins, and all are answered its row."""
    bodies = [made("d1", f"{number:064d}") for number in range(24)]
    other = DecisionLog(any_log.engine)
    other.start()
    try:
        with ThreadPoolExecutor(24) as pool:
            logs = [any_log, other] * 12
            answers = list(pool.map(lambda pair: pair[0].store(pair[1]), zip(logs, bodies, strict=True)))
    finally:
        other.stop()

    assert len({answer.request_digest for answer in answers}) == 1


def test_many_decisions_share_a_commit(engine: Engine) -> None:
    """Decisions that wait together are committed together."""
    commits: list[Connection] = []
    event.listen(engine, "commit", commits.append)
    log = DecisionLog(engine)
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(log.store, made(f"d{number}")) for number in range(60)]
        while log._queue.qsize() < 60:
            pass
        log.start()
        assert [answer.result().decision_id for answer in answers] == [f"d{number}" for number in range(60)]
    log.stop()

    assert len(commits) == 1


def test_stop_writes_what_waits(engine: Engine) -> None:
    """A decision that was taken is stored, although the log is told to stop."""
    log = DecisionLog(engine)
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(log.store, made(f"d{number}")) for number in range(3)]
        while log._queue.qsize() < 3:
            pass

        def start_and_stop() -> None:
            log.start()
            log.stop()

        stopping = threading.Thread(target=start_and_stop)
        stopping.start()
        stored = {answer.result().decision_id for answer in answers}
        stopping.join()

    assert stored == {"d0", "d1", "d2"}


def test_a_full_queue_is_unavailable(engine: Engine) -> None:
    """More decisions than may wait are refused at once, and nothing of them is stored."""
    log = DecisionLog(engine, waiting=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log.store, made("d1"))
        while log._queue.qsize() < 1:
            pass
        with pytest.raises(Unavailable, match="Too many decisions wait"):
            log.store(made("d2"))
        log.start()
        waiting.result()
        log.stop()

    with reading(engine) as connection:
        assert list(connection.scalars(select(tables.decisions.c.decision_id))) == ["d1"]


def test_a_locked_database_is_unavailable_and_recovers(sqlite_url: str) -> None:
    """While another holds SQLite's write lock the decision is refused; afterwards the same id is stored."""
    engine, holder = open_database(sqlite_url), open_database(sqlite_url)
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=50"))
    log = DecisionLog(engine)
    log.start()
    with writing(holder), pytest.raises(Unavailable, match="does not answer"):
        log.store(made("d1"))

    assert log.store(made("d1")).decision_id == "d1"
    log.stop()


def test_nobody_waits_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that nobody takes is given up after the patience, and is not stored later."""
    monkeypatch.setattr(decision_log, "PATIENCE_SECONDS", 0.05)
    log = DecisionLog(engine)
    with pytest.raises(Unavailable, match="waited too long"):
        log.store(made("d1"))
    log.start()
    log.stop()

    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(tables.decisions)) == 0


def test_a_decision_that_cannot_be_stored_harms_no_other(engine: Engine) -> None:
    """One group's failure reaches its own callers; the next group is stored."""
    log = DecisionLog(engine)
    log.start()
    broken = msgspec.structs.replace(made("d1"), loop_id=None)
    with pytest.raises(Unavailable, match="could not be stored"):
        log.store(broken)

    assert log.store(made("d2")).decision_id == "d2"
    log.stop()
