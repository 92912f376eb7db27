"""The database against the ledger: what is lost, doubled, made up or joined wrongly, and one digest of all the join made.

*lost*: confirmed by the broker and not in the store. *doubled*: counted more often than sent. *phantom*: in the store
and never sent. *mis-joined*: attributed to another decision, or counted as another value, than the oracle says.
*altered*: stored with another body than the one sent first. *unaccounted*: records that the batches' counts miss or
count twice (invariant 1). Each is a list of sentences, so that a failure names the records.

Between intent and acknowledgement a record may be in the store or not; the oracle is asked about what is there.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, FromClause, select

from infra import tables
from infra.database import canonical_json, reading
from infra.secrets import Secrets
from ingestion.events import Decision, Event, Label
from ingestion.ledger import STATES
from ingestion.quarantine import CONFLICT, show
from tests.ingestion.oracle import Truth, World
from tests.stack.faults.ledger import Line, read_ledger
from tests.stack.faults.world import LOOPS

Fact = Decision | Event
Id = tuple[str, ...]
"""("decision", decision_id) or ("event", source, event_id)."""

_ATTRIBUTED = (
    select(tables.events.c.source, tables.events.c.event_id, *list(tables.attributions.c)[1:])
    .join_from(tables.attributions, tables.events, tables.events.c.event_no == tables.attributions.c.event_no)
    .subquery("attributions")
)
"""Attributions by the names of their events: numbers depend on who came first."""

_KEYS_AND_VALUES: dict[FromClause, str] = {
    _ATTRIBUTED: "source event_id loop_id method decision_id",
    tables.outcomes: "decision_id content_id metric metric_version value count first_at last_at",
    tables.content_stats: "campaign_id content_id metric model_version bucket "
    "exposures successes sum sum_squares sum_squares_high expected",
}
JOINED = tuple((table, tuple(names.split())) for table, names in _KEYS_AND_VALUES.items())
"""What the join made, by its columns, the key first: the oracle's rows are in this order, and the digest is over them."""
_KEYS = (("attributions", 3), ("outcomes", 4), ("content_stats", 5))
"""Names of what the join made, and how many of the columns are the key."""

_DECIDED = ("loop_id", "campaign_id", "unit", "group", "chosen", "deferred", "decided_at")
_MEANING = "type decision_id content_id position value_micros currency fact_key reverses occurred_at"
_SEMANTIC = tuple(_MEANING.split())
_HAPPENED = (*_SEMANTIC, "link", "unit", "unit_before")


@dataclass
class Verdict:
    """What is wrong, in sentences; nothing is, if all are empty."""

    records: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    misjoined: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def wrong(self) -> list[str]:
        """Every complaint, the kind before it."""
        kinds = ("lost", "doubled", "phantom", "misjoined", "altered", "unaccounted")
        return [f"{kind}: {sentence}" for kind in kinds for sentence in getattr(self, kind)]


def check(engine: Engine, ledger: Path, secrets: Secrets, *, read: int | None = None) -> Verdict:
    """Compare. ``read``: how many records the batches must have read in all; None: not known."""
    sent = _Sent.of(read_ledger(ledger))
    verdict = Verdict(records=sent.records)
    present = _check_facts(engine, sent, verdict)
    _check_quarantine(engine, secrets, sent, verdict)
    _check_join(engine, present, verdict)
    _check_counts(engine, read, verdict)
    verdict.digest = digest(engine)
    return verdict


def digest(engine: Engine) -> str:
    """SHA-256 of attributions, outcomes and content statistics: equal means identical, row for row."""
    return hashlib.sha256(canonical_json([_rows(engine, table, names) for table, names in JOINED])).hexdigest()


@dataclass
class _Sent:
    """The ledger, read: the first body of every fact, those that came after it with another, and what is unusable."""

    facts: dict[Id, Fact] = field(default_factory=dict)
    confirmed: set[Id] = field(default_factory=set)
    conflicts: dict[tuple[Id, str], bool] = field(default_factory=dict)
    labels: set[tuple[str, str, str]] = field(default_factory=set)
    ignored: int = 0
    unusable: Counter[bytes] = field(default_factory=Counter)
    unusable_confirmed: Counter[bytes] = field(default_factory=Counter)
    records: int = 0

    @classmethod
    def of(cls, lines: Iterable[Line]) -> "_Sent":
        sent = cls()
        for line in lines:
            sent.records += 1
            sent._take(line)
        return sent

    def _take(self, line: Line) -> None:
        fact = line.sending.fact
        if line.sending.ignored:
            self.ignored += 1
            return
        if fact is None:
            value = line.sending.value or b""
            self.unusable[value] += 1
            self.unusable_confirmed[value] += line.acknowledged
            return
        id_ = _id(fact)
        first = self.facts.setdefault(id_, fact)
        if _body(first) == _body(fact):
            self.confirmed |= {id_} if line.acknowledged else set()
            if isinstance(fact, Event):
                self.labels.update((fact.source, fact.event_id, label) for label in line.sending.labels)
        else:
            key = (id_, _body(fact))
            self.conflicts[key] = self.conflicts.get(key, False) or line.acknowledged


def _check_facts(engine: Engine, sent: _Sent, verdict: Verdict) -> World:
    """Facts stored, against facts sent; returns the world the store should have joined."""
    stored = dict(_stored(engine))
    verdict.lost += [f"{' '.join(id_)} was confirmed and is not stored" for id_ in sent.confirmed - stored.keys()]
    verdict.phantom += [f"{' '.join(id_)} is stored and was never sent" for id_ in stored.keys() - sent.facts.keys()]
    world = World(LOOPS)
    for id_ in stored.keys() & sent.facts.keys():
        fact, row = sent.facts[id_], stored[id_]
        if row["batch_no"] is None:
            verdict.lost.append(f"{' '.join(id_)} is stored, but no batch counts it")
        if differing := [name for name, value in _meant(fact).items() if row[name] != value]:
            verdict.altered.append(f"{' '.join(id_)} has another {', '.join(differing)} than was sent first")
        if isinstance(fact, Decision):
            world.decisions[fact.decision_id] = fact
        else:
            world.events[fact.source, fact.event_id] = fact
    _check_keys(engine, world, verdict)
    _check_labels(engine, sent, world, verdict)
    return world


def _check_keys(engine: Engine, world: World, verdict: Verdict) -> None:
    with reading(engine) as connection:
        rows = connection.execute(select(tables.event_keys.c.source, tables.event_keys.c.id_hash))
        kept = {(row.source, row.id_hash) for row in rows}
    due = {(source, hashlib.sha256(event_id.encode()).hexdigest()[:32]): event_id for source, event_id in world.events}
    verdict.lost += [f"the key of event {due[key]} is not kept" for key in due.keys() - kept]
    verdict.phantom += [f"a key of {key[0]} is kept for an event that is not stored" for key in kept - due.keys()]


def _check_labels(engine: Engine, sent: _Sent, world: World, verdict: Verdict) -> None:
    table = tables.event_labels
    with reading(engine) as connection:
        rows = connection.execute(select(table.c.source, table.c.event_id, table.c.label).where(table.c.applies)).all()
    said = {tuple(row) for row in rows}
    due = {label for label in sent.labels if label[:2] in world.events}
    verdict.lost += [f"label {label[2]} of event {label[1]} is not stored" for label in due - said]
    verdict.phantom += [f"label {label[2]} of event {label[1]} was never said" for label in said - due]
    world.labels = [
        Label(source=source, event_id=event_id, label=label, labelled_at=0) for source, event_id, label in due
    ]


def _check_quarantine(engine: Engine, secrets: Secrets, sent: _Sent, verdict: Verdict) -> None:
    with reading(engine) as connection:
        ids = list(connection.scalars(select(tables.quarantine.c.id).where(tables.quarantine.c.state == "held")))
    held = [show(engine, secrets, id_) for id_ in ids]
    places = Counter((record.source, record.position, record.raw) for record in held)
    verdict.doubled += [f"quarantine holds {place[1]} {n} times" for place, n in places.items() if n > 1]
    conflicts = {_conflict(record.raw) for record in held if record.position.startswith(CONFLICT)}
    verdict.lost += [
        f"another body of {' '.join(id_)} was confirmed and is not in quarantine"
        for (id_, body), confirmed in sent.conflicts.items()
        if confirmed and (id_, body) not in conflicts
    ]
    verdict.phantom += [
        f"quarantine holds a body of {' '.join(id_)} that was never sent"
        for id_, body in conflicts
        if (id_, body) not in sent.conflicts
    ]
    raw = Counter(record.raw or b"" for record in held if not record.position.startswith(CONFLICT))
    for value in raw | sent.unusable:
        name = f"the record {value[:60]!r}"
        if raw[value] < sent.unusable_confirmed[value]:
            verdict.lost.append(
                f"{name} was sent {sent.unusable_confirmed[value]} times, {raw[value]} are in quarantine"
            )
        elif value not in sent.unusable:
            verdict.phantom.append(f"{name} is in quarantine and was never sent as unusable")
        elif raw[value] > sent.unusable[value]:
            verdict.doubled.append(f"{name} was sent {sent.unusable[value]} times, {raw[value]} are in quarantine")


def _check_join(engine: Engine, world: World, verdict: Verdict) -> None:
    truth = truth_of(world)
    expected = (truth.attributions, truth.outcomes, truth.content_stats)
    for (name, size), (table, names), due in zip(_KEYS, JOINED, expected, strict=True):
        found = {row[:size]: row for row in _rows(engine, table, names)}
        wanted = {row[:size]: row for row in due}
        counted = next((names.index(word) for word in ("count", "exposures") if word in names), None)
        for key in found.keys() | wanted.keys():
            _compare(verdict, name, key, found.get(key), wanted.get(key), counted)


def _compare(verdict: Verdict, table: str, key: Id, found: Any, wanted: Any, counted: int | None) -> None:
    what = f"{table} {' '.join(map(str, key))}"
    if found == wanted:
        return
    if found is None:
        verdict.misjoined.append(f"{what} is missing; it should be {wanted}")
    elif wanted is None:
        verdict.phantom.append(f"{what} should not be there: {found}")
    elif counted is not None and found[counted] > wanted[counted]:
        verdict.doubled.append(f"{what} counts {found[counted]} times instead of {wanted[counted]}")
    else:
        verdict.misjoined.append(f"{what} is {found} instead of {wanted}")


def _check_counts(engine: Engine, read: int | None, verdict: Verdict) -> None:
    with reading(engine) as connection:
        lines = connection.execute(select(tables.batches).order_by(tables.batches.c.batch_no)).mappings().all()
        attributed = set(connection.scalars(select(tables.attributions.c.event_no)))
        stored = set(connection.scalars(select(tables.events.c.event_no)))
    for line in lines:
        if line["read"] != sum(line[state] for state in STATES):
            verdict.unaccounted.append(f"batch {line['batch_no']} read {line['read']} records and names another number")
    by_ledger = sum(line["pending"] + line["became_pending"] - line["left_pending"] for line in lines)
    by_store = len(stored - attributed)
    if by_ledger != by_store:
        verdict.unaccounted.append(f"{by_ledger} events are pending by the batches, {by_store} by the tables")
    total = sum(line["read"] for line in lines)
    if read is not None and total != read:
        verdict.unaccounted.append(f"the batches read {total} records, the log held {read}")


def truth_of(world: World) -> Truth:
    """What the oracle says of a world, customer by customer."""
    attributions: list[Any] = []
    outcomes: list[Any] = []
    sums: dict[Any, list[int]] = {}
    for part in _customers(world):
        truth = part.truth()
        attributions += truth.attributions
        outcomes += truth.outcomes
        for row in truth.content_stats:
            total = sums.setdefault(row[:5], [0] * 6)
            total[:] = [old + new for old, new in zip(total, row[5:], strict=True)]
    return Truth(sorted(attributions), sorted(outcomes), sorted((*key, *row) for key, row in sums.items()))


def _customers(world: World) -> Iterator[World]:
    """The world cut into its customers, who share nothing: ids carry the customer's name."""
    parts: dict[str, World] = defaultdict(lambda: World(LOOPS))
    for decision_id, decision in world.decisions.items():
        parts[_name(decision_id)].decisions[decision_id] = decision
    for key, event in world.events.items():
        parts[_name(event.event_id)].events[key] = event
    for label in world.labels:
        parts[_name(label.event_id)].labels.append(label)
    yield from parts.values()


def _name(id_: str) -> str:
    return id_.split("-", 1)[1].rsplit("-", 1)[0]


def _rows(engine: Engine, table: FromClause, names: Iterable[str]) -> list[tuple[Any, ...]]:
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(select(*(table.c[name] for name in names))))


def _stored(engine: Engine) -> Iterator[tuple[Id, Mapping[Any, Any]]]:
    with reading(engine) as connection:
        for row in connection.execute(select(tables.decisions)).mappings():
            yield ("decision", row["decision_id"]), row
        for row in connection.execute(select(tables.events)).mappings():
            yield ("event", row["source"], row["event_id"]), row


def _meant(fact: Fact) -> dict[str, Any]:
    return _fields(fact, _DECIDED if isinstance(fact, Decision) else _HAPPENED)


def _id(fact: Fact) -> Id:
    if isinstance(fact, Decision):
        return "decision", fact.decision_id
    return "event", fact.source, fact.event_id


def _body(fact: Fact) -> str:
    """What tells two bodies under one id apart."""
    names = _SEMANTIC if isinstance(fact, Event) else _DECIDED
    return hashlib.sha256(canonical_json(_fields(fact, names))).hexdigest()


def _fields(fact: Fact, names: Iterable[str]) -> dict[str, Any]:
    document = msgspec.json.decode(msgspec.json.encode(fact))
    return {name: document[name] for name in names}


def _conflict(raw: bytes | None) -> tuple[Id, str]:
    """The fact a quarantined conflict holds."""
    document = msgspec.json.decode(raw or b"{}")
    type_: type[Decision] | type[Event] = Decision if "request_digest" in document else Event
    fact = msgspec.convert(document, type_)
    return _id(fact), _body(fact)
