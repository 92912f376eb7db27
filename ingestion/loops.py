"""What a loop is: its metrics, reward weights, policy and gate settings, validated and versioned as one document.

What the numbers are *worth* is computed in ``reward_models``; here they are only written down.
"""

from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from sqlalchemy import Connection, func, select

from infra import tables
from infra.clock import format_time, parse_time
from infra.errors import BadInput, NotFound
from ingestion.audit import record
from ingestion.copy.copy_rules import CopyRules
from ingestion.fields import pointer, sentence
from ingestion.metrics import Currency, Duration, Metric, parse_duration
from ingestion.sending import FrequencyCap, SuppressionSettings
from ingestion.trust import Believed, Source, SourceTrust

LoopId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Weight = Annotated[float, Field(ge=-1e9, le=1e9)]
LearningMode = Literal["online", "apprentice", "logging_only"]
"""online: the policy chooses; apprentice: the baseline is answered and the policy's choice logged;
logging_only: the baseline is answered, nothing is learned online."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PolicySettings(_Part):
    """How a prediction becomes probabilities."""

    kind: Literal["posterior", "top_two", "inverse_gap", "softmax", "epsilon", "uniform"] = Field(
        "posterior", description="The policy."
    )
    damping: float = Field(
        0.25, gt=0, le=1, description="posterior: share of the sample against the mean; 1 is Thompson sampling."
    )
    gamma: float = Field(
        5.0, gt=0, le=1e6, description="inverse_gap: how fast probability falls with the gap in standard deviations."
    )
    temperature: float = Field(0.1, gt=0, description="softmax: temperature, relative to the spread of the scores.")
    epsilon: float = Field(0.1, ge=0, le=1, description="epsilon: share drawn uniformly.")
    floor: float = Field(1e-4, ge=0, le=0.5, description="Least probability of an eligible candidate.")
    uniform_slice: float = Field(0.02, ge=0, le=1, description="Share that is always drawn uniformly.")


class ContentLimits(_Part):
    """What a person allows one content. It holds in every choice of the policy, at once; a holdout keeps its baseline."""

    least: float = Field(0.0, ge=0, le=1, description="Least share of the choices.")
    most: float = Field(1.0, ge=0, le=1, description="Largest share of the choices.")
    budget: int | None = Field(None, ge=0, description="Sends in all; then it is no candidate any more.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"the least share {self.least:g} is above the largest, {self.most:g}; swap them")
        return self


class ModelSettings(_Part):
    """How the reward model is trained."""

    rounds: int = Field(120, ge=1, le=5_000, description="Boosting rounds.")
    leaves: int = Field(15, ge=2, le=64, description="Leaves per tree.")
    learning_rate: float = Field(0.06, gt=0, le=1, description="Shrinkage per round.")
    min_leaf: int = Field(50, ge=1, description="Least decisions per leaf.")
    text: bool = Field(True, description="Use within-campaign text contrasts.")
    contexts: bool = Field(True, description="Learn what contexts tell of contents between two retrains too.")
    seed: int = Field(7, ge=0, description="Seed of the trainer.")


class GateSettings(_Part):
    """When a challenger is promoted (invariant 16)."""

    window: Duration = Field(parse_duration("7d"), gt=0, description="Decisions kept out of training, for the gate.")
    split: Literal["time", "unit"] = Field("time", description="unit: for data without times; folds by unit instead.")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Error rate of all changes together.")
    refresh_alpha: float = Field(0.05, gt=0, lt=0.5, description="Error rate of one refresh.")
    margin: float = Field(
        0.02, ge=0, lt=1, description="Non-inferiority margin of a refresh, relative to the champion."
    )
    min_units: int = Field(200, ge=2, description="Fewer units than this: refused.")
    min_effective: int = Field(100, ge=2, description="Smaller effective sample than this: refused.")
    approval: bool = Field(False, description="A person must approve before promotion.")


def _moment(value: Any) -> int:
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            found = parse_time(value)
            if found >= 0 and format_time(found):  # a calendar ends; nothing was decided before there were computers
                return found
    raise ValueError(f"{value!r} is not a time; write it like '2026-03-01T00:00:00Z'")


Moment = Annotated[
    int, BeforeValidator(_moment, json_schema_input_type=str), PlainSerializer(format_time, return_type=str)
]
"""Microseconds inside; ISO 8601 outside."""


class LiftSettings(_Part):
    """How the lift against the holdout is measured."""

    window: Duration | None = Field(
        None, gt=0, description="How long a customer counts after the first decision; without it the widest window."
    )
    since: Moment | None = Field(
        None, description="Customers count from their first decision after this time; set it to measure anew."
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Error rate over all looks together.")
    tuned_units: int = Field(
        5_000, ge=1, description="Customers at which the interval is narrowest; set it before the first look."
    )
    min_units: int = Field(100, ge=2, description="Customers that each group needs before a look counts.")
    min_responses: int = Field(5, ge=1, description="Of them, those that each group needs with anything to count.")
    worthwhile: float = Field(
        0.02, gt=0, lt=1, description="Smallest lift that matters, relative to the holdout; below it is negligible."
    )


class Guardrail(_Part):
    """A metric that may not get worse: the more of it, the worse (unsubscribe, complaint, refund)."""

    metric: str = Field(description="Name of a metric of the loop.")
    margin: float = Field(0.0, ge=0, le=10, description="How much more than the holdout is tolerated, relative.")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Rate of false alarms over all looks together.")
    action: Literal["veto", "baseline"] = Field(
        "veto", description="veto: nothing is promoted; baseline: the loop also answers its baseline at once."
    )


class LoopDefinition(_Part):
    """One loop, whole. ``PUT /v1/loops/{id}`` takes this document."""

    loop: LoopId = Field(description="The loop's id.")
    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=20, description="What is measured.")
    reward: dict[str, Weight] = Field(min_length=1, description="`{metric: weight}`; the reward is the weighted sum.")
    default_reward: Weight = Field(0.0, description="Reward of a silent decision, at maturity.")
    currency: Currency | None = Field(None, description="Currency that reports are in.")
    learning_mode: LearningMode = Field("online", description="`online`, `apprentice` or `logging_only`.")
    holdout: float = Field(0.1, ge=0, le=0.9, description="Share of units that always get the baseline.")
    no_send: bool = Field(False, description="Sending nothing is a candidate.")
    approval: Literal["manual", "automatic"] = Field(
        "manual", description="automatic: new contents are approved at once."
    )
    lateness: Duration = Field(
        parse_duration("72h"), ge=0, description="How late an event may arrive and still mature on time."
    )
    refund_horizon: Duration = Field(0, ge=0, description="How long after a purchase a refund restates it.")
    policy: PolicySettings = PolicySettings()
    limits: dict[str, ContentLimits] = Field(
        default_factory=dict, max_length=1_000, description="`{content id: {least, most, budget}}`: limits on shares."
    )
    model: ModelSettings = ModelSettings()
    gate: GateSettings = GateSettings()
    lift: LiftSettings = LiftSettings()
    guardrails: tuple[Guardrail, ...] = Field((), max_length=10, description="What may not get worse.")
    copy_rules: CopyRules = CopyRules()
    suppression: SuppressionSettings = SuppressionSettings()
    frequency: tuple[FrequencyCap, ...] = Field(
        (), max_length=10, description="How often one customer may be sent something."
    )
    sources: dict[Source, SourceTrust] = Field(
        default_factory=dict,
        max_length=100,
        description="`{source: {trusted, types, largest}}`: what counts of a source's events; `*` is every other source.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("two metrics have the same name; give each its own")
        if unknown := sorted(set(self.reward) - set(names)):
            raise ValueError(
                f"reward weighs {', '.join(unknown)}, which is no metric of the loop; metrics are {', '.join(names)}"
            )
        guarded = [guardrail.metric for guardrail in self.guardrails]
        if unknown := sorted(set(guarded) - set(names)):
            raise ValueError(
                f"a guardrail watches {', '.join(unknown)}, which is no metric of the loop; add the metric with the "
                f"event it counts; metrics are {', '.join(names)}"
            )
        if len(set(guarded)) != len(guarded):
            raise ValueError("two guardrails watch the same metric; keep one")
        return self

    @property
    def lift_window(self) -> int:
        """How long a unit counts from its first decision. Microseconds."""
        return self.lift.window or self.reach

    @property
    def believed(self) -> Believed:
        """What counts of the events of each source."""
        return Believed(self.sources)

    @property
    def limits_customers(self) -> bool:
        """Whether a metric limits how many events of one customer count."""
        return any(metric.per_unit_limit for metric in self.metrics)

    @property
    def guarded(self) -> bool:
        """Whether sources or customers are limited: then the join looks at more than a decision's own events."""
        return bool(self.sources) or self.limits_customers

    @property
    def converts(self) -> bool:
        """Whether a metric counts amounts in other currencies: then the join looks rates up."""
        return any(metric.convert for metric in self.metrics)

    @property
    def reach(self) -> int:
        """Widest window of the loop's metrics: how far back an event looks for its decision. Microseconds."""
        return max(metric.window for metric in self.metrics)

    @property
    def tolerance(self) -> int:
        """Widest backward window of the loop's metrics. Microseconds."""
        return max(metric.backward_window for metric in self.metrics)

    @property
    def maturity(self) -> int:
        """From the start of a decision to the moment its outcome is final. Microseconds."""
        return self.reach + self.lateness + self.refund_horizon

    def cutoff(self, now: int) -> int:
        """Where a split by time divides what is learned from what is judged. Microseconds."""
        return now - self.gate.window - self.maturity

    def metric(self, name: str) -> Metric:
        """The metric of that name. Raises :class:`NotFound`."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise NotFound(f"Loop {self.loop!r} has no metric {name!r}; it has {', '.join(m.name for m in self.metrics)}")


def parse_definition(document: Any) -> LoopDefinition:
    """A definition from JSON or TOML. Raises :class:`BadInput` naming the first wrong field and what to do."""
    try:
        return LoopDefinition.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = pointer(first["loc"])
        raise BadInput(f"Loop definition{where and f', {where}'}: {sentence(first)}", where) from None


def put_loop(connection: Connection, definition: LoopDefinition, now: int) -> int:
    """Store a definition as the newest version; the same definition again changes nothing. Returns the version."""
    version, stored = _newest(connection, definition.loop)
    document = definition.model_dump(mode="json")
    if stored == document:
        return version
    connection.execute(
        tables.loops.insert().values(loop_id=definition.loop, version=version + 1, definition=document, created_at=now)
    )
    return version + 1


def define(connection: Connection, definition: LoopDefinition, actor: str, now: int) -> int:
    """:func:`put_loop`, audited if it is a new version."""
    before, _ = _newest(connection, definition.loop)
    version = put_loop(connection, definition, now)
    if version != before:
        record(connection, actor, "define_loop", definition.loop, {"version": version}, now)
    return version


def load_loop(connection: Connection, loop_id: str) -> tuple[LoopDefinition, int]:
    """The definition in force and its version. Raises :class:`NotFound`."""
    version, stored = _newest(connection, loop_id)
    if stored is None:
        raise NotFound(f"No loop {loop_id!r}; define it with PUT /v1/loops/{loop_id}")
    return parse_definition(stored), version


def load_version(connection: Connection, loop_id: str, version: int) -> LoopDefinition:
    """A definition as it was: every version is kept. Raises :class:`NotFound`."""
    loops = tables.loops.c
    stored = connection.scalar(select(loops.definition).where(loops.loop_id == loop_id, loops.version == version))
    if stored is None:
        raise NotFound(f"Loop {loop_id!r} has no version {version}")
    return parse_definition(stored)


def load_loops(connection: Connection) -> dict[str, tuple[LoopDefinition, int]]:
    """Every loop's definition in force and its version, by loop id."""
    newest = (
        select(tables.loops.c.loop_id, func.max(tables.loops.c.version).label("version"))
        .group_by(tables.loops.c.loop_id)
        .subquery()
    )
    rows = connection.execute(
        select(tables.loops.c.loop_id, tables.loops.c.version, tables.loops.c.definition).join(
            newest, (newest.c.loop_id == tables.loops.c.loop_id) & (newest.c.version == tables.loops.c.version)
        )
    )
    return {row.loop_id: (parse_definition(row.definition), row.version) for row in rows}


def _newest(connection: Connection, loop_id: str) -> tuple[int, Any]:
    row = connection.execute(
        select(tables.loops.c.version, tables.loops.c.definition)
        .where(tables.loops.c.loop_id == loop_id)
        .order_by(tables.loops.c.version.desc())
        .limit(1)
    ).first()
    return (row.version, row.definition) if row else (0, None)
