"""What records of the input topics look like: their JSON as typed structs, and what is wrong with one in a sentence.

    Events, decisions, contents     EventMessage, DecisionMessage, CopyMessage
    form_fault(error, shape)        which field has not the form it must have, and what to do

Types are strict; fields that are not known are skipped and never stored.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ingestion.choices import ChoiceMessage, Key
from ingestion.fields import LONG_ID


def _id(pattern: str) -> Meta:
    return Meta(pattern=pattern.removesuffix("$") + r"\Z")


Named = Annotated[str, _id(r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Unit = Annotated[str, _id(r"^u[1-9][0-9]{0,8}:[0-9a-f]{32}$")]
Sha256 = Annotated[str, _id(r"^[0-9a-f]{64}$")]
Time = Annotated[str, Meta(min_length=10, max_length=40)]
Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Text = Annotated[str, Meta(max_length=1_000)]
Scalar = bool | Whole | float | Text | None


class Properties(Struct, gc=False, omit_defaults=True):
    """The properties of an event that are kept (``PROPERTIES`` in ``ingestion/rules.py``)."""

    url: Scalar | UnsetType = UNSET
    device: Scalar | UnsetType = UNSET
    client: Scalar | UnsetType = UNSET
    country: Scalar | UnsetType = UNSET
    channel: Scalar | UnsetType = UNSET
    note: Scalar | UnsetType = UNSET


class EventMessage(Struct, gc=False, omit_defaults=True):
    """A record of the events topic. ``link``, ``fact_key`` and ``reverses_key`` are what the collector writes."""

    event_id: Annotated[str, _id(LONG_ID)]
    type: Annotated[str, _id(r"^[a-z][a-z0-9_.]{0,62}$")]
    occurred_at: Time
    source: Key | None = None
    decision_id: Key | None = None
    token: str | None = None
    link: Literal["decision_id", "token"] | None = None
    unit: Unit | None = None
    unit_before: Unit | None = None
    content_id: Annotated[str, _id(LONG_ID)] | None = None
    position: Annotated[int, Meta(ge=1, le=500)] | None = None
    value: float | int | str | None = None
    currency: Annotated[str, _id(r"^[A-Z]{3}$")] | None = None
    order_id: Key | None = None
    fact_key: Sha256 | None = None
    reverses: Key | None = None
    reverses_key: Sha256 | None = None
    properties: Properties | None = None
    labels: Annotated[dict[Named, Text], Meta(max_length=10)] | None = None


class DecisionMessage(ChoiceMessage):
    """A record of the decisions topic: a choice that was made elsewhere."""

    decision_id: Key
    loop: Annotated[str, _id(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    campaign: Key
    decided_at: Time
    unit: Unit | None = None
    context: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], Scalar], Meta(max_length=200)] = (
        msgspec.field(default_factory=dict)
    )
    deferred: bool = False


class CopyMessage(Struct):
    """A record of the contents topic: one content, and its campaign if ``loop`` is given."""

    campaign: Annotated[str, _id(r"^[A-Za-z0-9._:@-]{1,256}$")]
    slots: Annotated[dict[Named, str], Meta(min_length=1, max_length=20)]
    loop: Annotated[str, _id(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    content_id: Annotated[str, _id(r"^[A-Za-z0-9._:@-]{1,256}$")] | None = None
    id: Annotated[str, _id(r"^[A-Za-z0-9._:@-]{1,256}$")] | None = None
    features: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], Scalar], Meta(max_length=200)] = {}
    locale: Annotated[str, _id(r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$")] | None = None
    prompt_id: Key | None = None
    generator: Annotated[str, Meta(max_length=256)] | None = None
    parameters: Annotated[dict[str, Any], Meta(max_length=100)] = {}
    parent_id: Key | None = None
    brief: Annotated[str, Meta(max_length=20_000)] | None = None
    channel: Annotated[str, _id(r"^[A-Za-z0-9_.-]{1,64}$")] | None = None


_UNITS = ("unit", "unit_before")
_UNHASHED = (
    "Topics hold unit hashes only, and {!r} is none; send what `rewardloop unit <customer id>` prints, or compute it "
    "by the formula in docs/how-to/stream-with-kafka.md"
)
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_END = r"\\Z"
_AT = re.compile(r"^(.*?)(?: - at (?:`key` in )?`(.*)`)?$", re.DOTALL)


def form_fault(error: msgspec.ValidationError, shape: str) -> str:
    """What is wrong with which field, and what to do. ``shape``: the whole record in words, if it is none at all."""
    message, path = _AT.match(str(error)).groups()  # type: ignore[union-attr]  # it matches every text
    field = (path or "$").removeprefix("$").lstrip(".")
    if missing := _MISSING.match(message):
        return f"Field '{'.'.join(filter(None, (field, missing[1])))}' is missing; add it"
    if not field:
        return shape
    if field in _UNITS:
        return _UNHASHED.format(field)
    if pattern := re.search(r"matching regex '(.*)'", message):
        return f"Field {field!r} does not have the form {pattern[1].removesuffix(_END)}$; correct it"
    return f"Field {field!r}: {message[:1].lower()}{message[1:].replace('`', '')}; correct it"
