"""The database: the same rules on SQLite and PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from infra.database import (
    Cells,
    add_up,
    canonical_json,
    insert_all,
    insert_new,
    insert_once,
    insert_told,
    lock_join,
    new_numbers,
    open_database,
    reading,
    upsert,
    writing,
)
from infra.errors import Misconfigured, Unavailable
from infra.tables import content_stats, event_keys, events, loop_switches


def switch(loop_id: str, reason: str) -> dict[str, object]:
    return {"loop_id": loop_id, "killed": True, "reason": reason, "changed_at": 0}


def switches(engine: Engine) -> dict[str, str]:
    with reading(engine) as connection:
        return {row.loop_id: row.reason for row in connection.execute(select(loop_switches))}


def test_the_first_row_under_a_key_stays(any_engine: Engine) -> None:
    """``insert_once`` leaves what is stored."""
    with writing(any_engine) as connection:
        insert_once(connection, loop_switches, [switch("a", "first")])
        insert_once(connection, loop_switches, [switch("a", "second"), switch("b", "first")])
        insert_once(connection, loop_switches, [])

    assert switches(any_engine) == {"a": "first", "b": "first"}


def test_insert_new_tells_which_keys_were_new(any_engine: Engine) -> None:
    """Whatever the number of rows, and none is told twice."""
    with writing(any_engine) as connection:
        assert insert_new(connection, loop_switches, [switch("7", "first")]) == {("7",)}
        told = insert_new(connection, loop_switches, [switch(str(number), "second") for number in range(3_000)])
        assert insert_new(connection, loop_switches, []) == set()

    assert told == {(str(number),) for number in range(3_000) if number != 7}
    assert switches(any_engine)["7"] == "first"


def test_of_new_rows_any_column_is_told(any_engine: Engine) -> None:
    """``insert_told`` answers with the asked column of the rows that were new, and keeps the stored ones."""
    rows = [switch(name, f"reason {name}") for name in "abc"]
    with writing(any_engine) as connection:
        insert_once(connection, loop_switches, [switch("b", "before")])
        assert insert_told(connection, loop_switches, rows, ("reason",)) == {("reason a",), ("reason c",)}
        assert insert_told(connection, loop_switches, [], ("reason",)) == set()

    assert switches(any_engine)["b"] == "before"


def test_numbers_are_given_once(any_engine: Engine) -> None:
    """Numbers ascend, and go on where they stood after their rows are gone: a key may still name one of those."""
    with writing(any_engine) as connection:
        first = new_numbers(connection, events, 3)
        insert_all(connection, events, fact(first))
        assert first == sorted(set(first))
    with writing(any_engine) as connection:
        connection.execute(events.delete())
    with writing(any_engine) as connection:
        assert min(new_numbers(connection, events, 2)) > max(first)


@pytest.mark.postgres
def test_two_writers_get_different_numbers(postgres: Engine) -> None:
    """Nobody waits for the other, and nobody gets the other's."""
    with writing(postgres) as left, writing(postgres) as right:
        mine, others = new_numbers(left, events, 5), new_numbers(right, events, 5)

    assert set(mine).isdisjoint(others)


def fact(numbers: list[int]) -> Cells:
    words = {"source": "shop", "type": "click", "raw": {}, "occurred_at": 1, "received_at": 1}
    size = len(numbers)
    cells = {name: [value] * size for name, value in words.items()}
    return {"event_no": numbers, "event_id": list(map(str, numbers)), "unit": [None] * size, **cells}


def test_a_hash_is_the_first_half_of_a_digest(any_engine: Engine) -> None:
    """Whole digests may be given to every way in and to conditions; the same 32 characters come out everywhere."""
    digests = [number * 64 for number in "12a"]
    ways: tuple[Cells, ...] = ({"id_hash": digests[:1]}, {"id_hash": digests[1:2]})
    more: dict[str, list[Any]] = {"source": ["shop"], "digest": ["f" * 64], "digest_version": [1]}
    with writing(any_engine) as connection:
        insert_once(connection, event_keys, {**ways[0], **more})
        insert_all(connection, event_keys, {**ways[1], **more})
        connection.execute(
            event_keys.insert(), {name: value[0] for name, value in more.items()} | {"id_hash": digests[2]}
        )
        stored = set(map(tuple, connection.execute(select(event_keys.c.id_hash, event_keys.c.digest))))
        found = connection.scalars(select(event_keys.c.id_hash).where(event_keys.c.id_hash == digests[1])).all()

    assert stored == {(digest[:32], "f" * 32) for digest in digests}
    assert found == [digests[1][:32]]


def test_rows_that_are_surely_new_are_inserted_as_they_are(any_engine: Engine) -> None:
    """``insert_all`` stores texts with any characters, truths and nulls like the other ways in."""
    reasons = ["", "a\tb\\n\nc", "\\N", '"é"']
    cells: Cells = {"loop_id": list("abcd"), "killed": [True, False] * 2, "reason": reasons, "changed_at": [2**40] * 4}
    with writing(any_engine) as connection:
        insert_all(connection, loop_switches, cells)
        insert_all(connection, loop_switches, {})
        stored = connection.execute(select(loop_switches).order_by(loop_switches.c.loop_id)).all()

    assert [tuple(row) for row in stored] == list(zip(*cells.values(), strict=True))


@pytest.mark.postgres
def test_a_row_that_cannot_be_copied_is_an_error_like_any_other(postgres: Engine) -> None:
    """A value the database refuses raises what other statements raise, and nothing is stored."""
    for reason, id_ in (("\x00", "a"), ("fine", "x" * 300)):
        cells: Cells = {"loop_id": [id_], "killed": [True], "reason": [reason], "changed_at": [0]}
        with pytest.raises(DBAPIError), writing(postgres) as connection:
            insert_all(connection, loop_switches, cells)

    assert switches(postgres) == {}


@pytest.mark.postgres
def test_a_connection_that_is_lost_while_copying_is_an_outage(postgres: Engine) -> None:
    """The error is retriable, and the next transaction has another connection."""
    cells: Cells = {"loop_id": ["a"], "killed": [True], "reason": [""], "changed_at": [0]}
    with pytest.raises(Unavailable):
        lose_the_connection_and_copy(postgres, cells)

    with writing(postgres) as connection:
        insert_all(connection, loop_switches, cells)
    assert switches(postgres) == {"a": ""}


def lose_the_connection_and_copy(engine: Engine, cells: Cells) -> None:
    with writing(engine) as connection:
        process = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with reading(engine) as other:
            other.execute(text(f"SELECT pg_terminate_backend({process}, 5000)"))
        insert_all(connection, loop_switches, cells)


@pytest.mark.postgres
def test_of_two_writers_at_once_one_is_told_new(postgres: Engine) -> None:
    """Writers of the same keys at the same moment share them out; every key is new to exactly one."""

    def write(_: int) -> set[tuple[object, ...]]:
        with writing(postgres) as connection:
            return insert_new(connection, loop_switches, [switch(f"{key:03}", "") for key in range(200)])

    with ThreadPoolExecutor(4) as writers:
        told = [key for keys in writers.map(write, range(4)) for key in keys]

    assert sorted(told) == [(f"{key:03}",) for key in range(200)]


def test_upsert_replaces_what_is_not_key(any_engine: Engine) -> None:
    """The newest row holds."""
    with writing(any_engine) as connection:
        upsert(connection, loop_switches, [switch("a", "first")])
        upsert(connection, loop_switches, [switch("a", "second"), switch("b", "first")])
        upsert(connection, loop_switches, [])

    assert switches(any_engine) == {"a": "second", "b": "first"}


def test_add_up_adds_to_what_is_stored(any_engine: Engine) -> None:
    """Every column that is not key is added, negative amounts too."""
    key = {"campaign_id": "c", "content_id": "a", "metric": "m", "model_version": "", "bucket": 1}
    with writing(any_engine) as connection:
        for exposures, total in ((2, 5_000_000_000), (1, -7)):
            sums = {"exposures": exposures, "successes": 1, "sum": total, "sum_squares": 2, "expected": 3}
            add_up(connection, content_stats, [key | sums])
        add_up(connection, content_stats, [])
        stored = connection.execute(select(content_stats)).one()

    assert tuple(stored) == ("c", "a", "m", "", 1, 3, 2, 4_999_999_993, 4, 0, 6)


def test_a_failed_transaction_leaves_nothing(any_engine: Engine) -> None:
    """What was written before an error is gone."""
    with pytest.raises(ZeroDivisionError):
        insert_and_fail(any_engine)

    assert switches(any_engine) == {}


def insert_and_fail(engine: Engine) -> None:
    with writing(engine) as connection:
        insert_once(connection, loop_switches, [switch("a", "first")])
        raise ZeroDivisionError


def test_sqlite_is_durable_and_checks_references(engine: Engine) -> None:
    """WAL, synchronous=FULL and foreign keys are on in every connection."""
    with reading(engine) as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.postgres
def test_a_silent_transaction_ends_and_gives_its_locks_back(postgres: Engine, postgres_url: str) -> None:
    """A minute at most, or what the server's own setting says; the process that comes back is told it was cut off."""
    with reading(postgres) as connection:
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
    chosen = open_database(
        f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-cidle_in_transaction_session_timeout%3D50"
    )
    with pytest.raises(Unavailable):
        freeze_and_go_on(chosen, postgres)
    chosen.dispose()


def freeze_and_go_on(frozen_engine: Engine, other_engine: Engine) -> None:
    with writing(frozen_engine) as frozen:
        lock_join(frozen)
        with writing(other_engine) as other:
            lock_join(other)  # waits until the server has ended the silent transaction
        frozen.execute(text("SELECT 1"))


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    """The error is retriable and shows no password."""
    engine = open_database("postgresql://ann:pass@127.0.0.1:1/nowhere")

    with pytest.raises(Unavailable) as raised, reading(engine):
        pass
    assert raised.value.retriable
    assert "pass@" not in str(raised.value)


def test_a_wrong_statement_is_no_outage(any_engine: Engine) -> None:
    """A mistake in a statement is raised as it is: nobody should try it again."""
    with pytest.raises(DBAPIError, match=r"(?i)no such column|does not exist"), reading(any_engine) as connection:
        connection.execute(text("SELECT no_such_column FROM loops"))


def test_another_kind_of_database_is_refused() -> None:
    """The message names the setting."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_DATABASE_URL: 'mysql'"):
        open_database("mysql://localhost/x")


def test_json_is_canonical() -> None:
    """Keys are sorted, also inside, and nothing is added: equal values have equal bytes."""
    assert (
        canonical_json({"b": [1, {"d": None, "c": "é"}], "a": 0.5}) == '{"a":0.5,"b":[1,{"c":"é","d":null}]}'.encode()
    )


def test_a_text_that_is_no_url_is_a_wrong_setting() -> None:
    """A database setting that cannot be parsed is named, without repeating it: it may hold a password."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_DATABASE_URL is no database URL") as error:
        open_database("secret")
    assert "secret" not in str(error.value)


def test_errors_do_not_show_what_was_stored(any_engine: Engine) -> None:
    """A statement that fails is named without its values: they would end in a log."""
    with pytest.raises(DBAPIError) as raised, reading(any_engine) as connection:
        connection.execute(text("SELECT :value FROM no_such_table"), {"value": "ann@example.com"})

    assert "ann@example.com" not in str(raised.value)
