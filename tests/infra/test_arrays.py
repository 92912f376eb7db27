"""Rows as arrays of texts, and the connection that is kept for them; on a real PostgreSQL."""

from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from infra import arrays, tables
from infra.database import Pen, reading, writing

pytestmark = pytest.mark.postgres

ODD = ["plain", "", "NULL", "a,b", '"quoted"', "{braces}", "back\\slash", "line\nbreak", "ünï ☃", "'"]


def cells(names: list[str]) -> dict[str, list[Any]]:
    """Campaigns of these names, as columns."""
    return {
        "campaign_id": names,
        "loop_id": ["mail"] * len(names),
        "brief": names,
        "channel": ["email"] * len(names),
        "baseline": [{"content_ids": [name], "weights": [0.5, None]} for name in names],
        "state": ["running"] * len(names),
        "created_at": list(range(len(names))),
    }


def test_values_come_back_as_they_were(postgres: Engine) -> None:
    """Texts that an array writes in a special way, JSON and numbers are stored unchanged."""
    with writing(postgres) as connection:
        new = arrays.insert_new(connection, tables.campaigns, cells(ODD))
    with reading(postgres) as connection:
        stored = {row.campaign_id: row for row in connection.execute(select(tables.campaigns))}

    assert new == set(ODD)
    assert [stored[name].brief for name in ODD] == ODD
    assert [stored[name].baseline["content_ids"] for name in ODD] == [[name] for name in ODD]
    assert [stored[name].created_at for name in ODD] == list(range(len(ODD)))


def test_a_key_is_stored_once(postgres: Engine) -> None:
    """Only new keys are returned, and the stored row stays."""
    with writing(postgres) as connection:
        arrays.insert_new(connection, tables.campaigns, cells(["a"]))
        again = cells(["a", "b"]) | {"brief": ["other", "b"]}
        new = arrays.insert_new(connection, tables.campaigns, again)
        brief = connection.scalar(select(tables.campaigns.c.brief).where(tables.campaigns.c.campaign_id == "a"))

    assert (new, brief) == ({"b"}, "a")


def test_a_pen_whose_connection_was_cut_writes_on(postgres: Engine) -> None:
    """Each write is committed by itself; after the server cut the kept connection the next write has a new one."""
    pen = Pen(postgres)
    pen.write(lambda connection: arrays.insert_new(connection, tables.campaigns, cells(["a"])))
    with reading(postgres) as connection:
        before = connection.scalar(select(tables.campaigns.c.brief))
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        connection.execute(text(others + "current_database()"))
    pen.write(lambda connection: arrays.insert_new(connection, tables.campaigns, cells(["b"])))
    pen.close()

    with reading(postgres) as connection:
        assert sorted(connection.scalars(select(tables.campaigns.c.campaign_id))) == ["a", "b"]
    assert before == "a"
