"""The calls that choose: rank, score, trace, promote.

``rank``: 1 read the snapshot (once more if the campaign is unknown), 2 register drafts, 3 decide, 4 store, 5 answer
what is stored. A decision id that is stored already is answered from its row; the same id with another body is a
conflict. Without the database the baseline is answered, unstored, or 503 (``unstored``).
"""

import hmac
import time
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from fastapi import Request as HttpRequest
from sqlalchemy import Engine

from infra import telemetry
from infra.clock import Clock
from infra.database import reading, writing
from infra.errors import BadInput, Conflict, ModelRefused, NotFound, Unavailable
from infra.ids import uuid7
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.contents import add_contents, admit, judge, read_campaign, start_campaign
from ingestion.events import Content, Decision
from ingestion.fields import DecisionId
from ingestion.http.access import actor
from ingestion.http.bodies import ContentBody
from ingestion.http.problems import responses
from ingestion.links import check_links
from ingestion.loops import LoopId, load_loop
from reward_models import registry
from reward_models.scoring import slot_for
from reward_models.serving.answering import Shape, answer_of
from reward_models.serving.asking import SHAPES, digest_of, request_of
from reward_models.serving.bodies import (
    PromoteAnswer,
    PromoteBody,
    RankAnswer,
    RankBody,
    Score,
    ScoreAnswer,
    ScoreBody,
    Trace,
)
from reward_models.serving.campaigns import Campaign
from reward_models.serving.customers import as_counted, as_known
from reward_models.serving.decision_log import DecisionLog, read_decisions
from reward_models.serving.ranker import Request, rank
from reward_models.serving.reasons import explained, score_reasons, told, with_reasons
from reward_models.serving.snapshot import Loop, Snapshot, Snapshots
from reward_models.serving.trace import trace

router = APIRouter(prefix="/v1")

NORMAL_95 = 1.959964
UNSTORED = "The decision cannot be stored now, so none was made; ask the same again, or do without"

WithReasons = Annotated[bool, Query(description="Say why each candidate had its score, too.")]


@dataclass(frozen=True)
class Serving:
    """What the calls stand on."""

    engine: Engine
    secrets: Secrets
    settings: Settings
    clock: Clock
    snapshots: Snapshots
    decisions: DecisionLog


async def _serving(request: HttpRequest) -> Serving:
    found: Serving = request.app.state.serving
    return found


Wired = Annotated[Serving, Depends(_serving)]


@router.post("/rank", tags=["decisions"], summary="Choose a content", responses=responses(400, 404, 409, 413, 415))
def choose(body: RankBody, wired: Wired, request: HttpRequest) -> RankAnswer:
    """Decide which content to send, store the decision with its probabilities, and answer it.

    Repeat it with the same `decision_id` and the same body: the stored answer comes back.
    """
    return ask(body, wired, str(request.base_url), why=body.explain)


def ask(
    body: RankBody,
    wired: Serving,
    base_url: str,
    control: tuple[int, ...] = (),
    full: bool = False,
    why: bool = False,
) -> RankAnswer:
    """The answer to a question. ``control``: what the caller would show by position, as places among the candidates; then
    that is its baseline. ``full``: where not every slot can be filled nothing is decided. ``why``: with the reasons."""
    began = time.perf_counter()
    links = body.links or {}
    check_links(links, body.slots, wired.settings)
    decision, durable = _decide(body, wired, control, full)
    shape = Shape(links, wired.settings.public_url or base_url, body.explain)
    answered = RankAnswer.model_validate(answer_of(decision, durable, wired.secrets, shape))
    if why:
        answered = with_reasons(answered, explained(decision, wired.snapshots, _view(body, wired)[0], wired.engine))
    if not body.dry_run:
        telemetry.ranks.labels(decision.group, decision.learning_mode, str(durable).lower()).inc()
    telemetry.rank_seconds.labels(decision.learning_mode).observe(time.perf_counter() - began)
    return answered


@router.post("/score", tags=["decisions"], summary="Score texts", responses=responses(400, 404, 409, 413, 415))
def score(body: ScoreBody, wired: Wired) -> ScoreAnswer:
    """Expected reward of texts or contents with its interval. Nothing is stored, nothing is explored."""
    loop = _known_loop(wired.snapshots, body.loop)
    if loop.served is None:
        raise ModelRefused(
            f"Loop {body.loop!r} has no model to score with; train one with POST /v1/loops/{body.loop}/retrain "
            "and promote it"
        )
    model = loop.served.model
    contents = _to_score(body, wired)
    expected = model.grid([body.context], contents)[0]
    reach = NORMAL_95 * model.spread(contents)
    why = score_reasons(model, body.context, contents, expected.tolist()) if body.explain else [None] * len(contents)
    place = np.argsort(np.argsort(-expected, kind="stable"), kind="stable") + 1
    return ScoreAnswer(
        loop=body.loop,
        model_version=loop.served.version,
        loop_mean=model.levels.mean,
        scores=[
            Score(
                index=index,
                expected=value,
                low=value - float(reach[index]),
                high=value + float(reach[index]),
                relative=value - model.levels.mean,
                rank=int(place[index]),
                reasons=told(why[index]),
            )
            for index, value in enumerate(expected.tolist())
        ],
    )


@router.get("/decisions/{decision_id:path}", tags=["decisions"], summary="Trace a decision", responses=responses(404))
def read_trace(decision_id: DecisionId, wired: Wired, explain: WithReasons = False) -> Trace:
    """Everything that is known of a decision: probabilities, events and why they count, outcome, reward, replay."""
    with reading(wired.engine) as connection:
        return trace(connection, decision_id, wired.snapshots, wired.clock(), explain)


@router.post(
    "/loops/{loop_id}/promote",
    tags=["loops"],
    summary="Promote a version",
    responses=responses(400, 404, 409, 413, 415),
)
def promote(loop_id: LoopId, body: PromoteBody, wired: Wired) -> PromoteAnswer:
    """Serve a version that passed its gate. Compare-and-swap: of two calls one wins, the other gets 409."""
    with writing(wired.engine) as connection:
        definition, _ = load_loop(connection, loop_id)
        current = registry.champion(connection, loop_id)
        if body.replaces is not None and (current is None or current.version != body.replaces):
            there = f"serves {current.version!r}" if current else "has no champion yet"
            raise Conflict(
                f"Loop {loop_id!r} {there}, not {body.replaces!r}; look at it again, then decide", "/replaces"
            )
        promoted = registry.promote(
            connection,
            loop_id,
            body.version,
            current.revision if current else registry.NO_CHAMPION,
            wired.clock(),
            actor(body.actor),
            needs_approval=definition.gate.approval,
        )
    wired.snapshots.refresh()
    return PromoteAnswer(loop=loop_id, version=promoted.version, revision=promoted.revision)


def _decide(body: RankBody, wired: Serving, control: tuple[int, ...], full: bool) -> tuple[Decision, bool]:
    """The decision that is stored for this body, or one that is not stored; and whether it is."""
    asked, engine = _digest(body, wired.secrets), wired.decisions.engine
    try:
        if body.decision_id is not None and (stored := _stored(engine, body.decision_id)) is not None:
            return _same(stored, asked), True
        _prepare(body, wired)
        snapshot, request = _asked(body, wired, asked, control)
        request, away = as_counted(request, snapshot, wired.secrets, engine), False
    except Unavailable as reason:
        if body.campaign not in wired.snapshots.current.campaigns:
            raise
        if wired.settings.unstored == "refuse" and not body.dry_run:
            raise Unavailable(UNSTORED) from reason
        (snapshot, request), away = _asked(body, wired, asked, control), True
    limit = wired.settings.candidate_limit
    decision = rank(snapshot, request, wired.secrets, limit, away)
    if full and len(decision.chosen) < body.slots:
        raise BadInput(
            f"{body.slots} slots and {len(decision.chosen)} of the contents may be chosen; approve more, or ask for fewer slots"
        )
    if body.dry_run or away:
        return decision, False
    try:
        return _same(wired.decisions.store(decision), asked), True
    except Unavailable as reason:
        if wired.settings.unstored == "refuse":
            raise Unavailable(UNSTORED) from reason
        return rank(snapshot, request, wired.secrets, limit, away=True), False


def _asked(body: RankBody, wired: Serving, asked: str, control: tuple[int, ...]) -> tuple[Snapshot, Request]:
    """What the question is decided on, and the question with what is known of its customer."""
    snapshot, names = _view(body, wired)
    now = wired.clock()
    request = request_of(body, body.decision_id or uuid7(now), asked, names, now)
    if control and names is not None:
        request = replace(request, control=tuple(names[place] for place in control))
    return snapshot, as_known(request, snapshot, wired.secrets)


def _prepare(body: RankBody, wired: Serving) -> None:
    """Make the snapshot know all that the request names: a campaign registered elsewhere, drafts given here."""
    snapshot = wired.snapshots.current
    if body.loop not in snapshot.loops or body.campaign not in snapshot.campaigns:
        snapshot = wired.snapshots.seek()
    campaign = snapshot.campaigns.get(body.campaign)
    drafts = _drafts(body)
    if campaign is None or body.dry_run or all(_is_known(draft, campaign) for draft in drafts):
        return
    if len(body.candidates or ()) > wired.settings.candidate_limit:
        raise BadInput(f"At most {wired.settings.candidate_limit} candidates; send fewer", "/candidates")
    now = wired.clock()
    with writing(wired.decisions.engine) as connection:
        added = add_contents(connection, body.campaign, drafts, wired.settings.text_limit_bytes, now)
        if campaign.state == "draft" and any(content.approval == "approved" for content in added):
            start_campaign(connection, body.campaign, None, actor("rank"), now)
    wired.snapshots.look_at(body.campaign)


def _view(body: RankBody, wired: Serving) -> tuple[Snapshot, tuple[str, ...] | None]:
    """The snapshot to decide on, and the candidates' ids. Drafts that are not registered count as if they were."""
    snapshot = wired.snapshots.current
    loop, campaign = _known_loop(wired.snapshots, body.loop), snapshot.campaigns.get(body.campaign)
    if campaign is None:
        raise NotFound(f"No campaign {body.campaign!r}; register it with POST /v1/campaigns", "/campaign")
    if body.candidates is None:
        return snapshot, None
    limit, now = wired.settings.text_limit_bytes, wired.clock()
    names, strangers = [], []
    for candidate in body.candidates:
        if isinstance(candidate, str):
            names.append(candidate)
            continue
        draft = admit(loop.definition, body.campaign, candidate.content(body.campaign), limit, now)
        names.append(campaign.fingerprints.get(draft.fingerprint, draft.content_id))
        if draft.fingerprint not in campaign.fingerprints:
            strangers.append(draft)
    if strangers and loop.definition.copy_rules.any:
        strangers = _judged(wired, loop, body.campaign, strangers)
    return (snapshot.with_drafts(loop, campaign, strangers) if strangers else snapshot), tuple(names)


def _judged(wired: Serving, loop: Loop, campaign_id: str, drafts: list[Content]) -> list[Content]:
    """The drafts as the loop's rules would take them. With the database away nobody knows their brief: they stay drafts,
    which are no candidates."""
    try:
        with reading(wired.engine) as connection:
            judged = judge(connection, loop.definition, read_campaign(connection, campaign_id), drafts)
    except Unavailable:
        return drafts
    return [content for content, _ in judged]


def _known_loop(snapshots: Snapshots, loop_id: str) -> Loop:
    loop = snapshots.current.loops.get(loop_id)
    if loop is None:
        raise NotFound(f"No loop {loop_id!r}; define it with PUT /v1/loops/{loop_id}", "/loop")
    return loop


def _drafts(body: RankBody) -> list[Content]:
    return [one.content(body.campaign) for one in body.candidates or () if isinstance(one, ContentBody)]


def _is_known(draft: Content, campaign: Campaign) -> bool:
    known = campaign.fingerprints.get(draft.fingerprint)
    return known is not None and draft.content_id in ("", known)


def _digest(body: RankBody, secrets: Secrets) -> str:
    return digest_of(body.loop, body.model_dump(mode="json", exclude_unset=True, exclude=set(SHAPES)), secrets)


def _stored(engine: Engine, decision_id: str) -> Decision | None:
    with reading(engine) as connection:
        return read_decisions(connection, [decision_id]).get(decision_id)


def _same(stored: Decision, asked: str) -> Decision:
    if not hmac.compare_digest(stored.request_digest, asked):
        raise Conflict(
            f"Decision {stored.decision_id!r} is stored with another body; give this one its own id", "/decision_id"
        )
    return stored


def _to_score(body: ScoreBody, wired: Serving) -> list[Content]:
    if (body.contents is None) == (body.texts is None):
        raise BadInput("Send either contents or texts", "/contents")
    loop = _known_loop(wired.snapshots, body.loop)
    slot = body.slot if "slot" in body.model_fields_set or loop.served is None else slot_for(loop.served.model)
    bodies = body.contents if body.contents is not None else [_of_text(slot, text) for text in body.texts or ()]
    if not bodies:
        raise BadInput("There is nothing to score; send at least one text or content", "/texts")
    campaign, limit = body.campaign or "", wired.settings.text_limit_bytes
    return [admit(loop.definition, campaign, one.content(campaign), limit, wired.clock()) for one in bodies]


def _of_text(slot: str, text: str) -> ContentBody:
    return ContentBody(slots={slot: text})
