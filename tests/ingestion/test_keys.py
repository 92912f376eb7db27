"""API keys: what is stored of them, whom they prove, and how they end."""

import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, NotFound
from infra.secrets import Secrets
from ingestion.keys import Keyring, create_key, list_keys, revoke_key, rotate_key
from ingestion.loops import put_loop
from tests.ingestion.records import LOOP, NOW, SECRETS

OTHERS = Secrets(b"x" * 32, {1: b"u" * 32}, {1: b"t" * 32})


def made(engine: Engine, name: str = "shop", scopes: tuple[str, ...] = ("rank",), loops: tuple[str, ...] = ()) -> str:
    """A new key."""
    with writing(engine) as connection:
        return create_key(connection, SECRETS, name, scopes, loops, "5/second", NOW)


def keyring(engine: Engine, now: int = NOW, secrets: Secrets = SECRETS) -> Keyring:
    """A keyring that has looked."""
    ring = Keyring(engine, secrets, lambda: now)
    ring.refresh()
    return ring


def test_a_key_proves_its_connection(any_engine: Engine) -> None:
    """The whole key finds its connection with its rights; the table holds no part of its secret."""
    key = made(any_engine, scopes=("rank", "events"))
    found = keyring(any_engine).find(key)
    assert found is not None
    assert (found.name, found.scopes, found.loops, str(found.rate)) == (
        "shop",
        frozenset({"rank", "events"}),
        frozenset[str](),
        "5 per 1 second",
    )
    with reading(any_engine) as connection:
        (row,) = list_keys(connection)
        audit = connection.execute(select(tables.audit)).all()
    secret = key.split("_", 2)[2]
    assert secret not in str(row) + str(audit)


def test_what_is_not_the_key_proves_nobody(any_engine: Engine) -> None:
    """A changed letter, another installation's secret, an unknown id, or nonsense find nobody."""
    key = made(any_engine)
    ring = keyring(any_engine)
    last = "A" if key[-1] != "A" else "B"
    for wrong in (key[:-1] + last, key + "A", key[:-1], "rl_aaaaaaaaaaaa_" + key[16:], "", "rl_", "é" * 60):
        assert ring.find(wrong) is None
    assert keyring(any_engine, secrets=OTHERS).find(key) is None


def test_rotation_gives_the_old_key_time(any_engine: Engine) -> None:
    """After a rotation both keys work until the old one's end, then the new one alone; its rights are the same."""
    old = made(any_engine, scopes=("rank", "content"))
    with writing(any_engine) as connection:
        new = rotate_key(connection, SECRETS, "shop", NOW + 100, NOW + 1)
    before, after = keyring(any_engine, NOW + 99), keyring(any_engine, NOW + 100)
    assert before.find(old) is not None
    assert after.find(old) is None
    found = after.find(new)
    assert found is not None
    assert (found.name, found.scopes) == ("shop", frozenset({"rank", "content"}))
    with writing(any_engine) as connection, pytest.raises(NotFound, match="No active key is named 'ship'"):
        rotate_key(connection, SECRETS, "ship", NOW, NOW)


def test_a_revoked_key_is_nobodys(any_engine: Engine) -> None:
    """Revoking ends a key at the next look, and is in the audit."""
    key = made(any_engine)
    ring = keyring(any_engine)
    with writing(any_engine) as connection:
        revoke_key(connection, key.split("_")[1], NOW)
    assert ring.find(key) is not None
    ring.refresh()
    assert ring.find(key) is None
    with reading(any_engine) as connection:
        actions = connection.scalars(select(tables.audit.c.action).order_by(tables.audit.c.id)).all()
    assert actions == ["create_key", "revoke_key"]
    with writing(any_engine) as connection, pytest.raises(NotFound, match="rewardloop keys list"):
        revoke_key(connection, "aaaaaaaaaaaa", NOW)


def test_last_use_is_written_down(any_engine: Engine) -> None:
    """When a key was used last is stored at the next look, and only for keys that were used."""
    used, unused = made(any_engine, "one"), made(any_engine, "two")
    ring = keyring(any_engine, NOW + 5)
    ring.find(used)
    ring.find(unused[:-1])
    ring.refresh()
    with reading(any_engine) as connection:
        assert [(row.name, row.last_used_at) for row in list_keys(connection)] == [("one", NOW + 5), ("two", None)]


@pytest.mark.parametrize(
    ("name", "scopes", "loops", "rate", "sentence"),
    [
        ("a b", ["rank"], [], "1/second", "cannot name a connection"),
        ("shop", [], [], "1/second", "no key without a scope"),
        ("shop", ["write"], [], "1/second", "no scope 'write'"),
        ("shop", ["rank"], ["nowhere"], "1/second", "no loop 'nowhere'"),
        ("shop", ["rank", "events"], ["mail"], "1/second", "Events are about customers"),
        ("shop", ["rank"], ["mail"], "often", "'often' is no rate"),
        ("shop", ["rank"], ["mail"], "5/second;100/day", "is no rate"),
        ("shop", ["rank"], ["mail"], "0/second", "is no rate"),
        ("redirect", ["rank"], [], "1/second", "sends events already"),
    ],
)
def test_wrong_keys_are_not_made(
    any_engine: Engine, name: str, scopes: list[str], loops: list[str], rate: str, sentence: str
) -> None:
    """A key with a strange name, scope, loop or rate is refused with a sentence, and nothing is stored."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, NOW)
    with writing(any_engine) as connection, pytest.raises(BadInput, match=sentence):
        create_key(connection, SECRETS, name, scopes, loops, rate, NOW)
    with reading(any_engine) as connection:
        assert list_keys(connection) == []
