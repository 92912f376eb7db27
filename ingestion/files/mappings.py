"""Mappings: how the columns of a file become facts, written down in TOML and validated before a row is read.

Two kinds. ``decisions``: a row is one past decision (who, what could have been sent, what was sent, what came of
it). ``results``: a row is the summed-up result of one piece of copy, as in an e-mail tool's report. A mapping also
holds the loop it feeds. See ``docs/examples``.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from infra.clock import EARLIEST, format_time, parse_time
from infra.errors import BadInput
from ingestion.fields import pointer, scalar, sentence
from ingestion.loops import LoopDefinition
from ingestion.metrics import Currency, Duration, Name, parse_duration

ImportName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
EventType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]


_PROBABILITY = re.compile(
    r"\s*([0-9]{1,18}\s*/\s*[0-9]{1,18}|[0-9]{0,18}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?)\s*", re.A
)


def parse_probability(value: Any) -> float:
    """A number, or a fraction as text (``"1/3"``), in (0, 1]. Raises ``ValueError`` for anything else, 0 included."""
    try:
        if isinstance(value, str) and not _PROBABILITY.fullmatch(value):
            raise ValueError(value)  # also numbers that nobody means and that take forever, like 1e999999999
        number = float(Fraction(value) if isinstance(value, str) else value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{value!r} is no probability; write a number or a fraction like '1/3'") from None
    if not 0 < number <= 1:
        raise ValueError(f"{value!r} is no probability of something that was sent; it must be above 0 and at most 1")
    return number


Probability = Annotated[float, BeforeValidator(parse_probability, json_schema_input_type=float | str)]


def _parse_moment(value: Any) -> int:
    try:
        return value if isinstance(value, int) else parse_time(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no time; write ISO 8601 like 2026-01-31T09:00:00Z") from None


Moment = Annotated[int, BeforeValidator(_parse_moment, json_schema_input_type=str)]
"""ISO 8601 outside; microseconds inside."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


Feature = Annotated[float | int | str | bool, BeforeValidator(scalar)]


def _kind(value: Any) -> str:
    """Which of several forms a value is meant to have, so that the mistake in that form is the one reported."""
    if isinstance(value, dict | BaseModel):
        return "<invented>" if "invented" in dict(value) else "<column>"
    return f"<{value}>" if value in ("unknown", "row") else "<number>"


class Column(_Part):
    """A value read from a column."""

    column: str = Field(description="Name of the column.")


class Condition(_Part):
    """A column with a certain value."""

    column: str = Field(description="Name of the column.")
    equals: str = Field(description="The value, as text.")


class InventedTime(_Part):
    """A time that the file does not hold. Facts made with it say so."""

    invented: Moment = Field(description="The time given to every decision (ISO 8601).")


class CandidateSpec(_Part):
    """One content that a past decision could have chosen."""

    content: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="Content id; `no_send` is the reserved content for sending nothing."
    )
    value: str = Field(description="The value in the `chosen` column that stands for it.")
    slots: dict[Name, str] = Field({}, description="Its texts.")
    features: dict[str, Feature] = Field({}, description="What is known about it.")
    propensity: Probability | None = Field(
        None, description="Its own probability, when the candidates were not equally likely."
    )


class CampaignSpec(_Part):
    """The campaign past decisions belong to."""

    id: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="Campaign id.")
    brief: str = Field("", description="What the copy was for.")
    channel: str = Field("email", description="email, push, sms, ad …")


class ContextSpec(_Part):
    """Columns that were known when it was decided."""

    numbers: tuple[str, ...] = Field((), description="Columns read as numbers.")
    texts: tuple[str, ...] = Field((), description="Columns read as categories.")


Propensity = Annotated[
    Annotated[Probability, Tag("<number>")]
    | Annotated[Column, Tag("<column>")]
    | Annotated[Literal["unknown"], Tag("<unknown>")],
    Discriminator(_kind),
]
DecidedAt = Annotated[
    Annotated[Column, Tag("<column>")] | Annotated[InventedTime, Tag("<invented>")], Discriminator(_kind)
]


class DecisionSpec(_Part):
    """Where a past decision is in a row."""

    chosen: str = Field(description="Column that says which candidate was sent.")
    propensity: Propensity | None = Field(
        None, description="Probability of each candidate, a column with that of the chosen one, or `unknown`."
    )
    unit: Column | Literal["row"] = Field("row", description="Column that identifies the customer, or `row`.")
    decided_at: DecidedAt = Field(description="Column with the time (ISO 8601), or an invented time.")


class OutcomeSpec(_Part):
    """A column that becomes an event."""

    event: EventType = Field(description="Type of the event.")
    when: str | None = Field(None, description="Column that is 1 when it happened.")
    value: str | None = Field(None, description="Column with its value; the event happened if it is above 0.")
    currency: Currency | None = Field(None, description="Currency of the value.")
    at: str | None = Field(None, description="Column with the time of the event (ISO 8601).")
    after: Duration = Field(
        parse_duration("1h"), description="Invented delay after the decision, when there is no column."
    )

    @model_validator(mode="after")
    def _happens(self) -> Self:
        if self.when is None and self.value is None:
            raise ValueError("an outcome needs `when` (a column that is 1) or `value` (a column above 0)")
        return self


class DecisionsMapping(_Part):
    """A file of past decisions."""

    kind: Literal["decisions"]
    name: ImportName = Field(alias="import", description="Name of the import; the ids of its facts begin with it.")
    loop: LoopDefinition = Field(description="The loop it feeds.")
    ignore: tuple[Condition, ...] = Field((), description="Rows that are left out, counted as ignored.")
    campaign: CampaignSpec = Field(description="The campaign.")
    candidates: tuple[CandidateSpec, ...] = Field(min_length=1, max_length=500, description="What could be sent.")
    decisions: DecisionSpec = Field(description="Where the decision is.")
    context: ContextSpec = Field(ContextSpec(), description="What was known.")
    outcomes: tuple[OutcomeSpec, ...] = Field((), description="What came of it.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field in ("content", "value"):
            _refuse_repeats([getattr(candidate, field) for candidate in self.candidates], f"candidates share a {field}")
        _refuse_repeats([outcome.event for outcome in self.outcomes], "outcomes share an event type")
        own = [candidate.propensity for candidate in self.candidates]
        if (self.decisions.propensity is None) == (None in own):
            raise ValueError(
                "give `propensity` under [decisions] (a number, a column or 'unknown'), or one per candidate"
            )
        if any(own) and None in own:
            raise ValueError("some candidates have a `propensity` and some not; give it to all or to none")
        known = self.propensities
        if known and abs(sum(known) - 1) > 1e-6:
            raise ValueError(f"the propensities of the candidates sum to {sum(known):.6g}, not to 1")
        return self

    @property
    def propensities(self) -> tuple[float, ...] | None:
        """Probability of each candidate, where the mapping itself says it."""
        if isinstance(self.decisions.propensity, float):
            return (self.decisions.propensity,) * len(self.candidates)
        own = tuple(candidate.propensity for candidate in self.candidates if candidate.propensity is not None)
        return own or None

    def columns(self) -> Iterator[tuple[str, str]]:
        """Every column the mapping names, with where it names it."""
        yield from ((condition.column, "ignore") for condition in self.ignore)
        yield self.decisions.chosen, "decisions.chosen"
        for name in ("propensity", "unit", "decided_at"):
            part = getattr(self.decisions, name)
            if isinstance(part, Column):
                yield part.column, f"decisions.{name}"
        yield from ((column, "context.numbers") for column in self.context.numbers)
        yield from ((column, "context.texts") for column in self.context.texts)
        for outcome in self.outcomes:
            for name in ("when", "value", "at"):
                if (column := getattr(outcome, name)) is not None:
                    yield column, f"outcomes.{name}"


class ResultSpec(_Part):
    """Where a past result is in a row."""

    campaign: str = Field(description="Column with the campaign.")
    content: str | None = Field(None, description="Column with the content id; without it the copy itself is the id.")
    slots: dict[Name, str] = Field(min_length=1, description="`{slot: column}`.")
    features: tuple[str, ...] = Field((), description="Columns kept as features of the copy, read as categories.")
    exposures: str = Field(description="Column with how often it was shown.")
    metrics: dict[str, str] = Field(min_length=1, description="`{metric: column}` with the sum of the metric.")
    untrusted: Condition | None = Field(
        None, description="Rows imported, but left out of evaluation: a known fault of the experiment."
    )


class ResultsMapping(_Part):
    """A file of aggregated past results."""

    kind: Literal["results"]
    name: ImportName = Field(alias="import", description="Name of the import; its rows are known by it.")
    loop: LoopDefinition = Field(description="The loop it feeds.")
    ignore: tuple[Condition, ...] = Field((), description="Rows that are left out, counted as ignored.")
    channel: str = Field("email", description="email, push, sms, ad …")
    results: ResultSpec = Field(description="Where the result is.")

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        names = [metric.name for metric in self.loop.metrics]
        if unknown := sorted(set(self.results.metrics) - set(names)):
            raise ValueError(
                f"results.metrics has {', '.join(unknown)}, no metric of the loop; it has {', '.join(names)}"
            )
        return self

    def columns(self) -> Iterator[tuple[str, str]]:
        """Every column the mapping names, with where it names it."""
        yield from ((condition.column, "ignore") for condition in self.ignore)
        yield self.results.campaign, "results.campaign"
        yield self.results.exposures, "results.exposures"
        if self.results.content is not None:
            yield self.results.content, "results.content"
        yield from ((column, f"results.slots.{slot}") for slot, column in self.results.slots.items())
        yield from ((column, "results.features") for column in self.results.features)
        yield from ((column, f"results.metrics.{metric}") for metric, column in self.results.metrics.items())
        if self.results.untrusted is not None:
            yield self.results.untrusted.column, "results.untrusted"


Mapping = DecisionsMapping | ResultsMapping
_ADAPTER: TypeAdapter[Mapping] = TypeAdapter(Annotated[Mapping, Field(discriminator="kind")])


def load_mapping(path: Path) -> Mapping:
    """The mapping in a TOML file. Raises :class:`BadInput` naming the first wrong field and what to do."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"The mapping {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The mapping {path.name} is not valid TOML: {error}") from None
    return parse_mapping(document, path.name)


def parse_mapping(document: Any, label: str = "mapping") -> Mapping:
    """The mapping in a document. Raises :class:`BadInput` naming the first wrong field and what to do."""
    if not isinstance(document, dict) or document.get("kind") not in ("decisions", "results"):
        raise BadInput(
            f"{label}, /kind: write kind = 'decisions' (a row is one past decision) or 'results' (a row is a sum)",
            "/kind",
        )
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        part = first | {"loc": first["loc"][1:]}  # the first step is the kind
        where = pointer(part["loc"])
        raise BadInput(f"{label}{where and f', {where}'}: {sentence(part)}", where) from None


def check_columns(mapping: Mapping, found: Sequence[str]) -> None:
    """Raise :class:`BadInput` that lists the columns found, unless every column the mapping names is there."""
    missing = [(column, where) for column, where in mapping.columns() if column not in found]
    if missing:
        named = ", ".join(f"{column!r} ({where}{_hint(column, found)})" for column, where in missing)
        raise BadInput(f"The file has no column {named}. Columns found: {', '.join(found)}. Correct the mapping.")
    _refuse_repeats_in_header(mapping, found)


def check_times(mapping: Mapping, now: int) -> None:
    """Raise :class:`BadInput` for an invented time that no past decision can have."""
    if not isinstance(mapping, DecisionsMapping) or isinstance(mapping.decisions.decided_at, Column):
        return
    invented = mapping.decisions.decided_at.invented
    if not EARLIEST <= invented <= now:
        raise BadInput(
            f"decisions.decided_at invents {format_time(invented)}; give a time between the year 2000 and now "
            f"({format_time(now)})"
        )


def _refuse_repeats_in_header(mapping: Mapping, found: Sequence[str]) -> None:
    twice = sorted({column for column, _ in mapping.columns() if found.count(column) > 1})
    if twice:
        raise BadInput(f"The file has more than one column {', '.join(map(repr, twice))}; rename one of them.")


def _hint(column: str, found: Sequence[str]) -> str:
    close = difflib.get_close_matches(column, found, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _refuse_repeats(values: Iterable[str], complaint: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{complaint}: {value!r}")
        seen.add(value)
