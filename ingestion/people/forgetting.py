"""A person deleted everywhere: what the law calls erasure. Said again it changes nothing, so a run that died is repeated.

1. *Nothing more comes in.* The person's hashes, under every secret that is kept, go into ``forgotten_units``: from the
   commit on, facts about them are ignored (``ingestion/store.py``).
2. *The database*, in one transaction and one batch of the ledger: decisions and the events about them
   (``ingestion/people/withdrawing.py``), feedback, quarantined records that speak of them, what the list of the suppressed said.
   Of each decision a mark stays, so that a click that comes late is ignored. The person is suppressed for ever.
3. *The files* below the data folder (``ingestion/people/erasing.py``).
4. *The pages of SQLite* that deleted rows stood on are written anew.

What stays: the hashes in ``forgotten_units`` and ``suppressions``, marks and ``event_keys`` (hashes; without them a replayed
topic would bring everything back), and numbers that are about nobody. Topics hold hashes only, and expire.

A fact that was on its way while step 1 committed may come in behind step 2: :func:`forget_again` takes it, and whatever a
back-up brought back.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from contextlib import suppress as ignoring
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Text, delete, or_, select, type_coerce, update

from infra.database import canonical_json, chunks, insert_once, lock_join, reading, search_by_keys, writing
from infra.errors import BadInput, Unavailable
from infra.secrets import Secrets
from infra.tables import batches, feedback, forgotten_units, quarantine
from ingestion import audit
from ingestion.fields import can_name
from ingestion.join.backfill import rescore
from ingestion.ledger import Counts, newest_batch, record_batch
from ingestion.loops import load_loops
from ingestion.people.erasing import Erased, erase
from ingestion.people.mentions import Mentions
from ingestion.people.suppressions import keep_forgotten
from ingestion.people.withdrawing import decisions_of, units_with_rows, withdraw
from ingestion.quarantine import held_with_bytes, release

GONE = "The customer of this record was forgotten"
"""Reason, from then on, of quarantined records that spoke of the person."""
MOST = 100
"""Most ids of one person, or persons at once."""
_MARK = "d:"


class Forgotten(msgspec.Struct, kw_only=True):
    """What was deleted. ``left``: files that speak of the person and that rows cannot be taken out of, with the reason."""

    decisions: int = 0
    events: int = 0
    quarantined: int = 0
    feedback: int = 0
    rows: int = 0
    """Rows of files."""
    files: int = 0
    """Files that had such rows."""
    left: dict[str, str] = {}


class _Undone(Exception):
    """Ends the transaction of a dry run."""


def forget(
    engine: Engine,
    secrets: Secrets,
    users: Sequence[str],
    now: int,
    *,
    home: Path,
    also: Sequence[Path] = (),
    actor: str = "cli",
    dry_run: bool = False,
) -> Forgotten:
    """Delete the persons who are known by these ids. ``also``: further files and folders to look through.

    Raises :class:`BadInput` for what is no id, ``Unavailable`` when the database is away: say it again then.
    """
    if not 0 < len(users) <= MOST or not all(map(can_name, users)):
        raise BadInput(f"Give 1 to {MOST} ids of customers, each a text of 1 to 256 characters")
    units = sorted({unit for user in users for unit in secrets.every_unit(user)})
    if not dry_run:
        with writing(engine) as connection:
            insert_once(connection, forgotten_units, [{"unit": unit, "forgotten_at": now} for unit in units])
    found = Forgotten()
    with ignoring(_Undone), writing(engine) as connection:
        _forget_rows(connection, secrets, users, units, now, actor, found)
        if dry_run:
            raise _Undone
    with reading(engine) as connection:
        mentions = Mentions(secrets, users, units, _marks(connection))
    _note(found, erase(mentions, home, also, dry_run))
    if not dry_run:
        _clear_pages(engine)
    return found


def forget_again(engine: Engine, secrets: Secrets, now: int, actor: str = "flow") -> Forgotten:
    """Delete from the database what came in about forgotten persons since: late facts, and what a back-up held."""
    found = Forgotten()
    with reading(engine) as connection:
        units = [unit for unit in connection.scalars(select(forgotten_units.c.unit)) if not unit.startswith(_MARK)]
        due = sorted(units_with_rows(connection, units))
    for unit in due:
        with writing(engine) as connection:
            _forget_rows(connection, secrets, (), [unit], now, actor, found)
    if due:
        _clear_pages(engine)
    return found


def _forget_rows(
    connection: Connection,
    secrets: Secrets,
    users: Sequence[str],
    units: Sequence[str],
    now: int,
    actor: str,
    found: Forgotten,
) -> None:
    """Step 2. ``found`` is told."""
    _overwrite(connection)
    search_by_keys(connection)
    lock_join(connection)
    batch_no = newest_batch(connection) + 1
    rules = {loop_id: definition for loop_id, (definition, _) in load_loops(connection).items()}
    marks = [secrets.mark(one) for one in decisions_of(connection, units)]
    insert_once(connection, forgotten_units, [{"unit": mark, "forgotten_at": now} for mark in marks])
    gone = withdraw(connection, rules, units, batch_no)
    mentions = Mentions(secrets, users, units, _marks(connection))
    records = _forget_records(connection, secrets, mentions)
    opinions = _forget_feedback(connection, mentions)
    _unname_ledger(connection, mentions)
    keep_forgotten(connection, units, now)
    if gone.pending or gone.events or gone.decisions or records:
        record_batch(connection, batch_no, now, Counts(left_pending=gone.pending, left_quarantine=records))
    for loop_id in gone.unsettled:
        rescore(connection, rules[loop_id], now)
    found.decisions += len(gone.decisions)
    found.events += gone.events
    found.quarantined += records
    found.feedback += opinions
    counts = {"decisions": len(gone.decisions), "events": gone.events, "quarantined": records, "feedback": opinions}
    audit.record(connection, actor, "forget", "customer", counts, now)


def _forget_records(connection: Connection, secrets: Secrets, mentions: Mentions) -> int:
    """Quarantined records that speak of the person lose bytes and reason; returns how many were still held.

    Bytes can be read only at the position they were put away under, so a record whose position names the person loses
    them too.
    """
    named = _named_records(connection, mentions)
    speaking = {
        record.id
        for record in held_with_bytes(connection, secrets)
        if record.raw is not None and mentions.meant(record.raw)
    }
    due = sorted(speaking | named)
    held = sum(release(connection, some, "dropped") for some in chunks(due, 500))
    for some in chunks(due, 500):
        connection.execute(update(quarantine).where(quarantine.c.id.in_(some)).values(reason=GONE, raw=None))
    for id_ in sorted(named):
        connection.execute(update(quarantine).where(quarantine.c.id == id_).values(position=f"forgotten/{id_}"))
    return held


def _named_records(connection: Connection, mentions: Mentions) -> set[int]:
    """Records whose position or reason names the person."""
    c = quarantine.c
    named = or_(*(_contains(column, mentions) for column in (c.reason, c.position)))
    rows = connection.execute(select(c.id, c.position, c.reason).where(or_(named, c.position.startswith("conflict/"))))
    return {
        id_
        for id_, position, reason in rows
        if mentions.named(f"{position} {reason}".encode()) or mentions.decided(position.split("/", 2)[-1])
    }


def _forget_feedback(connection: Connection, mentions: Mentions) -> int:
    """What was said about the person's decisions, and what names the person."""
    due = [
        row.feedback_id
        for row in connection.execute(select(feedback))
        if (row.decision_id is not None and mentions.decided(row.decision_id))
        or mentions.named(canonical_json([row.feedback_id, row.decision_id, row.value]))
    ]
    for some in chunks(due, 500):
        connection.execute(delete(feedback).where(feedback.c.feedback_id.in_(some)))
    return len(due)


def _unname_ledger(connection: Connection, mentions: Mentions) -> None:
    """Reasons in the ledger may quote an id; their counts stay."""
    for row in connection.execute(
        select(batches.c.batch_no, batches.c.reasons).where(_contains(batches.c.reasons, mentions))
    ).all():
        reasons: Mapping[str, Mapping[str, int]] = row.reasons
        told: dict[str, dict[str, int]] = {}
        for state, counts in reasons.items():
            told[state] = {}
            for reason, count in counts.items():
                plain = mentions.without(reason.encode()).decode()
                told[state][plain] = told[state].get(plain, 0) + count
        connection.execute(update(batches).where(batches.c.batch_no == row.batch_no).values(reasons=told))


def _contains(column: Any, mentions: Mentions) -> Any:
    return or_(*(type_coerce(column, Text).contains(word, autoescape=True) for word in mentions.words))


def _marks(connection: Connection) -> Collection[str]:
    return set(connection.scalars(select(forgotten_units.c.unit).where(forgotten_units.c.unit.startswith(_MARK))))


def _note(found: Forgotten, erased: Erased) -> None:
    found.rows, found.files, found.left = erased.rows, erased.files, erased.left


def _overwrite(connection: Connection) -> None:
    """On SQLite, what is deleted from here on is overwritten with zeros."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _clear_pages(engine: Engine) -> None:
    """Write the whole of a SQLite file anew, and empty its log: earlier copies of deleted rows are nowhere any more. On
    PostgreSQL its own VACUUM gives the space away, and its log expires."""
    if engine.dialect.name != "sqlite":
        return
    with closing(engine.raw_connection()) as connection:
        try:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.cursor().execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"The rows are deleted, but the file of the database is in use and was not written anew ({error}); say it "
                "again when there is less to do"
            ) from None
