"""Azure Personalizer's API over a loop, for clients of the service that was retired: rank, reward, activate.

    their word            ours
    resource, its key     a loop: the one the API key is limited to, else REWARDLOOP_PERSONALIZER_LOOP
    action                a content of campaign ``<loop>-actions``, approved as it comes; its id is a hash
    event                 a decision
    reward                an event of type ``reward``; below 0 of type ``penalty``, with the value's size
    apprentice mode       ``apprentice`` of the loop; the first action that is not excluded is the baseline, in slots the
                          ``baselineAction`` of each
    default reward        ``default_reward`` of the loop; the wait time is the metrics' window
    slot                  a position; slot names are kept as context features

An action whose features change is another content, because contents never change; the answer names the caller's own
ids. Answers and errors have Personalizer's form and statuses (its REST reference, v1.0 and
v1.1-preview); they are its own, so they are not in our OpenAPI document.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from infra.clock import format_time
from infra.database import reading, writing
from infra.errors import BadInput, Forbidden, NotFound, RewardloopError
from infra.ids import uuid7
from infra.tables import decisions
from ingestion.contents import ACTIONS, put_campaign
from ingestion.decode import decode_event
from ingestion.events import Batch, Campaign, Event, Rejected
from ingestion.fields import FEATURES_LIMIT, sentence
from ingestion.http.access import caller
from ingestion.http.bodies import ContentBody
from ingestion.http.collector import activate as activate_decision
from ingestion.http.problems import retry_after
from ingestion.http.wiring import Collector
from ingestion.http.wiring import Wired as Collecting
from ingestion.stream.publisher import accept
from reward_models.serving.bodies import RankAnswer, RankBody
from reward_models.serving.routes import Serving, Wired, ask

Version = Literal["v1.0", "v1.1", "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3"]

router = APIRouter(prefix="/personalizer/{version}", include_in_schema=False)

MOST_ACTIONS = 50
SLOT_FEATURE = "slot"

_CODES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "ResourceNotFound", 409: "Conflict"}


class _Theirs(BaseModel):
    """A body of theirs: unknown fields are ignored, as the service did."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


EventId = Annotated[str, Field(min_length=1, max_length=256)]
FeatureList = list[dict[str, Any]]


class Action(_Theirs):
    """One thing to choose."""

    id: EventId = Field(description="The caller's id.")
    features: FeatureList = Field(default_factory=list, description="What is known of it.")


class RankRequest(_Theirs):
    """Which action now?"""

    context_features: FeatureList | None = Field(None, alias="contextFeatures", description="What is known now.")
    actions: list[Action] = Field(min_length=1, max_length=MOST_ACTIONS, description="What may be chosen.")
    excluded_actions: list[EventId] | None = Field(None, alias="excludedActions", description="What may not.")
    event_id: EventId | None = Field(None, alias="eventId", description="Default: a new one.")
    defer_activation: bool = Field(False, alias="deferActivation", description="It counts once it is activated.")


class Slot(_Theirs):
    """One place to fill."""

    id: EventId = Field(description="Its name.")
    baseline_action: str | None = Field(None, alias="baselineAction", description="What the caller would show.")
    excluded_actions: list[EventId] | None = Field(None, alias="excludedActions", description="What may not be here.")
    features: FeatureList | None = Field(None, description="What is known of it.")


class MultiSlotRankRequest(RankRequest):
    """Which actions, in which places?"""

    slots: list[Slot] = Field(min_length=1, max_length=MOST_ACTIONS, description="The places, the first the best.")


class RewardRequest(_Theirs):
    """What an event earned."""

    value: float = Field(ge=-1, le=1, allow_inf_nan=False, description="From -1 to 1.")


class SlotReward(_Theirs):
    """What a slot earned."""

    slot_id: EventId = Field(alias="slotId", description="Its name.")
    value: float = Field(ge=-1, le=1, allow_inf_nan=False, description="From -1 to 1.")


class MultiSlotRewardRequest(_Theirs):
    """What the slots of an event earned."""

    reward: list[SlotReward] = Field(min_length=1, max_length=MOST_ACTIONS, description="One per slot.")


async def _body(request: Request) -> bytes:
    return await request.body()


Raw = Annotated[bytes, Depends(_body)]


@router.post("/rank", summary="Choose an action", status_code=201)
def rank_actions(version: Version, wired: Wired, request: Request, raw: Raw) -> JSONResponse:  # noqa: ARG001 (path)
    """Personalizer's Rank: the actions, the chosen one first, with their probabilities."""
    try:
        asked = _read(RankRequest, raw)
        answer, names = _rank(asked, wired, request, 1, _flat(asked.context_features or []))
    except RewardloopError as error:
        return _problem(error)
    told = {one.content_id: one.behaviour_p for one in answer.candidates or ()}
    ranking = [{"id": names[one.content_id], "probability": told[one.content_id]} for one in answer.ranked]
    ranked = {one["id"] for one in ranking}
    left_out = [{"id": action.id, "probability": 0.0} for action in asked.actions if action.id not in ranked]
    document = {"ranking": ranking + left_out, "eventId": answer.decision_id, "rewardActionId": ranking[0]["id"]}
    return JSONResponse(document, 201)


@router.post("/multislot/rank", summary="Choose actions for slots", status_code=201)
def rank_slots(version: Version, wired: Wired, request: Request, raw: Raw) -> JSONResponse:  # noqa: ARG001 (path)
    """Personalizer's multi-slot Rank: an action per slot, no action twice."""
    try:
        asked = _read(MultiSlotRankRequest, raw)
        _check_slots(asked)
        places = {f"{SLOT_FEATURE}.{place}": slot.id for place, slot in enumerate(asked.slots, 1)}
        answer, names = _rank(asked, wired, request, len(asked.slots), _flat(asked.context_features or []) | places)
    except RewardloopError as error:
        return _problem(error)
    filled = [
        {"id": slot.id, "rewardActionId": names[one.content_id]}
        for slot, one in zip(asked.slots, answer.ranked[: len(asked.slots)], strict=True)
    ]
    return JSONResponse({"slots": filled, "eventId": answer.decision_id}, 201)


@router.post("/events/{event_id:path}/reward", summary="Reward an event", status_code=204)
def reward(version: Version, event_id: str, wired: Wired, collecting: Collecting, raw: Raw) -> Response:  # noqa: ARG001
    """Personalizer's Reward: of several the loop's definition says which count."""
    try:
        asked = _read(RewardRequest, raw)
        _own(event_id, wired)
        _earn(event_id, [(None, asked.value)], collecting)
    except RewardloopError as error:
        return _problem(error)
    return Response(status_code=204)


@router.post("/multislot/events/{event_id:path}/reward", summary="Reward slots", status_code=204)
def reward_slots(version: Version, event_id: str, wired: Wired, collecting: Collecting, raw: Raw) -> Response:  # noqa: ARG001
    """Personalizer's multi-slot Reward."""
    try:
        asked = _read(MultiSlotRewardRequest, raw)
        places = _places(_own(event_id, wired))
        if strange := [one.slot_id for one in asked.reward if one.slot_id not in places]:
            raise BadInput(f"Event {event_id!r} has no slot {strange[0]!r}; it has {', '.join(places) or 'one place'}")
        _earn(event_id, [(places[one.slot_id], one.value) for one in asked.reward], collecting)
    except RewardloopError as error:
        return _problem(error)
    return Response(status_code=204)


@router.post("/events/{event_id:path}/activate", summary="Activate an event", status_code=204)
@router.post("/multislot/events/{event_id:path}/activate", summary="Activate an event with slots", status_code=204)
def activate(version: Version, event_id: str, wired: Wired, collecting: Collecting) -> Response:  # noqa: ARG001
    """Personalizer's Activate."""
    try:
        _own(event_id, wired)
        activate_decision(event_id, collecting, None)
    except RewardloopError as error:
        return _problem(error)
    return Response(status_code=204)


Asked = TypeVar("Asked", bound=_Theirs)


def _read(kind: type[Asked], raw: bytes) -> Asked:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise BadInput(sentence(error.errors(include_url=False)[0])) from None


def _problem(error: RewardloopError) -> JSONResponse:
    status = 400 if error.status == BadInput.status else error.status
    code = _CODES.get(status, "InternalServerError")
    return JSONResponse({"error": {"code": code, "message": str(error)}}, status, retry_after(error))


def _loop(wired: Serving) -> str:
    """The caller's resource: the one loop its key is for. Raises :class:`Forbidden`."""
    known = caller()
    own = sorted(known.loops) if known is not None else []
    found = own[0] if len(own) == 1 else wired.settings.personalizer_loop
    if own and found not in own:
        raise Forbidden(f"The key is for loops {', '.join(own)}; limit it to one of them, which then answers here")
    return found


def _rank(
    asked: RankRequest, wired: Serving, request: Request, slots: int, context: dict[str, Any]
) -> tuple[RankAnswer, dict[str, str]]:
    """The answer, and the action behind each content. Raises :class:`BadInput` where not every slot can be filled."""
    loop_id = _loop(wired)
    campaign_id = loop_id + ACTIONS
    _register(wired, loop_id, campaign_id)
    try:
        drafts, open_ = _drafts(campaign_id, asked.actions), _open(asked)
        body = RankBody(
            decision_id=asked.event_id,
            loop=loop_id,
            campaign=campaign_id,
            context=context,
            candidates=[drafts[name] for name in open_],
            excluded=[str(drafts[name].id) for name in asked.excluded_actions or () if name in drafts],
            slots=slots,
            defer_activation=asked.defer_activation,
            explain=True,
        )
    except ValidationError as error:
        raise BadInput(sentence(error.errors(include_url=False)[0])) from None
    control = tuple(open_.index(name) for name in _baseline(asked, open_))
    answered = ask(body, wired, str(request.base_url), control, full=True)
    return answered, _names(answered, drafts, campaign_id, wired)


def _names(answer: RankAnswer, drafts: Mapping[str, ContentBody], campaign_id: str, wired: Serving) -> dict[str, str]:
    """The action behind each content. One whose copy somebody had registered under another id goes by that; another
    server may have heard of it first."""
    names = {str(draft.id): name for name, draft in drafts.items()}
    if names.keys() >= {one.content_id for one in answer.ranked}:
        return names
    wired.snapshots.look_at(campaign_id)
    known = wired.snapshots.current.campaigns[campaign_id].fingerprints
    prints = {name: draft.content(campaign_id).fingerprint for name, draft in drafts.items()}
    return names | {known[found]: name for name, found in prints.items() if found in known}


def _open(asked: RankRequest) -> list[str]:
    """The actions that may be chosen, in the caller's order. Raises :class:`BadInput` if there is none."""
    excluded = set(asked.excluded_actions or ())
    found = [action.id for action in asked.actions if action.id not in excluded]
    if not found:
        raise BadInput("All actions are excluded; leave at least one")
    return found


def _baseline(asked: RankRequest, open_: Sequence[str]) -> list[str]:
    """What the caller would show, by position: the open actions in their order, but where slots name their own."""
    named = [slot.baseline_action for slot in asked.slots] if isinstance(asked, MultiSlotRankRequest) else [None]
    others = iter([name for name in open_ if name not in named])
    found = [name if name is not None else next(others, None) for name in named]
    return [name for name in found if name is not None]


def _register(wired: Serving, loop_id: str, campaign_id: str) -> None:
    """The campaign that holds a loop's actions, made by the first call."""
    snapshot = wired.snapshots.current
    if campaign_id in snapshot.campaigns:
        return
    if loop_id not in snapshot.loops and loop_id not in wired.snapshots.seek().loops:
        return
    with writing(wired.engine) as connection:
        put_campaign(connection, Campaign(campaign_id=campaign_id, loop_id=loop_id, created_at=wired.clock()))


def _drafts(campaign_id: str, actions: Sequence[Action]) -> dict[str, ContentBody]:
    """A content per action, with an id made of what it is: with other features it is another content."""
    drafts: dict[str, ContentBody] = {}
    for action in actions:
        if action.id in drafts:
            raise BadInput(f"Action {action.id!r} is given twice; ids are unique")
        draft = ContentBody(slots={"action": action.id}, features=_flat(action.features))
        known_by = sha256(f"{campaign_id}\x00{draft.content(campaign_id).fingerprint}".encode()).hexdigest()
        drafts[action.id] = draft.model_copy(update={"id": f"a-{known_by[:20]}"})
    return drafts


def _flat(features: FeatureList) -> dict[str, Any]:
    """Nested features under dotted names; a list of words becomes one feature per word. Raises :class:`BadInput`."""
    found = {name[:128]: value for document in features for name, value in _leaves("", document)}
    if len(found) > FEATURES_LIMIT:
        raise BadInput(f"{len(found)} features; at most {FEATURES_LIMIT} are taken: send fewer")
    return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            is_word = isinstance(part, str)
            yield from _leaves(f"{name}.{part if is_word else place}", True if is_word else part)
    elif value is not None and not (isinstance(value, float) and not math.isfinite(value)):
        yield name or "value", value


def _check_slots(asked: MultiSlotRankRequest) -> None:
    if len({slot.id for slot in asked.slots}) != len(asked.slots):
        raise BadInput("Two slots have the same id; ids are unique")
    open_ = _open(asked)
    if len(asked.slots) > len(open_):
        raise BadInput(
            f"{len(asked.slots)} slots and {len(open_)} actions that are not excluded; send an action for every slot"
        )
    named = [slot.baseline_action for slot in asked.slots if slot.baseline_action is not None]
    if len(set(named)) < len(named) or not set(open_).issuperset(named):
        raise BadInput("Each slot has a baselineAction of its own, one of the actions and not excluded; correct them")
    if any(slot.excluded_actions for slot in asked.slots):
        raise BadInput("Actions are excluded for all slots or for none; use excludedActions of the request")


def _own(event_id: str, wired: Serving) -> dict[str, Any]:
    """The context of the event. Raises :class:`NotFound` if it is not known, or another loop's."""
    with reading(wired.engine) as connection:
        query = select(decisions.c.loop_id, decisions.c.context).where(decisions.c.decision_id == event_id)
        row = connection.execute(query).one_or_none()
    if row is None or row.loop_id != _loop(wired):
        raise NotFound(f"No event {event_id!r}; rank it first")
    context: dict[str, Any] = row.context
    return context


def _places(context: Mapping[str, Any]) -> dict[str, int]:
    """The position of every slot, by its name."""
    prefix = f"{SLOT_FEATURE}."
    return {
        value: int(name.removeprefix(prefix))
        for name, value in context.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal() and isinstance(value, str)
    }


def _earn(event_id: str, earned: Sequence[tuple[int | None, float]], wired: Collector) -> None:
    now = wired.clock()
    events = [
        decode_event(
            {
                "event_id": f"reward/{uuid7(now)}",
                "type": "reward" if value >= 0 else "penalty",
                "occurred_at": format_time(now),
                "decision_id": event_id,
                "position": position,
                "value": abs(value),
            },
            wired.edge(),
        )
        for position, value in earned
    ]
    if refused := [event for event in events if isinstance(event, Rejected)]:
        raise BadInput(refused[0].reason)
    accept(wired, Batch(events=tuple(event for event in events if isinstance(event, Event))), now)
