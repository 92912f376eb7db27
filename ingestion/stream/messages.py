"""What is in a topic record: bytes to a fact, or to the reason why not. Pure, and fast for plain events.

    decode_record(record, place) -> Event | Labelled | Decision | ContentMessage | Ignored | Rejected
    batch_of(decoded, offsets) -> Batch

A value is native JSON or a CloudEvent (``ingestion/cloudevents.py``). Native JSON is read straight into a typed struct
(``shapes.py``). The rules are those of HTTP (``ingestion/rules.py``), but for customers: topics hold unit hashes only.
Nothing is raised for a bad record.

What a decision chose, out of what, is checked by ``ingestion/choices.py``; a message that names a campaign is checked
against the stored ones afterwards, by ``ingestion/stream/definitions.py``.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from infra.broker import Message, Record
from infra.clock import MICROS, format_time
from infra.database import canonical_json
from infra.errors import BadInput
from infra.randomness import SAMPLER
from ingestion import cloudevents
from ingestion.choices import choice_of
from ingestion.cloudevents import BATCH, STRUCTURED, CloudEvent
from ingestion.decode import Edge
from ingestion.events import (
    Batch,
    Campaign,
    Content,
    Decision,
    Event,
    Label,
    Offset,
    Rejected,
    hash_id,
)
from ingestion.loops import LoopDefinition
from ingestion.rules import fault, known_source, moment, named_decision, require, value_micros
from ingestion.stream.shapes import CopyMessage, DecisionMessage, EventMessage, Properties, form_fault
from ingestion.stream.topics import Topics

POLICY_VERSION = "elsewhere"
"""What decisions of the topic name as their policy: the one of the team that made them."""

TOMBSTONE = "tombstone"
EMPTY = "empty value"

_MILLISECOND = 1_000
_EXACT = 10**9 * MICROS
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Ignored(NamedTuple):
    """A record that is not for us, and why."""

    reason: str


class Labelled(NamedTuple):
    """An event with the words said about it."""

    event: Event
    labels: tuple[Label, ...]


class ContentMessage(NamedTuple):
    """A content, not yet admitted by its loop. ``loop``, ``brief`` and ``channel`` are of its campaign, if given."""

    content: Content
    loop: str | None = None
    brief: str | None = None
    channel: str | None = None

    @property
    def campaign(self) -> Campaign | None:
        """The campaign it registers; None when it names no loop."""
        if self.loop is None:
            return None
        content = self.content
        return Campaign(
            campaign_id=content.campaign_id,
            loop_id=self.loop,
            brief=self.brief or "",
            channel=self.channel or "email",
            state="draft",
            created_at=content.created_at,
        )


class Registered(NamedTuple):
    """A content message whose content is stored: nothing is left to apply."""

    content_id: str


Decoded = Event | Labelled | Decision | ContentMessage | Registered | Ignored | Rejected


@dataclass(frozen=True, kw_only=True)
class Place(Edge):
    """What decoding needs besides the record."""

    topics: Topics
    loops: Mapping[str, tuple[LoopDefinition, int]]
    """The definition in force and its version, by loop id."""
    text_limit: int = 20_000
    candidate_limit: int = 500
    record_limit: int = 1_048_576

    @cached_property
    def kinds(self) -> dict[str, int]:
        """By topic, the index in ``_KINDS``."""
        return {topic.name: index for index, topic in enumerate(self.topics.read)}

    @cached_property
    def unit_versions(self) -> tuple[str, ...]:
        """How hashes under the unit secrets of this installation begin."""
        return tuple(f"u{version}:" for version in self.secrets.units)


def decode_record(record: Record, place: Place) -> Decoded:
    """One record of one of the three input topics."""
    if record.value is None:
        return Ignored(TOMBSTONE)
    if not record.value and not _is_binary(record):
        return Ignored(EMPTY)
    try:
        if len(record.value) > place.record_limit:
            raise BadInput(f"The record has {len(record.value)} bytes; the limit is {place.record_limit}")
        if b"u0000" in record.value and _NUL.search(record.value):
            raise BadInput("A text in the record holds the character U+0000; take it out")
        return _kind_of(record, place).read(record, place)
    except BadInput as error:
        return reject(record, place, str(error))
    except msgspec.ValidationError as error:
        return reject(record, place, form_fault(error, _kind_of(record, place).shape))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return reject(record, place, "The record is not readable JSON; send one JSON object in UTF-8 per record")


def reject(record: Record, place: Edge, reason: str) -> Rejected:
    """The record for quarantine. A CloudEvent in binary mode is kept as one in structured mode: bytes alone."""
    raw = record.value or b""
    if _is_binary(record):
        sent_at = _sent_at(record)
        headers = ({"ce_time": sent_at} if sent_at else {}) | _texts(record, "backslashreplace")
        raw = cloudevents.as_structured(headers, raw, "ce_")
    return Rejected(source=place.source, position=position_of(record), reason=reason, raw=raw)


def held_record(position: str, raw: bytes) -> Record | None:
    """The record that a quarantined one was, for :func:`decode_record`; None if it did not come from a topic."""
    where = re.fullmatch(r"([A-Za-z0-9._-]+)/([0-9]+)/([0-9]+)", position)
    if where is None:
        return None
    headers = (("content-type", STRUCTURED.encode()),) if b'"specversion"' in raw else ()
    return Record(where[1], int(where[2]), int(where[3]), -1, None, raw, headers)


def position_of(record: Record) -> str:
    """Where a record was read, for the quarantine."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def batch_of(decoded: Iterable[Decoded], offsets: Sequence[Offset] = (), replayed: Sequence[int] = ()) -> Batch:
    """What one transaction applies."""
    events: list[Event] = []
    decisions: list[Decision] = []
    labels: list[Label] = []
    rejected: list[Rejected] = []
    copy: list[ContentMessage] = []
    ignored: dict[str, int] = {}
    for one in decoded:
        match one:
            case Event():
                events.append(one)
            case Decision():
                decisions.append(one)
            case Labelled():
                events.append(one.event)
                labels.extend(one.labels)
            case Rejected():
                rejected.append(one)
            case Ignored():
                ignored[one.reason] = ignored.get(one.reason, 0) + 1
            case ContentMessage():
                copy.append(one)
    return Batch(
        campaigns=tuple(campaign for one in copy if (campaign := one.campaign) is not None),
        contents=tuple(one.content for one in copy),
        decisions=tuple(decisions),
        events=tuple(events),
        labels=tuple(labels),
        rejected=tuple(rejected),
        ignored=ignored,
        offsets=tuple(offsets),
        replayed=tuple(replayed),
    )


def encode_event(event: Event, topic: str, labels: Iterable[Label] = ()) -> Message:
    """An event as a record of the events topic: what :func:`decode_record` makes the same event of."""
    message = EventMessage(
        event_id=event.event_id,
        type=event.type,
        occurred_at=format_time(event.occurred_at),
        source=event.source,
        decision_id=event.decision_id,
        link=event.link,
        unit=event.unit,
        unit_before=event.unit_before,
        content_id=event.content_id,
        position=event.position,
        value=_units(event.value_micros),
        currency=event.currency,
        fact_key=event.fact_key,
        reverses_key=event.reverses,
        properties=Properties(**event.raw) if event.raw else None,
        labels={label.label: label.reason for label in labels if label.applies} or None,
    )
    key = event.unit or event.decision_id or event.event_id
    return Message(topic, key.encode(), _encode(message))


def _units(micros: int | None) -> float | str | None:
    """Millionths as the number that reads back as the same: a float has no room for the largest."""
    if micros is None or micros < _EXACT:
        return None if micros is None else micros / MICROS
    return f"{micros // MICROS}.{micros % MICROS:06}"


_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(EventMessage)
_decisions = msgspec.json.Decoder(DecisionMessage)
_copy = msgspec.json.Decoder(CopyMessage)


class _Kind(NamedTuple):
    """How the records of a topic are read, and what they are, in words."""

    read: Callable[[Record, Place], Decoded]
    shape: str


def _kind_of(record: Record, place: Place) -> _Kind:
    return _KINDS[place.kinds[record.topic]]


def _read_event(record: Record, place: Place) -> Event | Labelled:
    cloud = _cloud_event(record) if record.headers else None
    if cloud is None:
        return _event(_events.decode(record.value or b""), place)
    document = cloudevents.event_document(cloud, _sent_at(record))
    return _event(msgspec.convert(document, EventMessage), place)


def _read_decision(record: Record, place: Place) -> Decision:
    cloud = _cloud_event(record)
    if cloud is None:
        return _decision(_decisions.decode(record.value or b""), place)
    said = cloud.attributes
    document = cloud.fields | {"decision_id": said.get("rldecisionid", cloud.fields.get("decision_id", said["id"]))}
    document |= {name: said[other] for name, other in (("unit", "rlunit"), ("decided_at", "time")) if other in said}
    return _decision(msgspec.convert({"decided_at": _sent_at(record)} | document, DecisionMessage), place)


def _read_copy(record: Record, place: Place) -> ContentMessage:
    cloud = _cloud_event(record)
    if cloud is None:
        return _content(_copy.decode(record.value or b""), place)
    return _content(msgspec.convert(cloud.fields, CopyMessage), place)


def _cloud_event(record: Record) -> CloudEvent | None:
    """The CloudEvent in the record, in either mode; None for native JSON."""
    headers = _texts(record)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == STRUCTURED:
        return cloudevents.read_structured(record.value or b"")
    if kind.startswith("application/cloudevents"):
        many = "one CloudEvent per record" if kind == BATCH else f"JSON, with the content-type {STRUCTURED}"
        raise BadInput(f"A record of type {kind[:64]!r} is not read here; send {many}")
    return cloudevents.read_binary(headers, record.value or b"", "ce_") if _is_binary(record) else None


def _is_binary(record: Record) -> bool:
    return any(name.lower() == "ce_specversion" for name, _ in record.headers)


def _texts(record: Record, errors: str = "strict") -> dict[str, str]:
    return {name.lower(): (value or b"").decode(errors=errors) for name, value in record.headers}


def _sent_at(record: Record) -> str | None:
    """When the record was written, for CloudEvents without a time."""
    if not 0 <= record.timestamp_ms < 10**14:
        return None
    return format_time(record.timestamp_ms * _MILLISECOND)


def _event(message: EventMessage, place: Place) -> Event | Labelled:
    decision_id, link, position = named_decision(message.decision_id, message.token, message.position, place.secrets)
    reverses = message.reverses_key or (hash_id(message.reverses) if message.reverses else None)
    unit = _known_unit(message.unit, place)
    require(message.type, decision_id, unit, reverses)
    event = Event(
        source=known_source(message.source, place.sources),
        event_id=message.event_id,
        type=message.type,
        occurred_at=moment("occurred_at", message.occurred_at, place.received_at, place.skew),
        received_at=place.received_at,
        decision_id=decision_id,
        link=message.link or link if decision_id else None,
        unit=unit,
        unit_before=message.unit_before,
        content_id=message.content_id,
        position=position,
        value_micros=value_micros(message.value),
        currency=message.currency,
        fact_key=message.fact_key or (hash_id(message.order_id) if message.order_id else None),
        reverses=reverses,
        raw=_kept(message.properties) if message.properties is not None else {},
    )
    return event if message.labels is None else Labelled(event, _labels(message.labels, event))


def _kept(properties: Properties) -> dict[str, Any]:
    kept = msgspec.structs.asdict(properties)
    return {name: value for name, value in kept.items() if value is not UNSET}


def _labels(said: Mapping[str, str], event: Event) -> tuple[Label, ...]:
    """Said when the event happened, so that the same record again says nothing new, and a person's word holds."""
    return tuple(
        Label(source=event.source, event_id=event.event_id, label=label, labelled_at=event.occurred_at, reason=reason)
        for label, reason in said.items()
    )


def _known_unit(unit: str | None, place: Place) -> str | None:
    if unit is None or unit.startswith(place.unit_versions):
        return unit
    version, newest = int(unit[1 : unit.index(":")]), max(place.secrets.units)
    if version > newest:
        raise BadInput(
            f"The unit was hashed with unit secret {version}, the newest here is {newest}; "
            "give this installation the new secrets file, then replay the record"
        )
    return unit


def _content(message: CopyMessage, place: Place) -> ContentMessage:
    if found := fault(message.parameters):
        raise BadInput(found)
    if message.content_id is not None and message.id not in (None, message.content_id):
        raise BadInput("content_id and id name two contents; send one of them")
    if message.loop is not None:
        _loop(message.loop, place)
    content = Content(
        content_id=message.content_id or message.id or "",
        campaign_id=message.campaign,
        slots=message.slots,
        features={name: value for name, value in message.features.items() if value is not None},
        locale=message.locale,
        prompt_id=message.prompt_id,
        generator=message.generator,
        parameters=message.parameters,
        parent_id=message.parent_id,
        created_at=place.received_at,
    )
    return ContentMessage(content, message.loop, message.brief, message.channel)


def _decision(message: DecisionMessage, place: Place) -> Decision:
    definition, version = _loop(message.loop, place)
    choice = choice_of(message, definition, place.candidate_limit)
    unit = _known_unit(message.unit, place)
    decided_at = moment("decided_at", message.decided_at, place.received_at, place.skew)
    same = (  # what makes two records the same decision: all but the loop's version
        message.loop,
        message.campaign,
        unit,
        message.context,
        choice.candidates,
        choice.chosen,
        choice.group,
        message.deferred,
        decided_at,
    )
    return Decision(
        decision_id=message.decision_id,
        request_digest=hashlib.sha256(canonical_json(same)).hexdigest(),
        loop_id=message.loop,
        loop_version=version,
        campaign_id=message.campaign,
        unit=unit,
        context=message.context,
        group=choice.group,
        learning_mode="online" if choice.known else "logging_only",
        candidates=choice.candidates,
        chosen=choice.chosen,
        policy_version=POLICY_VERSION,
        sampler=SAMPLER,
        floor=0.0,
        constraints={"slots": len(choice.chosen)},
        seed="",
        deferred=message.deferred,
        decided_at=decided_at,
    )


def _loop(loop_id: str, place: Place) -> tuple[LoopDefinition, int]:
    if loop_id not in place.loops:
        raise BadInput(f"No loop {loop_id!r}; define it with PUT /v1/loops/{loop_id}, then replay the record")
    return place.loops[loop_id]


_KINDS = (
    _Kind(_read_decision, "A decision is a JSON object with decision_id, loop, campaign, chosen and decided_at"),
    _Kind(_read_event, "An event is a JSON object with event_id, type and occurred_at"),
    _Kind(_read_copy, "A content is a JSON object with campaign and slots"),
)
"""In the order of ``Topics.read``: decisions, events, contents."""
