"""Migrations: one line of them, to exactly the tables that the code knows."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from infra.database import new_numbers, open_database, reading, writing
from infra.migrations import downgrade, heads, migrate
from infra.tables import DOCS, attributions, event_keys, events, metadata, suppressions
from tests.conftest import new_postgres_database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database without any table."""
    folder = tmp_path_factory.mktemp("bare")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'bare.db'}"
    else:
        url = new_postgres_database(request.getfixturevalue("postgres_server"), f"bare {folder.name}")
    engine = open_database(url)
    yield engine
    engine.dispose()


def test_there_is_one_head() -> None:
    """Two newest migrations would be two schemas."""
    assert len(heads()) == 1


def test_the_migrations_lead_to_the_tables_of_the_code(any_engine: Engine) -> None:
    """Alembic finds nothing to add, to drop or to change."""
    with reading(any_engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.postgres
def test_words_are_compared_by_their_bytes(postgres: Engine) -> None:
    """On PostgreSQL every ``varchar`` of ours has the collation C: keys are found fast, and sort as on SQLite."""
    query = text(
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND data_type = 'character varying' AND collation_name IS DISTINCT FROM 'C'"
    )
    with reading(postgres) as connection:
        assert connection.execute(query).scalars().all() == ["alembic_version.version_num"]


def test_migrating_up_and_down_and_up_again(bare: Engine) -> None:
    """Down leaves no table of ours, up again gives all of them; a second up changes nothing."""
    migrate(bare)
    downgrade(bare, "base")
    assert set(inspect(bare).get_table_names()) <= {"alembic_version"}

    migrate(bare)
    migrate(bare)
    assert set(inspect(bare).get_table_names()) == set(metadata.tables) | {"alembic_version"}


def test_every_table_and_column_says_what_it_is_for() -> None:
    """The reference page is printed from these sentences."""
    assert set(metadata.tables) == set(DOCS)
    assert [
        f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.c if not column.doc
    ] == []


def test_events_of_before_get_their_numbers(bare: Engine) -> None:
    """0007 keeps every event, attribution and key, and ties them by the new number; a key whose event is gone stays."""
    ids = {"ä1": ("shop", "d1"), "e2": ("mail", "d2"), "e3": ("shop", None)}
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in (*ids, "gone")}
    migrate(bare, "0006")
    with writing(bare) as connection:
        for name, (source, decision_id) in ids.items():
            connection.execute(
                text(
                    "INSERT INTO events (source, event_id, type, occurred_at, received_at, raw, batch_no) "
                    "VALUES (:source, :name, 'click', 1, 1, '{}', 1)"
                ),
                {"source": source, "name": name},
            )
            if decision_id:
                connection.execute(
                    text("INSERT INTO attributions VALUES (:source, :name, 'emails', 'token', :decision_id)"),
                    {"source": source, "name": name, "decision_id": decision_id},
                )
        for name, hash_ in hashes.items():
            connection.execute(
                text("INSERT INTO event_keys VALUES (:source, :hash, :hash, 1, NULL)"),
                {"source": ids.get(name, ("shop",))[0], "hash": hash_},
            )

    migrate(bare)

    with reading(bare) as connection:
        numbers = dict(map(tuple, connection.execute(select(events.c.event_id, events.c.event_no))))
        found = connection.execute(select(attributions.c.event_no, attributions.c.decision_id))
        assert set(map(tuple, found)) == {(numbers["ä1"], "d1"), (numbers["e2"], "d2")}
        keys = connection.execute(select(event_keys.c.id_hash, event_keys.c.digest, event_keys.c.event_no))
        assert set(map(tuple, keys)) == {(hash_[:32], hash_[:32], numbers.get(name)) for name, hash_ in hashes.items()}
    with writing(bare) as connection:
        assert min(new_numbers(connection, events, 2)) > max(numbers.values())
    with pytest.raises(RuntimeError, match="restore a backup"):
        downgrade(bare, "0006")


def test_numbers_cost_one_hash_an_event(bare: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """0007 looks a key's event up; comparing every key with every event would take hours on a store of this year."""
    migrate(bare, "0006")
    count, hashed = 300, hashlib.sha256
    keys = [{"name": f"e{number}", "hash": hashed(f"e{number}".encode()).hexdigest()} for number in range(count)]
    with writing(bare) as connection:
        event = (
            "INSERT INTO events (source, event_id, type, occurred_at, received_at, raw, batch_no) "
            "VALUES ('shop', :name, 'click', 1, 1, '{}', 1)"
        )
        connection.execute(text(event), [{"name": key["name"]} for key in keys])
        key = "INSERT INTO event_keys VALUES ('shop', :hash, :hash, 1, NULL)"
        connection.execute(text(key), [{"hash": one["hash"]} for one in keys])
    calls: list[bytes] = []

    def counting(data: bytes = b"", **more: Any) -> Any:
        calls.append(data)
        return hashed(data, **more)

    monkeypatch.setattr(hashlib, "sha256", counting)

    migrate(bare)

    assert len([data for data in calls if data.startswith(b"e")]) <= 2 * count
    with reading(bare) as connection:
        assert None not in connection.scalars(select(event_keys.c.event_no)).all()


def test_who_unsubscribed_before_is_suppressed(bare: Engine) -> None:
    """0008 takes the list from the stored events: by customer, or by the decision that the event names; the latest counts."""
    said: list[tuple[str, str, str | None, str | None, int]]
    said = [("e1", "unsubscribe", "ann", None, 3), ("e2", "complaint", "ann", None, 5), ("e3", "click", "bob", None, 4)]
    said += [("e4", "spam_report", None, "d1", 6), ("e5", "unsubscribe", None, "unknown", 7)]
    migrate(bare, "0007")
    with writing(bare) as connection:
        names = "decision_id, unit, request_digest, loop_id, campaign_id, policy_version, sampler, seed, learning_mode"
        others = "context, candidates, excluded, chosen, constraints"
        connection.execute(
            text(
                f'INSERT INTO decisions ({names}, {others}, "group", loop_version, floor, deferred, decided_at) '
                "VALUES ('d1', 'eve', 'x', 'l', 'c', 'p', 's', '', 'online', '{}', '[]', '[]', '[]', '{}', 't', 1, 0, :no, 1)"
            ),
            {"no": False},
        )
        for event_id, kind, unit, decision_id, at in said:
            connection.execute(
                text(
                    "INSERT INTO events (source, event_id, type, unit, decision_id, occurred_at, received_at, raw, batch_no) "
                    "VALUES ('mail', :event_id, :kind, :unit, :decision_id, :at, 1, '{}', 1)"
                ),
                {"event_id": event_id, "kind": kind, "unit": unit, "decision_id": decision_id, "at": at},
            )

    migrate(bare)

    with reading(bare) as connection:
        c = suppressions.c
        found = connection.execute(select(c.unit, c.scope, c.suppressed_at, c.lifted_at).order_by(c.unit))
        assert list(map(tuple, found)) == [("ann", "", 5, None), ("eve", "", 6, None)]
