"""The one door to the ledger: ``apply`` takes a batch of records through one transaction (invariant 4).

1. Insert the facts (``facts.py``): campaigns, contents, decisions, event keys, events, labels, results; in this order,
   sorted by key, each once, under the ``batch_no`` that is next as far as can be seen. What is about a forgotten unit
   is ignored; what is past retention is sealed, and of such an event the key is kept. On SQLite the write lock is held from the start.
2. Take the join lock: from here on one batch at a time, and no fact is inserted any more.
3. Take the next ``batch_no`` and stamp the decisions the API has stored since (those of forgotten units are deleted); and
   this batch's facts again, if another batch took their number meanwhile. Nobody has seen them under it: they are not committed.
4. Rejoin: attributions, outcomes and content statistics of all that the batch touches. Who unsubscribed or complained
   is suppressed.
5. Keep the ledger: quarantine, offsets (only if they still stand where the batch began), the line of the batch.
6. Commit.

At least once in, exactly once counted: a repeated record changes nothing, because its key is stored with its first
committed body; a crash before 6 leaves nothing behind. Two bodies under one id: the first is the fact, the other is
quarantined.
"""

from collections import Counter
from typing import Literal

import msgspec
from sqlalchemy import Connection, Engine, exists, select

from infra.database import lock_join, reading, search_by_keys, writing
from infra.secrets import Secrets
from infra.tables import decisions
from infra.telemetry import (
    batch_seconds,
    counted_decisions,
    joined_events,
    new_events,
    new_labels,
    quarantined,
    read_records,
    records,
    transitions,
)
from ingestion.events import Batch, Rejected
from ingestion.facts import Inserted, insert_facts, sealed_of, stamp
from ingestion.join.attribution import method_of
from ingestion.join.outcomes import EXCLUDING_LABELS
from ingestion.join.rejoin import Facts, Rejoined, rejoin
from ingestion.ledger import STATES, Counts, newest_batch, record_batch, save_offsets, standing, tally
from ingestion.loops import load_loops
from ingestion.people.suppressions import suppress_by_events
from ingestion.quarantine import hold, kind_of, release, unnamed

EventState = Literal["applied", "duplicate", "pending", "ignored", "sealed"] | Rejected
"""What became of one event; Rejected: it contradicts a stored one and is in quarantine."""

FORGOTTEN = "forgotten unit"
"""Why a fact about a customer who asked to be deleted is ignored."""
SEALED = "sealed: past retention"
"""Why a fact is ignored whose decision, order or time is past retention (``ingestion/retention.py``)."""

COMMON_TYPES = ("click", "open", "purchase", "refund", "activation", "unsubscribe", "rating")
"""Types of events that have a metric of their own; a client could invent any number of others."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What ``apply`` did: the line of the ledger, and what became of each event, in the order of the batch."""

    batch_no: int
    read: int
    applied: int
    duplicate: int
    ignored: int
    pending: int
    quarantined: int
    left_pending: int
    became_pending: int
    decisions: int
    events: tuple[EventState, ...]


def apply(engine: Engine, batch: Batch, secrets: Secrets, now: int, *, quarantine_days: int = 30) -> Applied:
    """Apply a batch. An empty one counts the decisions that wait, and without any does nothing.

    Raises :class:`Conflict` when another worker applied these offsets, :class:`Unavailable` when the database is
    away; then nothing was changed.
    """
    if batch == Batch():
        with reading(engine) as connection:
            if not _decisions_wait(connection):
                return _nothing(newest_batch(connection))
    with batch_seconds.time(), writing(engine) as connection:
        search_by_keys(connection)
        seen = standing(connection)
        inserted = insert_facts(connection, batch, seen, secrets)
        lock_join(connection)
        held = standing(connection)
        facts = stamp(connection, batch, inserted, seen, held)
        rules = {loop_id: definition for loop_id, (definition, _) in load_loops(connection).items()}
        rejoined = rejoin(connection, rules, facts)
        told = [*facts.events, *sealed_of(batch, inserted)]
        suppress_by_events(connection, rules, told, facts.decisions, rejoined.left_pending > 0)
        counts, states = keep_ledger(connection, batch, inserted, facts, rejoined, secrets, now, quarantine_days)
    _publish(counts, facts, rejoined)
    return _applied(facts.batch_no, counts, states)


def keep_ledger(
    connection: Connection,
    batch: Batch,
    inserted: Inserted,
    facts: Facts,
    rejoined: Rejoined,
    secrets: Secrets,
    now: int,
    quarantine_days: int,
) -> tuple[Counts, tuple[EventState, ...]]:
    """Step 5: quarantine, offsets and the line of the ledger."""
    left_quarantine = release(connection, batch.replayed, "replayed") if batch.replayed else 0
    conflicts = [state for state in (*inserted.decisions, *inserted.events) if isinstance(state, Rejected)]
    rejected = (*batch.rejected, *conflicts)
    newly_held = hold(connection, secrets, rejected, facts.batch_no, now, quarantine_days)
    numbers = iter(inserted.numbers)
    states: tuple[EventState, ...] = tuple(
        "pending" if state == "applied" and next(numbers) in rejoined.pending else state for state in inserted.events
    )
    words = [
        *(state for state in (*inserted.decisions, *states) if not isinstance(state, Rejected)),
        *("applied" if new else "duplicate" for new in (*inserted.labels, *inserted.results)),
        *("quarantined" if new else "duplicate" for new in newly_held),
    ]
    reasons = [unnamed(record.reason) for record, new in zip(rejected, newly_held, strict=True) if new]
    ignored = Counter({FORGOTTEN: words.count("ignored"), SEALED: words.count("sealed")})
    for reason, count in batch.ignored.items():
        ignored[unnamed(reason)] += count
    counts = Counts(
        read=_read(batch),
        ignored=ignored.total(),
        **tally(word for word in words if word not in ("ignored", "sealed")),
        reasons={"ignored": dict(+ignored), "quarantined": tally(reasons)},
        left_pending=rejoined.left_pending,
        became_pending=rejoined.became_pending,
        left_quarantine=left_quarantine,
        decisions=len(facts.decisions),
    )
    save_offsets(connection, facts.batch_no, batch.offsets)
    record_batch(connection, facts.batch_no, now, counts)
    return counts, states


def _read(batch: Batch) -> int:
    lists = (batch.decisions, batch.events, batch.labels, batch.results, batch.rejected)
    return sum(len(records) for records in lists) + sum(batch.ignored.values())


def _decisions_wait(connection: Connection) -> bool:
    waiting = select(exists().where(decisions.c.batch_no.is_(None)))
    return bool(connection.execute(waiting).scalar_one())


def _nothing(batch_no: int) -> Applied:
    return _applied(batch_no, Counts(), ())


def _applied(batch_no: int, counts: Counts, states: tuple[EventState, ...]) -> Applied:
    return Applied(
        batch_no=batch_no,
        **{state: getattr(counts, state) for state in STATES},
        read=counts.read,
        left_pending=counts.left_pending,
        became_pending=counts.became_pending,
        decisions=counts.decisions,
        events=states,
    )


def _publish(counts: Counts, facts: Facts, rejoined: Rejoined) -> None:
    pending = rejoined.pending
    numbered = zip(facts.numbers, facts.events, strict=True)
    methods = ("none" if number in pending else method_of(event) for number, event in numbered)
    for method, count in Counter(methods).items():
        joined_events.labels(method).inc(count)
    types = (event.type if event.type in COMMON_TYPES else "other" for event in facts.events)
    for type_, count in Counter(types).items():
        new_events.labels(type_).inc(count)
    for label in facts.labels:
        word = label.label if label.label in EXCLUDING_LABELS else "other"
        new_labels.labels(word, str(label.applies).lower()).inc()
    read_records.inc(counts.read)
    for state in STATES:
        records.labels(state).inc(getattr(counts, state))
    for reason, count in counts.reasons["quarantined"].items():
        quarantined.labels(kind_of(reason)).inc(count)
    counted_decisions.inc(counts.decisions)
    transitions.labels("pending", "applied").inc(counts.left_pending)
    transitions.labels("applied", "pending").inc(counts.became_pending)
    transitions.labels("quarantined", "replayed").inc(counts.left_quarantine)
