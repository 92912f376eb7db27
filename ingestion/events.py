"""The facts: what ``store.apply`` takes, as frozen types.

Time is integer microseconds UTC, money integer micros. Bodies from outside become these types at the edge
(``decode_event``); what cannot becomes ``Rejected``, which is data, not an exception.
"""

import hashlib
from operator import attrgetter
from typing import Any, Literal

import msgspec

from infra.database import canonical_json

NO_SEND = "no_send"
"""The reserved content: sending nothing."""

ACTIVATION = "activation"
PURCHASE = "purchase"
REFUND = "refund"

Group = Literal["treatment", "holdout", "customer_managed"]
Mode = Literal["online", "apprentice", "logging_only", "fallback"]

DIGEST_VERSION = 1
_SEMANTIC = (
    "type",
    "decision_id",
    "content_id",
    "position",
    "value_micros",
    "currency",
    "fact_key",
    "reverses",
    "occurred_at",
)
"""Fields that make two bodies under one id the same fact. The unit is left out: its hash changes with its secret."""

_semantic = attrgetter(*_SEMANTIC)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One content that could have been chosen. Null: not computed."""

    content_id: str
    score: float | None = None
    """What the policy ranked on: the posterior mean of the reward."""
    expected: float | None = None
    """The reward model's prediction without the content's own effect."""
    mean: float | None = None
    sd: float | None = None
    policy_p: float | None = None
    """What the policy would have drawn with."""
    behaviour_p: float | None = None
    """What was drawn with."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A content at a position (1 is first), with its propensity given the positions above; null: unknown."""

    position: int
    content_id: str
    propensity: float | None = None


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A content that was not eligible, and why."""

    content_id: str
    reason: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One stored choice: a row of ``decisions``."""

    decision_id: str
    request_digest: str
    loop_id: str
    loop_version: int
    campaign_id: str
    unit: str | None
    context: dict[str, Any]
    group: Group
    learning_mode: Mode
    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...] = ()
    chosen: tuple[Placement, ...]
    policy_version: str
    model_version: str | None = None
    stats_version: int | None = None
    feature_schema: str | None = None
    sampler: str
    floor: float
    constraints: dict[str, Any] = {}
    seed: str
    deferred: bool = False
    decided_at: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that came in: a row of ``events``."""

    source: str
    event_id: str
    type: str
    occurred_at: int
    received_at: int
    decision_id: str | None = None
    link: Literal["decision_id", "token"] | None = None
    unit: str | None = None
    unit_before: str | None = None
    content_id: str | None = None
    position: int | None = None
    value_micros: int | None = None
    currency: str | None = None
    fact_key: str | None = None
    reverses: str | None = None
    raw: dict[str, Any] = {}


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A word about an event; the latest word about a label holds."""

    source: str
    event_id: str
    label: str
    labelled_at: int
    applies: bool = True
    reason: str = ""


class HistoricalResult(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregated past results of one content: a row of ``historical_results``."""

    import_id: str
    row: int
    loop_id: str
    campaign_id: str
    content_id: str
    exposures: int
    metrics: dict[str, int]
    trusted: bool = True


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A brief and its contents inside a loop. ``baseline``: see ``ingestion/contents.py``."""

    campaign_id: str
    loop_id: str
    brief: str = ""
    channel: str = "email"
    baseline: dict[str, Any] = {}
    state: Literal["draft", "running", "ended"] = "running"
    created_at: int = 0


MEASURED = ("brief_similarity", "prompt_similarity")
"""Features that say how near copy is to what it was written from. No reader sees them: they are not part of what makes copy the same."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One generated piece of copy."""

    content_id: str
    campaign_id: str
    slots: dict[str, str]
    features: dict[str, float | int | str | bool] = {}
    locale: str | None = None
    prompt_id: str | None = None
    generator: str | None = None
    parameters: dict[str, Any] = {}
    parent_id: str | None = None
    approval: Literal["draft", "approved", "rejected", "retired"] = "draft"
    created_at: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what a reader sees: the same copy in a campaign is one content."""
        seen = {name: value for name, value in self.features.items() if name not in MEASURED}
        return hashlib.sha256(canonical_json([self.slots, seen, self.locale])).hexdigest()

    @property
    def measured(self) -> dict[str, float | int | str | bool]:
        """The features that are not part of the fingerprint."""
        return {name: value for name, value in self.features.items() if name in MEASURED}


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A record that cannot be used, with its bytes and a reason that says what to do."""

    source: str
    position: str
    reason: str
    raw: bytes


class Offset(msgspec.Struct, frozen=True, kw_only=True):
    """Progress on a topic's partition: read from ``begin`` up to, not including, ``end``."""

    topic: str
    partition: int
    begin: int
    end: int
    topic_id: str | None = None
    """The broker's id of the topic, if it is known: a topic made anew has another."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction applies. Every record read is in exactly one of the lists, or counted in ``ignored``."""

    campaigns: tuple[Campaign, ...] = ()
    contents: tuple[Content, ...] = ()
    decisions: tuple[Decision, ...] = ()
    events: tuple[Event, ...] = ()
    labels: tuple[Label, ...] = ()
    results: tuple[HistoricalResult, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    ignored: dict[str, int] = {}
    offsets: tuple[Offset, ...] = ()
    replayed: tuple[int, ...] = ()
    """Quarantine ids whose records are in this batch again."""


def event_digest(event: Event) -> str:
    """SHA-256 of the semantic fields, under ``DIGEST_VERSION``."""
    return hashlib.sha256(canonical_json(_semantic(event))).hexdigest()


def hash_id(text: str) -> str:
    """SHA-256 of an id, for keys that outlive the fact."""
    return hashlib.sha256(text.encode()).hexdigest()
