"""Reading a question: the body of ``POST /v1/rank`` as the ranker takes it, and its digest.

``RankBody`` (pydantic) is the contract: it reads every body, and says what is wrong with one. ``read_plain`` reads what
nearly all questions are, some twenty times as fast: no drafts, no links, nothing that only shapes the answer. What it
does not read it leaves to ``RankBody``, a wrong body too, so there is one place that explains. Both read the same: a
test holds them together.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from infra.database import canonical_json
from infra.randomness import digest
from infra.secrets import Secrets
from ingestion.fields import FEATURES_LIMIT, TEXT_LIMIT
from reward_models.serving.ranker import Request

SHAPES = frozenset({"dry_run", "explain", "links"})
"""Fields that only shape the answer: they are no part of the question."""

_Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:@-]{1,256}\Z")]
_LoopId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
_Named = Annotated[str, Meta(min_length=1, max_length=256)]
_Value = Annotated[int, Meta(ge=-(2**53), le=2**53)] | float | Annotated[str, Meta(max_length=TEXT_LIMIT)] | bool | None
_Features = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], _Value], Meta(max_length=FEATURES_LIMIT)]


class Question(Protocol):
    """What both readers read."""

    @property
    def decision_id(self) -> str | None: ...
    @property
    def loop(self) -> str: ...
    @property
    def campaign(self) -> str: ...
    @property
    def unit(self) -> str | None: ...
    @property
    def context(self) -> Mapping[str, Any]: ...
    @property
    def slots(self) -> int: ...
    @property
    def defer_activation(self) -> bool: ...
    @property
    def excluded(self) -> Sequence[str]: ...
    @property
    def must_include(self) -> Sequence[str]: ...


class Plain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question without drafts; the fields of ``RankBody`` with its limits."""

    loop: _LoopId
    campaign: _Id
    decision_id: _Named | None = None
    unit: _Named | None = None
    context: _Features = {}
    candidates: Annotated[tuple[_Id, ...], Meta(min_length=1)] | None = None
    slots: Annotated[int, Meta(ge=1, le=500)] = 1
    defer_activation: bool = False
    excluded: Annotated[tuple[_Id, ...], Meta(max_length=500)] = ()
    must_include: Annotated[tuple[_Id, ...], Meta(max_length=500)] = ()


class Asked(NamedTuple):
    """A plain question, and what was said of it: the fields given, with their values."""

    question: Plain
    said: dict[str, Any]


_document = msgspec.json.Decoder(dict[str, Any]).decode


def read_plain(body: bytes) -> Asked | None:
    """The question, if it is a plain one without a fault. None: ask ``RankBody``."""
    try:
        document = _document(body)
        question = msgspec.convert(document, Plain)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Asked(question, {name: getattr(question, name) for name in document})


def digest_of(loop_id: str, said: Mapping[str, Any], secrets: Secrets) -> str:
    """Keyed, because the body names the customer in clear. ``said``: the fields given, but for ``SHAPES``."""
    return digest(secrets.loop(loop_id), "request", canonical_json(said).decode()).hex()


def request_of(
    question: Question, decision_id: str, asked: str, candidates: tuple[str, ...] | None, now: int
) -> Request:
    """The question as the ranker takes it. ``asked``: its digest."""
    return Request(
        decision_id=decision_id,
        request_digest=asked,
        loop_id=question.loop,
        campaign_id=question.campaign,
        decided_at=now,
        unit=question.unit,
        context=question.context,
        candidates=candidates,
        excluded=tuple(question.excluded),
        must_include=tuple(question.must_include),
        slots=question.slots,
        deferred=question.defer_activation,
    )
