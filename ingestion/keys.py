"""API keys: who calls, and what they may do. Only a keyed hash of a key is stored.

    rl_<key id>_<secret>        the id finds the row, the secret proves it

A connection keeps its name for ever (it is the source of its events); its keys come and go: ``rotate`` makes a new one
and lets the others end later. ``Keyring`` answers from memory, looks at the table at most once a second, and knows
what it knew last while the database is away.
"""

import hmac
import re
import secrets as entropy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from infra import tables
from infra.clock import Clock
from infra.database import reading, writing
from infra.errors import BadInput, NotFound
from infra.randomness import digest
from infra.secrets import CONNECTION, Secrets
from ingestion.audit import record
from ingestion.http.rates import Rate, parse_rate
from ingestion.http.redirects import REDIRECT
from ingestion.loops import load_loops

SCOPES = ("rank", "events", "signed", "content", "admin")
"""rank: choose, score, activate, trace. events: send events and feedback, suppress customers. signed: send events that
carry a token of ``/v1/rank``, for keys that the public can read. content: register copy, read results. admin: approve,
define loops, retrain, promote, kill."""

DEFAULT_RATE = "2000/second"

_KEY = re.compile(r"rl_([a-p]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Caller:
    """Who calls. ``loops``: what the key is limited to; empty: all."""

    key_id: str
    name: str
    scopes: frozenset[str]
    loops: frozenset[str]
    rate: Rate
    expires_at: int | None
    hash: str


def create_key(
    connection: Connection,
    secrets: Secrets,
    name: str,
    scopes: Sequence[str],
    loops: Sequence[str],
    rate: str,
    now: int,
    actor: str = "cli",
) -> str:
    """Make a key and return it: it cannot be shown again. Raises :class:`BadInput`."""
    _check(connection, secrets, name, scopes, loops, rate)
    key_id = entropy.token_hex(16).translate(_LETTERS)[:12]
    secret = entropy.token_urlsafe(32)
    row = {
        "key_id": key_id,
        "name": name,
        "hash": _hash(secrets, key_id, secret),
        "scopes": sorted(set(scopes)),
        "loops": sorted(set(loops)),
        "rate": rate,
        "created_at": now,
        "state": "active",
    }
    connection.execute(tables.api_keys.insert(), row)
    record(connection, actor, "create_key", name, {"key": key_id, "scopes": row["scopes"], "loops": row["loops"]}, now)
    return f"rl_{key_id}_{secret}"


def rotate_key(connection: Connection, secrets: Secrets, name: str, ends_at: int, now: int, actor: str = "cli") -> str:
    """A new key for a connection; its others end at ``ends_at``. Raises :class:`NotFound` without an active one."""
    active = [row for row in list_keys(connection) if row.name == name and _is_active(row, now)]
    if not active:
        raise NotFound(f"No active key is named {name!r}; make one with rewardloop keys create {name}")
    newest = max(active, key=lambda row: row.created_at)
    keys = tables.api_keys
    sooner = (keys.c.name == name) & ((keys.c.expires_at.is_(None)) | (keys.c.expires_at > ends_at))
    connection.execute(update(keys).where(sooner, keys.c.state == "active").values(expires_at=ends_at))
    ending = {"ending": [row.key_id for row in active], "ends_at": ends_at}
    record(connection, actor, "rotate_key", name, ending, now)
    return create_key(connection, secrets, name, newest.scopes, newest.loops, newest.rate, now, actor)


def revoke_key(connection: Connection, key_id: str, now: int, actor: str = "cli") -> None:
    """End a key at once. Raises :class:`NotFound`."""
    keys = tables.api_keys
    row = connection.execute(select(keys).where(keys.c.key_id == key_id)).one_or_none()
    if row is None:
        raise NotFound(f"No key {key_id!r}; rewardloop keys list shows their ids")
    connection.execute(update(keys).where(keys.c.key_id == key_id).values(state="revoked"))
    record(connection, actor, "revoke_key", row.name, {"key": key_id}, now)


def list_keys(connection: Connection) -> Sequence[Row[Any]]:
    """Every key ever made, by name."""
    keys = tables.api_keys
    return connection.execute(select(keys).order_by(keys.c.name, keys.c.created_at, keys.c.key_id)).all()


def is_public(connection: Connection, name: str) -> bool:
    """Whether a connection had a key that the public can read: what it sent counts with a token only, also when it is
    taken out of quarantine by a person."""
    scopes = connection.scalars(select(tables.api_keys.c.scopes).where(tables.api_keys.c.name == name))
    return any("signed" in each for each in scopes)


class Keyring:
    """The active keys, as ``refresh`` saw them last: while the database is away, keys go on working."""

    def __init__(self, engine: Engine, secrets: Secrets, clock: Clock) -> None:
        self._engine, self._secrets, self._clock = engine, secrets, clock
        self._callers: dict[str, Caller] = {}
        self._used: dict[str, int] = {}

    def find(self, key: str) -> Caller | None:
        """Whose key this is; None: nobody's, or it ended. From memory."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        key_id, secret = match.groups()
        caller, now = self._callers.get(key_id), self._clock()
        proof = _hash(self._secrets, key_id, secret)
        proven = hmac.compare_digest(proof, caller.hash if caller else "0" * len(proof))
        if caller is None or not proven or (caller.expires_at is not None and caller.expires_at <= now):
            return None
        self._used[key_id] = now
        return caller

    def refresh(self) -> None:
        """Look which keys there are, then write down when they were used last. Raises :class:`Unavailable`."""
        with reading(self._engine) as connection:
            rows = list_keys(connection)
        self._callers = {row.key_id: _caller(row) for row in rows if row.state == "active"}
        used, self._used = self._used, {}
        if used:
            with writing(self._engine) as connection:
                for key_id, at in sorted(used.items()):
                    keys = tables.api_keys
                    connection.execute(update(keys).where(keys.c.key_id == key_id).values(last_used_at=at))


def _caller(row: Row[Any]) -> Caller:
    return Caller(
        key_id=row.key_id,
        name=row.name,
        scopes=frozenset(row.scopes),
        loops=frozenset(row.loops),
        rate=_rate(row.rate),
        expires_at=row.expires_at,
        hash=row.hash,
    )


def _is_active(row: Row[Any], now: int) -> bool:
    return row.state == "active" and (row.expires_at is None or row.expires_at > now)


def _hash(secrets: Secrets, key_id: str, secret: str) -> str:
    return digest(secrets.keys(), "api-key", f"{key_id}.{secret}").hex()


def _check(
    connection: Connection, secrets: Secrets, name: str, scopes: Sequence[str], loops: Sequence[str], rate: str
) -> None:
    if name in (*secrets.webhooks, REDIRECT):
        raise BadInput(
            f"{name!r} sends events already, as a webhook or the redirect; give this connection its own name"
        )
    if not re.fullmatch(CONNECTION, name):
        raise BadInput(f"{name!r} cannot name a connection; use up to 64 letters, digits, dots, dashes and underscores")
    if not scopes or (strange := sorted(set(scopes) - set(SCOPES))):
        found = f"no scope {strange[0]!r}" if scopes else "no key without a scope"
        raise BadInput(f"There is {found}; the scopes are {', '.join(SCOPES)}")
    if loops and {"events", "signed"} & set(scopes):
        raise BadInput(
            "Events are about customers, not about a loop, so a key limited to loops cannot send them; make a key for "
            "events alone"
        )
    if unknown := sorted(set(loops) - set(load_loops(connection))):
        raise BadInput(f"There is no loop {unknown[0]!r}; define it first, or correct the name")
    _rate(rate)


def _rate(text: str) -> Rate:
    found = parse_rate(text)
    if found is None:
        raise BadInput(f"{text!r} is no rate; write one like 100/second or 5000/minute")
    return found


_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""Ids without digits that look like letters."""
