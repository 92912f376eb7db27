"""A database that says nothing is given up after as long as was said; one that is asked all the time is asked once."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, make_url, text

from infra.database import open_database, reading
from infra.errors import Unavailable
from infra.pulse import Pulse
from tests.pipelines.api import away
from tests.stack.faults.proxy import Proxy


@contextmanager
def behind_a_proxy(url: str, patience: float) -> Iterator[tuple[Engine, Proxy]]:
    """The database through a proxy that can freeze."""
    parsed = make_url(url)
    with Proxy(Path(str(parsed.query["host"])) / f".s.PGSQL.{parsed.port or 5432}") as proxy:
        through = parsed.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
        engine = open_database(through, patience)
        yield engine, proxy
        engine.dispose()


def freeze_between_statements(engine: Engine, proxy: Proxy) -> None:
    """A transaction whose second statement is not answered."""
    with reading(engine) as connection:
        connection.execute(text("SELECT 1"))
        proxy.freeze()
        connection.execute(text("SELECT 1"))


@pytest.mark.postgres
def test_a_frozen_database_is_given_up(postgres_url: str) -> None:
    """A statement that is not answered is ``Unavailable`` within the patience, and the next connection is a new one."""
    with behind_a_proxy(postgres_url, 0.3) as (engine, proxy):
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 seconds"):
            freeze_between_statements(engine, proxy)
        proxy.thaw()
        with reading(engine) as connection:
            assert connection.scalar(text("SELECT 2")) == 2


def test_all_connections_in_use_is_a_database_that_does_not_answer(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gets no connection in time hears that it is worth trying again, not that something broke."""
    engine = open_database(sqlite_url)
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    monkeypatch.setattr(engine.pool, "_max_overflow", 0)
    held = [engine.connect() for _ in range(5)]
    with pytest.raises(Unavailable, match="all its connections are in use"), reading(engine):
        pass
    for connection in held:
        connection.close()


def asked(pulse: Pulse, times: int) -> list[str | None]:
    """What so many who ask at once are told."""

    async def ask() -> list[str | None]:
        return list(await asyncio.gather(*(pulse.fault() for _ in range(times))))

    return asyncio.run(ask())


def test_many_probes_are_one_question(engine: Engine) -> None:
    """However many ask, the database is asked once in the interval, and all hear the answer."""
    questions: list[object] = []
    event.listen(engine, "before_cursor_execute", lambda *about: questions.append(about[2]))
    pulse = Pulse(engine, seconds=60.0)

    assert asked(pulse, 200) == [None] * 200
    assert asked(pulse, 200) == [None] * 200
    assert questions.count("SELECT 1") == 1


def test_a_database_that_is_away_is_said_to_be(engine: Engine) -> None:
    """The reason is a sentence; when it is back, the next question finds that out."""
    pulse = Pulse(engine, seconds=0.0)
    with away(engine):
        assert "does not answer" in str(asked(pulse, 1)[0])
    assert asked(pulse, 1) == [None]


def test_a_question_that_hangs_is_an_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database has not answered, everybody is told so in time, and no further question is asked."""
    monkeypatch.setattr("infra.pulse.LONGEST", 0.1)
    go, begun = threading.Event(), []

    def hang() -> str | None:
        begun.append(time.monotonic())
        go.wait(20)
        return None

    pulse = Pulse(engine, seconds=0.0)
    monkeypatch.setattr(pulse, "_ask", hang)

    async def ask() -> list[str | None]:
        found = [await pulse.fault() for _ in range(3)]
        go.set()
        await asyncio.sleep(0.05)
        return [*found, await pulse.fault()]

    found = asyncio.run(ask())
    assert all("nothing for" in str(reason) for reason in found[:3])
    assert found[3] is None
    assert len(begun) <= 2
