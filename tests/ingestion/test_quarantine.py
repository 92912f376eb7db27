"""Quarantine: bytes kept encrypted with the reason, until replayed, dropped or expired."""

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import Engine, select, update

from infra import tables
from infra.clock import DAY
from infra.database import reading, writing
from infra.errors import BadInput, NotFound
from infra.secrets import Secrets
from ingestion.events import Batch, Event, Rejected
from ingestion.ledger import conservation
from ingestion.quarantine import Held, drop, expire, list_held, replay, show
from ingestion.store import apply
from tests.ingestion.join.test_join_histories import decision, event

RAW = b'{"type": "click", "secret": "ann@example.org"}'
RECORD = Rejected(source="http", position="item 3", reason="No event_id: give every event its own.", raw=RAW)


def decoded(held: Held) -> Event:
    """The edge, after it learned to read these bytes."""
    assert held.raw == RAW
    return event("found", "click", 5)


def still_refused(held: Held) -> Rejected:
    """The edge, which still cannot read them."""
    return msgspec.structs.replace(RECORD, reason="Still no event_id.")


@pytest.fixture
def held(any_engine: Engine, secrets: Secrets) -> int:
    """Id of one record in quarantine."""
    apply(any_engine, Batch(rejected=(RECORD,)), secrets, 5)
    return list_held(any_engine)[0].id


def test_bytes_come_back_as_they_were(any_engine: Engine, secrets: Secrets, held: int) -> None:
    """Showing a record gives its bytes, source, position and reason; a list gives no bytes."""
    record = show(any_engine, secrets, held)

    assert record.raw == RAW
    assert (record.source, record.position, record.reason) == ("http", "item 3", RECORD.reason)
    assert (record.state, record.created_at, record.expires_at, record.batch_no) == ("held", 5, 5 + 30 * DAY, 1)
    assert list_held(any_engine)[0].raw is None


def test_the_database_holds_no_readable_bytes(any_engine: Engine, held: int) -> None:
    """Bytes are encrypted where they are stored."""
    with reading(any_engine) as connection:
        stored = connection.execute(select(tables.quarantine.c.raw)).scalar_one()
    assert b"ann@example.org" not in stored


def test_bytes_moved_to_another_record_do_not_open(any_engine: Engine, secrets: Secrets, held: int) -> None:
    """The bytes are bound to their source and position."""
    with writing(any_engine) as connection:
        connection.execute(update(tables.quarantine).values(position="item 4"))

    with pytest.raises(InvalidTag):
        show(any_engine, secrets, held)


def test_a_replayed_record_is_applied_and_counted_as_leaving(any_engine: Engine, secrets: Secrets, held: int) -> None:
    """Replay decodes the bytes again; the batch that applies them marks them replayed."""
    batch, refused = replay(any_engine, secrets, [held], decoded)
    applied = apply(any_engine, batch, secrets, 9)

    assert (applied.read, applied.pending, refused) == (1, 1, {})
    assert show(any_engine, secrets, held).state == "replayed"
    assert left_quarantine(any_engine) == [0, 1]
    assert conservation(any_engine) == 0


def test_a_record_still_refused_stays_held(any_engine: Engine, secrets: Secrets, held: int) -> None:
    """Replaying what still cannot be read changes nothing and says why."""
    batch, refused = replay(any_engine, secrets, [held], still_refused)

    assert (batch, refused) == (Batch(), {held: "Still no event_id."})
    assert show(any_engine, secrets, held).state == "held"


def test_a_conflict_can_be_replayed(any_engine: Engine, secrets: Secrets) -> None:
    """A fact that contradicted another is kept as our own JSON, and is quarantined again while the other stands."""
    apply(any_engine, Batch(decisions=(decision("d", 0),)), secrets, 0)
    apply(any_engine, Batch(decisions=(decision("d", 0, request_digest="other"),)), secrets, 0)
    conflict = list_held(any_engine)[0].id

    batch, _ = replay(any_engine, secrets, [conflict], decoded)
    assert batch.decisions == (decision("d", 0, request_digest="other"),)

    assert apply(any_engine, batch, secrets, 0).quarantined == 1
    assert [record.state for record in (show(any_engine, secrets, conflict), list_held(any_engine)[0])] == [
        "replayed",
        "held",
    ]


def test_a_dropped_record_loses_its_bytes_and_is_counted_as_leaving(
    any_engine: Engine, secrets: Secrets, held: int
) -> None:
    """Dropping deletes the bytes, keeps the reason, and writes its own line in the ledger, once."""
    assert (drop(any_engine, [held], 9), drop(any_engine, [held], 9)) == (1, 0)

    record = show(any_engine, secrets, held)
    assert (record.state, record.raw, record.reason) == ("dropped", None, RECORD.reason)
    assert left_quarantine(any_engine) == [0, 1]
    with pytest.raises(BadInput, match="are gone"):
        replay(any_engine, secrets, [held], decoded)


def test_bytes_expire(any_engine: Engine, secrets: Secrets, held: int) -> None:
    """Past their time the bytes are deleted, and not before."""
    assert expire(any_engine, 5 + 30 * DAY - 1) == 0
    assert show(any_engine, secrets, held).raw == RAW

    assert expire(any_engine, 5 + 30 * DAY) == 1
    assert show(any_engine, secrets, held).raw is None


def test_an_unknown_record_is_not_found(any_engine: Engine, secrets: Secrets) -> None:
    """Asking for a record that does not exist says how to list them."""
    with pytest.raises(NotFound, match="No quarantined record 77"):
        show(any_engine, secrets, 77)


def left_quarantine(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        counts = select(tables.batches.c.left_quarantine).order_by(tables.batches.c.batch_no)
        return list(connection.execute(counts).scalars())


def test_a_reason_names_nobody(any_engine: Engine, secrets: Secrets) -> None:
    """Bytes expire, reasons stay: addresses that a reason quotes are taken out of all that is kept, its words are not."""
    reasons = {
        "value 'ann.lee+5@example.org' is not a number": "value '…@…' is not a number",
        "Row 3: to is ann%40example.org, no time": "Row 3: to is …@…, no time",
        "Two: a@b.example, c@d.example": "Two: …@…, …@…",
        "Nothing of the kind": "Nothing of the kind",
    }
    rejected = [msgspec.structs.replace(RECORD, position=f"item {n}", reason=one) for n, one in enumerate(reasons)]
    apply(
        any_engine, Batch(rejected=tuple(rejected), ignored={"track 'ann@example.org' does not count": 2}), secrets, 5
    )
    kept = [record.reason for record in list_held(any_engine)]
    assert sorted(kept) == sorted(reasons.values())
    with reading(any_engine) as connection:
        stored = connection.execute(select(tables.batches.c.reasons, tables.batches.c.ignored)).one()
    assert stored.reasons["quarantined"] == dict.fromkeys(reasons.values(), 1)
    assert stored.reasons["ignored"] == {"track '…@…' does not count": 2}
    assert stored.ignored == 2
    assert conservation(any_engine) == 0
