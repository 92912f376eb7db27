"""The proxy breaks what it is told to break, and nothing else."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from infra.database import lock_join, open_database
from tests.stack.faults.database import Database
from tests.stack.faults.proxy import Break, Proxy

pytestmark = [pytest.mark.stack, pytest.mark.postgres]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A PostgreSQL for this module."""
    with Database() as database:
        yield database


@pytest.fixture
def direct(database: Database) -> Iterator[Engine]:
    """A new database with a table of numbers."""
    engine = open_database(database.new())
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (number integer)"))
    yield engine
    engine.dispose()


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(database.socket) as proxy:
        yield proxy


@pytest.fixture
def proxied(database: Database, direct: Engine, proxy: Proxy) -> Iterator[Engine]:
    """The same database through the proxy."""
    url = direct.url.render_as_string(hide_password=False)
    engine = open_database(database.through(url, proxy.port))
    yield engine
    engine.dispose()


def write(engine: Engine, number: int, lock: bool = True) -> None:
    with engine.begin() as connection:
        if lock:
            lock_join(connection)
        connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})


def numbers(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT number FROM numbers")))


def test_everything_passes_when_nothing_is_broken(direct: Engine, proxied: Engine, proxy: Proxy) -> None:
    """Statements pass, prepared ones too, and commits of the join are counted, others not."""
    for number in range(20):
        write(proxied, number)
    write(proxied, 20, lock=False)

    assert numbers(proxied) == numbers(direct) == list(range(21))
    assert proxy.commits == 20


@pytest.mark.parametrize(("how", "stored"), [("before", []), ("after", [7])])
def test_a_broken_commit_has_an_outcome_the_client_cannot_know(
    direct: Engine, proxied: Engine, proxy: Proxy, how: Break, stored: list[int]
) -> None:
    """The client sees the same broken connection whether the commit was executed or not."""
    proxy.break_commit(1, how)

    with pytest.raises(OperationalError):
        write(proxied, 7)

    assert proxy.broken.wait(10)
    assert numbers(direct) == stored
    write(proxied, 8)
    assert numbers(direct) == [*stored, 8]


def test_the_commit_asked_for_is_the_one_broken(direct: Engine, proxied: Engine, proxy: Proxy) -> None:
    """Commits are counted from where the trap was set, also when their statements are prepared ones."""
    for number in range(10):
        write(proxied, number)
    proxy.break_commit(3, "after")
    write(proxied, 10)
    write(proxied, 11, lock=False)
    write(proxied, 12)

    with pytest.raises(OperationalError):
        write(proxied, 13)

    assert numbers(direct) == list(range(14))


def test_a_cut_ends_what_is_under_way(direct: Engine, proxied: Engine, proxy: Proxy) -> None:
    """A statement that is running when the connection is cut fails, and its transaction leaves nothing."""
    failed = threading.Event()

    def work() -> None:
        try:
            with proxied.begin() as connection:
                connection.execute(text("INSERT INTO numbers VALUES (1)"))
                connection.execute(text("SELECT pg_sleep(60)"))
        except OperationalError:
            failed.set()

    thread = threading.Thread(target=work)
    thread.start()
    with direct.connect() as watching:
        while not watching.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")):
            watching.rollback()

    assert proxy.cut() == 1
    thread.join(10)
    assert failed.is_set()
    assert numbers(direct) == []


def test_refused_connections_come_back(direct: Engine, proxied: Engine, proxy: Proxy) -> None:
    """Nothing gets through while connections are refused; afterwards everything does."""
    write(proxied, 1)
    proxy.refuse()

    with pytest.raises(OperationalError):
        write(proxied, 2)

    proxy.allow()
    write(proxied, 3)
    assert numbers(direct) == [1, 3]


def test_a_server_that_is_stopped_at_once_comes_back_whole(database: Database, direct: Engine) -> None:
    """What was committed before an immediate stop is there after it."""
    write(direct, 1)
    database.stop()

    with pytest.raises(OperationalError):
        write(direct, 2)

    database.start()
    write(direct, 3)
    assert numbers(direct) == [1, 3]
