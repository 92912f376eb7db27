"""Quarantined records through the door again, after what was wrong is mended."""

from collections.abc import Iterable, Iterator

from sqlalchemy import select

from infra.clock import HOUR, format_time
from infra.database import reading
from infra.tables import quarantine as held_records
from ingestion import quarantine, store
from ingestion.decode import Edge, decode_event
from ingestion.events import Event, Rejected
from ingestion.intake import connector_of, take_again
from ingestion.keys import is_public
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.messages import held_record
from ingestion.stream.replay import decode_again
from ingestion.stream.topics import topics
from pipelines.commands.workspace import Workspace

AT_ONCE = 500
"""Records replayed in one transaction."""


def replay(workspace: Workspace, ids: Iterable[int]) -> tuple[tuple[int, ...], dict[int, str]]:
    """Apply these records; returns those applied, and for those that still cannot be used the reason of today."""
    batch, refused = quarantine.replay(workspace.engine, workspace.secrets, ids, lambda held: _decode(workspace, held))
    if batch.replayed:
        store.apply(
            workspace.engine,
            batch,
            workspace.secrets,
            workspace.clock(),
            quarantine_days=workspace.settings.quarantine_days,
        )
    return batch.replayed, refused


def held_now(workspace: Workspace) -> Iterator[list[int]]:
    """Numbers of the records that are held and still have their bytes, oldest first, ``AT_ONCE`` at a time."""
    last = 0
    while True:
        c = held_records.c
        query = select(c.id).where(c.state == "held", c.raw.is_not(None), c.id > last).order_by(c.id).limit(AT_ONCE)
        with reading(workspace.engine) as connection:
            ids = list(connection.scalars(query))
        if not ids:
            return
        yield ids
        last = ids[-1]


def _decode(workspace: Workspace, held: quarantine.Held) -> Event | quarantine.Facts | Rejected:
    """A topic's record again, a vendor's, or a native event; a row of an import is mended in its file instead."""
    raw = held.raw or b""
    if held.source.startswith("import:"):
        reason = "a row of an import is mended in its file; import the mended rows under another import name"
        return Rejected(source=held.source, position=held.position, reason=reason, raw=raw)
    settings = workspace.settings
    record = held_record(held.position, raw)
    if record is not None and record.topic in {topic.name for topic in topics(settings.kafka_topic_prefix).read}:
        return decode_again(record, TopicDecoder(workspace.engine, workspace.secrets, settings, workspace.clock))
    sources = (held.source, *settings.sources)
    with reading(workspace.engine) as connection:
        signed = is_public(connection, held.source)
    edge = Edge(workspace.secrets, sources, workspace.clock(), settings.clock_skew_hours * HOUR, signed)
    if connector_of(held.position):
        return take_again(held.position, raw, edge, format_time(held.created_at))
    return decode_event(raw, edge)
