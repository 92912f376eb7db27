"""A row of a mapped file to facts: pure, one row at a time.

A decoder is made once per file, from the mapping and the header, and called per row. What it cannot read becomes
:class:`Unreadable` with a sentence that says what was found; the caller keeps the row's bytes.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from infra.clock import EARLIEST, HOUR, MICROS, format_time, parse_time
from infra.database import canonical_json
from infra.randomness import SAMPLER
from infra.secrets import Secrets
from ingestion.events import NO_SEND, Candidate, Content, Decision, Event, HistoricalResult, Placement
from ingestion.files.mappings import Column, DecisionsMapping, InventedTime, Mapping, OutcomeSpec, ResultsMapping
from ingestion.metrics import LARGEST_VALUE

POLICY_VERSION = "past"
"""What imported decisions name as their policy: somebody else's, before Rewardloop."""

_YES = frozenset(("1", "1.0", "true", "True", "TRUE", "yes"))
LARGEST_SUM = 9 * 10**12
"""Largest sum of a metric over many exposures: in millionths it just fits a 64-bit integer."""

_NO = frozenset(("", "0", "0.0", "false", "False", "FALSE", "no"))


class Unreadable(Exception):
    """The row cannot be used; the message says what was found and what was expected."""


class PastDecision(msgspec.Struct, frozen=True):
    """What a row of kind ``decisions`` holds."""

    decision: Decision
    events: tuple[Event, ...]


class PastResult(msgspec.Struct, frozen=True):
    """What a row of kind ``results`` holds. ``named``: the file itself gives the content's id."""

    content: Content
    fingerprint: str
    result: HistoricalResult
    named: bool


Fact = PastDecision | PastResult
Decode = Callable[[int, Sequence[str]], Fact | None]
"""Row number (1 is the first after the header) and cells to facts; None: left out by the mapping."""


@dataclass(frozen=True)
class Edge:
    """What decoding needs besides the row."""

    secrets: Secrets
    loop_version: int
    now: int
    skew: int
    text_limit: int


def decoder(mapping: Mapping, columns: Sequence[str], edge: Edge) -> Decode:
    """The decoder for files with these columns, which the mapping was checked against.

    The decoder raises :class:`Unreadable`.
    """
    read = (
        _DecisionReader(mapping, columns, edge)
        if isinstance(mapping, DecisionsMapping)
        else _ResultReader(mapping, columns, edge)
    )
    width = len(columns)
    ignored = [(columns.index(condition.column), condition.equals) for condition in mapping.ignore]

    def decode(row: int, cells: Sequence[str]) -> Fact | None:
        if len(cells) != width:
            raise Unreadable(f"the row has {len(cells)} cells, the header {width}")
        _check_text(cells)
        if any(cells[index] == value for index, value in ignored):
            return None
        return read(row, cells)

    return decode


class _DecisionReader:
    """Rows of past decisions, with everything that is the same for all rows made once."""

    def __init__(self, mapping: DecisionsMapping, columns: Sequence[str], edge: Edge) -> None:
        self.mapping = mapping
        self.edge = edge
        self.index = {column: columns.index(column) for column, _ in mapping.columns()}
        self.numbers = [(column, self.index[column]) for column in mapping.context.numbers]
        self.texts = [(column, self.index[column]) for column in mapping.context.texts]
        self.content = {spec.value: spec.content for spec in mapping.candidates}
        known = mapping.propensities
        probability = dict(zip(self.content.values(), known, strict=True)) if known else {}
        self.propensity: dict[str, float] = probability
        self.candidates = tuple(
            _candidate(content_id, probability.get(content_id)) for content_id in sorted(self.content.values())
        )
        self.constraints = {"import": mapping.name, "times": "invented" if self._invented else "given"}

    @property
    def _invented(self) -> bool:
        spec = self.mapping.decisions.decided_at
        return isinstance(spec, InventedTime) or any(outcome.at is None for outcome in self.mapping.outcomes)

    def __call__(self, row: int, cells: Sequence[str]) -> PastDecision:
        content_id = self._chosen(cells)
        propensity = self._propensity(content_id, cells)
        decided_at = self._decided_at(cells)
        decision = Decision(
            decision_id=f"{self.mapping.name}/{row}",
            request_digest="",
            loop_id=self.mapping.loop.loop,
            loop_version=self.edge.loop_version,
            campaign_id=self.mapping.campaign.id,
            unit=self._unit(row, cells),
            context=self._context(cells),
            group="customer_managed" if propensity is None else "treatment",
            learning_mode="logging_only" if propensity is None else "online",
            candidates=self._candidates(content_id, propensity),
            chosen=(Placement(position=1, content_id=content_id, propensity=propensity),),
            policy_version=POLICY_VERSION,
            sampler=SAMPLER,
            floor=0.0,
            constraints=self.constraints,
            seed="",
            decided_at=decided_at,
        )
        decision = msgspec.structs.replace(decision, request_digest=_digest(decision))
        events = (self._event(outcome, cells, decision) for outcome in self.mapping.outcomes)
        return PastDecision(decision, tuple(event for event in events if event is not None))

    def _chosen(self, cells: Sequence[str]) -> str:
        column = self.mapping.decisions.chosen
        value = cells[self.index[column]]
        try:
            return self.content[value]
        except KeyError:
            known = ", ".join(map(repr, self.content))
            raise Unreadable(f"{column} is {value!r}, which is no candidate; the mapping has {known}") from None

    def _propensity(self, content_id: str, cells: Sequence[str]) -> float | None:
        spec = self.mapping.decisions.propensity
        if not isinstance(spec, Column):
            return self.propensity.get(content_id)
        value = _number(spec.column, cells[self.index[spec.column]])
        if not 0 < value <= 1:
            raise Unreadable(
                f"{spec.column} is {value:g}: what was sent had a probability above 0 and at most 1; "
                "write propensity = 'unknown' if it is not known"
            )
        return value

    def _candidates(self, content_id: str, propensity: float | None) -> tuple[Candidate, ...]:
        """All candidates; a propensity column tells that of the chosen one only."""
        if self.propensity or propensity is None:
            return self.candidates
        return tuple(
            _candidate(content_id, propensity) if candidate.content_id == content_id else candidate
            for candidate in self.candidates
        )

    def _decided_at(self, cells: Sequence[str]) -> int:
        spec = self.mapping.decisions.decided_at
        return spec.invented if isinstance(spec, InventedTime) else self._time(spec.column, cells)

    def _time(self, column: str, cells: Sequence[str]) -> int:
        value = cells[self.index[column]]
        try:
            moment = parse_time(value)
        except ValueError:
            raise Unreadable(f"{column} is {value!r}, no time; write ISO 8601 like 2026-01-31T09:00:00Z") from None
        if moment < EARLIEST:
            raise Unreadable(f"{column} is {value!r}, before the year 2000; correct the clock that wrote it")
        if moment > self.edge.now + self.edge.skew:
            raise Unreadable(
                f"{column} is {value!r}, more than {self.edge.skew // HOUR} hours after now ({format_time(self.edge.now)}); "
                "correct the clock that wrote it"
            )
        return moment

    def _unit(self, row: int, cells: Sequence[str]) -> str:
        spec = self.mapping.decisions.unit
        if not isinstance(spec, Column):
            return self.edge.secrets.unit(f"{self.mapping.name}/{row}")
        return self.edge.secrets.unit(_filled(spec.column, cells[self.index[spec.column]]))

    def _context(self, cells: Sequence[str]) -> dict[str, float | str]:
        context: dict[str, float | str] = {
            column: _number(column, cells[index]) for column, index in self.numbers if cells[index]
        }
        for column, index in self.texts:
            if cells[index]:
                context[column] = _short(column, cells[index], self.edge.text_limit)
        return context

    def _event(self, outcome: OutcomeSpec, cells: Sequence[str], decision: Decision) -> Event | None:
        if outcome.when is not None and not _happened(outcome.when, cells[self.index[outcome.when]]):
            return None
        value = None if outcome.value is None else self._value(outcome.value, cells)
        if outcome.when is None and not value:
            return None
        at = decision.decided_at + outcome.after if outcome.at is None else self._time(outcome.at, cells)
        return Event(
            source=source_of(self.mapping.name),
            event_id=f"{decision.decision_id}/{outcome.event}",
            type=outcome.event,
            occurred_at=at,
            received_at=self.edge.now,
            decision_id=decision.decision_id,
            link="decision_id",
            unit=decision.unit,
            value_micros=value,
            currency=outcome.currency,
            raw={} if outcome.at else {"times": "invented"},
        )

    def _value(self, column: str, cells: Sequence[str]) -> int:
        cell = cells[self.index[column]]
        return _micros(column, cell) if cell else 0


class _ResultReader:
    """Rows of aggregated past results."""

    def __init__(self, mapping: ResultsMapping, columns: Sequence[str], edge: Edge) -> None:
        spec = mapping.results
        self.mapping = mapping
        self.edge = edge
        self.campaign = (spec.campaign, columns.index(spec.campaign))
        self.content = None if spec.content is None else (spec.content, columns.index(spec.content))
        self.slots = [(slot, column, columns.index(column)) for slot, column in spec.slots.items()]
        self.features = [(column, columns.index(column)) for column in spec.features]
        self.exposures = (spec.exposures, columns.index(spec.exposures))
        self.metrics = [(metric, column, columns.index(column)) for metric, column in spec.metrics.items()]
        self.any = {metric.name for metric in mapping.loop.metrics if metric.aggregate == "any"}
        self.untrusted = spec.untrusted and (columns.index(spec.untrusted.column), spec.untrusted.equals)

    def __call__(self, row: int, cells: Sequence[str]) -> PastResult:
        campaign_id = _id(self.campaign[0], cells[self.campaign[1]])
        content, fingerprint = self._content(campaign_id, cells)
        exposures = _whole(self.exposures[0], cells[self.exposures[1]])
        result = HistoricalResult(
            import_id=self.mapping.name,
            row=row,
            loop_id=self.mapping.loop.loop,
            campaign_id=campaign_id,
            content_id=content.content_id,
            exposures=exposures,
            metrics={
                metric: self._sum(metric, column, cells[index], exposures) for metric, column, index in self.metrics
            },
            trusted=not (self.untrusted and cells[self.untrusted[0]] == self.untrusted[1]),
        )
        return PastResult(content, fingerprint, result, self.content is not None)

    def _content(self, campaign_id: str, cells: Sequence[str]) -> tuple[Content, str]:
        slots = {slot: _short(column, cells[index], self.edge.text_limit) for slot, column, index in self.slots}
        if not any(slots.values()):
            raise Unreadable(
                f"{', '.join(column for _, column, _ in self.slots)}: empty; there is no copy to learn from"
            )
        content = Content(
            content_id="",
            campaign_id=campaign_id,
            slots={slot: text for slot, text in slots.items() if text},
            features={column: cells[index] for column, index in self.features if cells[index]},
            approval="approved",
            created_at=self.edge.now,
        )
        fingerprint = content.fingerprint
        return msgspec.structs.replace(
            content, content_id=self._content_id(campaign_id, fingerprint, cells)
        ), fingerprint

    def _content_id(self, campaign_id: str, fingerprint: str, cells: Sequence[str]) -> str:
        if self.content is not None:
            content_id = _id(self.content[0], cells[self.content[1]])
            if content_id == NO_SEND:
                raise Unreadable(f"{self.content[0]} is {NO_SEND!r}, which is reserved for sending nothing")
            return content_id
        return f"{campaign_id[:200]}/{fingerprint[:16]}"

    def _sum(self, metric: str, column: str, cell: str, exposures: int) -> int:
        micros = _micros(column, cell, LARGEST_SUM)
        if metric in self.any and micros > exposures * MICROS:
            raise Unreadable(f"{column} is {cell!r}, more than the {exposures} exposures; check the columns")
        return micros


def source_of(import_name: str) -> str:
    """The permanent source name of an import's events and rejected rows."""
    return f"import:{import_name}"


def _candidate(content_id: str, propensity: float | None) -> Candidate:
    """Drawn from the past policy's own probabilities: behaviour and policy are the same."""
    return Candidate(content_id=content_id, policy_p=propensity, behaviour_p=propensity)


def _digest(decision: Decision) -> str:
    """What makes two imports of a row the same decision: all but the loop's version."""
    body = (
        decision.campaign_id,
        decision.unit,
        decision.context,
        decision.candidates,
        decision.chosen,
        decision.constraints,
        decision.decided_at,
    )
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _check_text(cells: Sequence[str]) -> None:
    joined = "".join(cells)
    if "\x00" in joined:
        raise Unreadable("the row holds a NUL character; export it as UTF-8 text")
    try:
        joined.encode()
    except UnicodeEncodeError:
        raise Unreadable("the row is not UTF-8; export the file as UTF-8") from None


def _filled(column: str, cell: str) -> str:
    if not cell:
        raise Unreadable(f"{column} is empty")
    return cell


def _id(column: str, cell: str) -> str:
    if len(_filled(column, cell)) > 256:
        raise Unreadable(f"{column} has {len(cell)} characters; an id has at most 256")
    return cell


def _short(column: str, cell: str, limit: int) -> str:
    if len(cell) * 4 > limit and (size := len(cell.encode())) > limit:
        raise Unreadable(f"{column} has {size} bytes; the limit is {limit} (REWARDLOOP_TEXT_LIMIT_BYTES)")
    return cell


def _number(column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise Unreadable(f"{column} is {cell!r}, no number") from None
    if not math.isfinite(value):
        raise Unreadable(f"{column} is {cell!r}, no number")
    return value


def _micros(column: str, cell: str, most: int = LARGEST_VALUE) -> int:
    value = _number(column, cell)
    if value < 0:
        raise Unreadable(f"{column} is {cell!r}; an amount cannot be negative, refunds are events of their own")
    if value > most:
        raise Unreadable(f"{column} is {cell!r}, above {most}; check its unit")
    return round(value * MICROS)


def _whole(column: str, cell: str) -> int:
    value = _number(column, cell)
    if value < 0 or value != int(value) or value > 9e15:
        raise Unreadable(f"{column} is {cell!r}; it must be a whole number, 0 or more")
    return int(value)


def _happened(column: str, cell: str) -> bool:
    if cell in _YES:
        return True
    if cell in _NO:
        return False
    raise Unreadable(f"{column} is {cell!r}; it must be 1 or 0")
