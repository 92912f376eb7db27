"""Imports of files: past experiments and reports become facts through ``store.apply``, as live events do.

Order: 1 check mapping against header, 2 define the loop and open the import, 3 per chunk of rows: decode, apply in
one short transaction, 4 remember how far it got, 5 close the import. A crash between 3 and 4 applies one chunk
again, which changes nothing: ids are made of the import's name and the row number. A run that was cut off goes on
where it stopped; a run of a finished import reads everything again and finds only duplicates.
"""

import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, select, update

from infra import tables
from infra.clock import HOUR, Clock
from infra.database import chunks, reading, writing
from infra.errors import Conflict
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import NO_SEND, Batch, Campaign, Content, Rejected
from ingestion.files.mappings import DecisionsMapping, Mapping, ResultsMapping, check_columns, check_times
from ingestion.files.rows import Decode, Edge, PastDecision, PastResult, Unreadable, decoder, source_of
from ingestion.files.tables import TableFile, file_digest, open_table, raw_row
from ingestion.loops import define

CHUNK = 4_000
"""Rows per transaction."""


@dataclass
class Tally:
    """In which state the rows ended. A row is in exactly one."""

    applied: int = 0
    duplicate: int = 0
    ignored: int = 0
    quarantined: int = 0

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.applied + self.duplicate + self.ignored + self.quarantined


@dataclass
class Complaint:
    """Why rows were rejected: how many, the first of them, and what was said about it."""

    rows: int
    first_row: int
    example: str


@dataclass
class Report:
    """What an import (or its dry run) found. In a dry run ``applied`` counts the rows recognised."""

    name: str
    loop: str
    kind: str
    tally: Tally = field(default_factory=Tally)
    resumed_at: int = 0
    """Rows that an earlier, interrupted run had done."""
    events: int = 0
    complaints: dict[str, Complaint] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """What an import needs of the installation."""

    engine: Engine
    secrets: Secrets
    settings: Settings
    clock: Clock


OnProgress = Callable[[int, int], None]
"""Told after every chunk: how much of the file is behind us, of how much."""


@dataclass
class _Chunk:
    rows: int
    decisions: list[PastDecision] = field(default_factory=list)
    results: list[PastResult] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    ignored: int = 0


def dry_run(importer: Importer, mapping: Mapping, path: Path, on_progress: OnProgress = lambda *_: None) -> Report:
    """Read and decode everything, store nothing. Raises :class:`BadInput` for a wrong column."""
    report = Report(mapping.name, mapping.loop.loop, mapping.kind)
    with open_table(path) as table:
        check_columns(mapping, table.columns)
        check_times(mapping, importer.clock())
        decode = decoder(mapping, table.columns, _edge(importer, loop_version=1))
        for chunk in _read(table, decode, mapping.name, 0):
            _note(report, chunk)
            report.tally.applied += len(chunk.decisions) + len(chunk.results)
            report.tally.quarantined += len(chunk.rejected)
            on_progress(table.position(), table.size)
    return report


def run_import(importer: Importer, mapping: Mapping, path: Path, on_progress: OnProgress = lambda *_: None) -> Report:
    """Import the file, in the order of the module docstring. At least once; a repeated row changes nothing.

    Raises :class:`BadInput` for a wrong column and :class:`Conflict` when the name belongs to another file or
    mapping; then nothing was written.
    """
    digest = file_digest(path)
    with open_table(path) as table:
        check_columns(mapping, table.columns)
        check_times(mapping, importer.clock())
        loop_version, done = _open_import(importer, mapping, digest)
        report = Report(mapping.name, mapping.loop.loop, mapping.kind, resumed_at=done)
        decode = decoder(mapping, table.columns, _edge(importer, loop_version))
        for chunk in _read(table, decode, mapping.name, done):
            with _collector_paused():
                _apply(importer, mapping, chunk, report)
            done += chunk.rows
            _remember(importer, mapping.name, done, report.tally)
            on_progress(table.position(), table.size)
    _close_import(importer, mapping.name)
    return report


def _edge(importer: Importer, loop_version: int) -> Edge:
    settings = importer.settings
    return Edge(
        secrets=importer.secrets,
        loop_version=loop_version,
        now=importer.clock(),
        skew=settings.clock_skew_hours * HOUR,
        text_limit=settings.text_limit_bytes,
    )


def _read(table: TableFile, decode: Decode, name: str, done: int) -> Iterator[_Chunk]:
    numbered = islice(enumerate(table.rows, start=1), done, None)
    while rows := list(islice(numbered, CHUNK)):
        with _collector_paused():
            chunk = _decode_chunk(rows, decode, source_of(name))
        yield chunk


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A chunk makes a hundred thousand objects and no cycles: looking for some costs a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _decode_chunk(rows: Sequence[tuple[int, list[str]]], decode: Decode, source: str) -> _Chunk:
    chunk = _Chunk(len(rows))
    for number, cells in rows:
        try:
            fact = decode(number, cells)
        except Unreadable as fault:
            chunk.rejected.append(Rejected(source=source, position=str(number), reason=str(fault), raw=raw_row(cells)))
            continue
        if fact is None:
            chunk.ignored += 1
        elif isinstance(fact, PastDecision):
            chunk.decisions.append(fact)
        else:
            chunk.results.append(fact)
    return chunk


def _apply(importer: Importer, mapping: Mapping, chunk: _Chunk, report: Report) -> None:
    if isinstance(mapping, DecisionsMapping):
        batch = _decisions_batch(importer, mapping, chunk)
    else:
        batch = _results_batch(importer.engine, mapping, chunk)
    batch = msgspec.structs.replace(
        batch,
        rejected=tuple(chunk.rejected),
        ignored={"left out by the mapping": chunk.ignored} if chunk.ignored else {},
    )
    days = importer.settings.quarantine_days
    applied = store.apply(importer.engine, batch, importer.secrets, importer.clock(), quarantine_days=days)
    states = Counter("rejected" if isinstance(state, Rejected) else state for state in applied.events)
    duplicate = applied.duplicate - states["duplicate"]
    quarantined = applied.quarantined - states["rejected"]
    forgotten = applied.ignored - chunk.ignored - states["ignored"] - states["sealed"]
    _note(report, chunk)
    report.tally.duplicate += duplicate
    report.tally.quarantined += quarantined
    report.tally.ignored += forgotten
    report.tally.applied += chunk.rows - chunk.ignored - forgotten - duplicate - quarantined


def _decisions_batch(importer: Importer, mapping: DecisionsMapping, chunk: _Chunk) -> Batch:
    campaign = _past_campaign(mapping, importer.clock())
    contents = [
        _candidate(mapping, spec, campaign.created_at) for spec in mapping.candidates if spec.content != NO_SEND
    ]
    with reading(importer.engine) as connection:
        known = _known_campaigns(connection, mapping.loop.loop, [campaign.campaign_id])
        ids = _existing(connection, tables.contents.c.content_id, [content.content_id for content in contents])
    return Batch(
        campaigns=() if campaign.campaign_id in known else (campaign,),
        contents=tuple(content for content in contents if content.content_id not in ids),
        decisions=tuple(past.decision for past in chunk.decisions),
        events=tuple(event for past in chunk.decisions for event in past.events),
    )


def _results_batch(engine: Engine, mapping: ResultsMapping, chunk: _Chunk) -> Batch:
    """Copy that the campaign knows already keeps its id, whatever id a row gives it: equal copy is one content."""
    wanted = {past.content.campaign_id: past.content.created_at for past in chunk.results}
    with reading(engine) as connection:
        campaigns = _known_campaigns(connection, mapping.loop.loop, list(wanted))
        by_copy = _known_copy(connection, list(wanted))
        named = [past.content.content_id for past in chunk.results if past.named]
        taken = _existing(connection, tables.contents.c.content_id, named)
    new: dict[str, Content] = {}
    results = []
    for past in chunk.results:
        content = past.content
        copy = (content.campaign_id, past.fingerprint)
        if copy not in by_copy:
            if content.content_id in taken or content.content_id in new:
                content = _renamed(content)
            by_copy[copy] = content.content_id
            new[content.content_id] = content
        results.append(msgspec.structs.replace(past.result, content_id=by_copy[copy]))
    return Batch(
        campaigns=tuple(
            Campaign(campaign_id=name, loop_id=mapping.loop.loop, channel=mapping.channel, state="ended", created_at=at)
            for name, at in wanted.items()
            if name not in campaigns
        ),
        contents=tuple(new.values()),
        results=tuple(results),
    )


def _renamed(content: Content) -> Content:
    """The content under an id that no other copy has: a file may give one id to two texts."""
    return msgspec.structs.replace(content, content_id=f"{content.content_id[:200]}/{content.fingerprint[:16]}")


def _past_campaign(mapping: DecisionsMapping, now: int) -> Campaign:
    ids = sorted(spec.content for spec in mapping.candidates)
    baseline = {"version": 1, "kind": "uniform", "content_ids": ids, "weights": [1 / len(ids)] * len(ids)}
    spec = mapping.campaign
    return Campaign(
        campaign_id=spec.id,
        loop_id=mapping.loop.loop,
        brief=spec.brief,
        channel=spec.channel,
        baseline=baseline,
        state="ended",
        created_at=now,
    )


def _candidate(mapping: DecisionsMapping, spec: Any, now: int) -> Content:
    return Content(
        content_id=spec.content,
        campaign_id=mapping.campaign.id,
        slots=spec.slots,
        features=spec.features,
        approval="approved",
        created_at=now,
    )


def _known_campaigns(connection: Connection, loop_id: str, wanted: Sequence[str]) -> set[str]:
    """Those of the campaigns that exist. Raises :class:`Conflict` when one belongs to another loop."""
    known = set()
    for some in chunks(wanted, 500):
        query = select(tables.campaigns.c.campaign_id, tables.campaigns.c.loop_id)
        for row in connection.execute(query.where(tables.campaigns.c.campaign_id.in_(some))):
            if row.loop_id != loop_id:
                raise Conflict(
                    f"Campaign {row.campaign_id!r} belongs to loop {row.loop_id!r}, the mapping feeds {loop_id!r}; "
                    "import into that loop, or rename the campaign in the file"
                )
            known.add(row.campaign_id)
    return known


def _known_copy(connection: Connection, campaigns: Sequence[str]) -> dict[tuple[str, str], str]:
    contents = tables.contents.c
    known = {}
    for some in chunks(campaigns, 500):
        query = select(contents.campaign_id, contents.fingerprint, contents.content_id)
        for row in connection.execute(query.where(contents.campaign_id.in_(some))):
            known[row.campaign_id, row.fingerprint] = row.content_id
    return known


def _existing(connection: Connection, column: Any, wanted: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(wanted, 500):
        found.update(connection.scalars(select(column).where(column.in_(some))))
    return found


def _note(report: Report, chunk: _Chunk) -> None:
    report.tally.ignored += chunk.ignored
    report.events += sum(len(past.events) for past in chunk.decisions)
    for reject in chunk.rejected:
        kind = re.sub(r"'[^']*'|\d[\d.]*", "…", reject.reason)
        complaint = report.complaints.setdefault(kind, Complaint(0, int(reject.position), reject.reason))
        complaint.rows += 1


def _open_import(importer: Importer, mapping: Mapping, digest: str) -> tuple[int, int]:
    """Define the loop, claim the import; returns the loop's version and the rows an interrupted run has done."""
    document = mapping.model_dump(mode="json", by_alias=True)
    with writing(importer.engine) as connection:
        stored = connection.execute(select(tables.imports).where(tables.imports.c.import_id == mapping.name)).first()
        if stored is not None:
            _agree(stored, document, digest)
        now = importer.clock()
        version = define(connection, mapping.loop, f"import:{mapping.name}", now)
        if stored is None:
            connection.execute(
                tables.imports.insert().values(
                    import_id=mapping.name,
                    mapping=document,
                    file_digest=digest,
                    rows_done=0,
                    counts={},
                    state="running",
                    started_at=now,
                    finished_at=None,
                )
            )
            return version, 0
        if stored.state == "running":
            return version, stored.rows_done
        _set(connection, mapping.name, mapping=document, rows_done=0, counts={}, state="running", started_at=now)
        return version, 0


def _agree(stored: Row[Any], document: dict[str, Any], digest: str) -> None:
    if stored.file_digest != digest:
        raise Conflict(
            f"Import {stored.import_id!r} was made from another file; give this one its own name "
            "(`import = …` in the mapping), its rows are known by it"
        )
    if {**stored.mapping, "loop": None} != {**document, "loop": None}:
        raise Conflict(
            f"Import {stored.import_id!r} was made with another mapping; give this one its own name "
            "(`import = …` in the mapping): facts that are stored never change"
        )


def _remember(importer: Importer, name: str, done: int, tally: Tally) -> None:
    counts = {state: getattr(tally, state) for state in ("applied", "duplicate", "ignored", "quarantined")}
    with writing(importer.engine) as connection:
        _set(connection, name, rows_done=done, counts=counts)


def _close_import(importer: Importer, name: str) -> None:
    with writing(importer.engine) as connection:
        _set(connection, name, state="done", finished_at=importer.clock())


def _set(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(update(tables.imports).where(tables.imports.c.import_id == name).values(**values))
