"""HTTP in: events, feedback, loops, campaigns, contents, approval.

Every call is one transaction: what is refused leaves nothing behind. At least once is safe for all of them,
because every id is an idempotency key: the same body again changes nothing.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from sqlalchemy import Connection, Engine, Row, func, select

from infra import tables
from infra.clock import HOUR, format_time, parse_time
from infra.database import reading, writing
from infra.errors import BadInput, NotFound
from infra.ids import uuid7
from ingestion.contents import (
    Registered,
    add_contents,
    end_campaign,
    put_campaign,
    read_campaign,
    set_approval,
    start_campaign,
)
from ingestion.decode import Edge, decode_event
from ingestion.events import ACTIVATION, Batch, Campaign, Event, Rejected, hash_id
from ingestion.feedback import add_feedback
from ingestion.fields import DecisionId, Id
from ingestion.http.access import actor, has_public_key
from ingestion.http.bodies import (
    ActivateAnswer,
    ActivateBody,
    ApprovalAnswer,
    ApprovalBody,
    CampaignAnswer,
    CampaignBody,
    Campaigns,
    ContentAnswer,
    ContentResult,
    ContentsAnswer,
    ContentsBody,
    EventsAnswer,
    EventsBody,
    FeedbackAnswer,
    FeedbackBody,
    LoopAnswer,
    Loops,
    MetricResult,
    PublishedAnswer,
    RejectedEvent,
    Results,
    StoredContent,
    StoredContents,
    SwitchAnswer,
    SwitchBody,
)
from ingestion.http.problems import responses
from ingestion.http.wiring import Collector, Wired
from ingestion.join.backfill import redefine
from ingestion.loops import LoopDefinition, LoopId, load_loop, load_loops, parse_definition
from ingestion.results import Result, campaign_results
from ingestion.stream.publisher import accept
from ingestion.switches import killed_loops, set_switch

router = APIRouter(prefix="/v1")

PUBLISHED: dict[int | str, dict[str, Any]] = {
    202: {"model": PublishedAnswer, "description": "On the events topic (with Kafka configured)"}
}
API = "api"
"""The actor of changes that name nobody."""


Limit = Annotated[int, Query(ge=1, le=500, description="Most entries of the page.")]
After = Annotated[Id | None, Query(description="`next` of the page before.")]


@router.post(
    "/events",
    tags=["events"],
    summary="Send events",
    response_model=EventsAnswer,
    responses={**responses(400, 413, 415), **PUBLISHED},
)
def send_events(body: EventsBody, wired: Wired) -> EventsAnswer | JSONResponse:
    """Store a batch of native events and join them with their decisions.

    Each event stands or falls alone: an unusable one is put into quarantine with its reason, the others count.
    The same event id with the same body is a duplicate and changes nothing. With Kafka configured the events are on
    their topic once this is answered (202), and duplicates are told from new ones by the worker.
    """
    limit = wired.settings.events_limit
    if len(body.events) > limit:
        raise BadInput(f"{len(body.events)} events in one call; send at most {limit} at a time", "/events")
    edge = wired.edge(signed=has_public_key())
    decoded = [_decoded(item, index, edge) for index, item in enumerate(body.events)]
    events = {index: event for index, event in enumerate(decoded) if isinstance(event, Event)}
    rejected = {index: event for index, event in enumerate(decoded) if isinstance(event, Rejected)}
    batch = Batch(events=tuple(events.values()), rejected=tuple(rejected.values()))
    kept = accept(wired, batch, edge.received_at, [f"/events/{index}" for index in events])
    states: dict[int, Any] = dict(zip(events, kept, strict=True)) | rejected
    refused = [
        RejectedEvent(index=index, event_id=_event_id(body.events[index]), reason=state.reason)
        for index, state in sorted(states.items())
        if isinstance(state, Rejected)
    ]
    if wired.publisher is not None:
        return _published(PublishedAnswer(accepted=len(events), rejected=refused))
    words = list(states.values())
    return EventsAnswer(
        accepted=words.count("applied"),
        duplicate=words.count("duplicate"),
        pending=words.count("pending"),
        ignored=words.count("ignored") + words.count("sealed"),
        rejected=refused,
    )


@router.post(
    "/decisions/{decision_id:path}/activate",
    tags=["decisions"],
    summary="Activate",
    response_model=ActivateAnswer,
    responses={**responses(400, 404, 413, 415), 202: {"model": ActivateAnswer, "description": "On the events topic"}},
)
def activate(decision_id: DecisionId, wired: Wired, body: ActivateBody | None = None) -> ActivateAnswer | JSONResponse:
    """Say that a decision was really sent: its windows start now, and a deferred decision counts from now on."""
    now = wired.clock()
    known = _activated_at(wired.engine, decision_id)
    if known is None:
        at = _sent_at(wired, decision_id, body.occurred_at, now) if body and body.occurred_at else now
        accept(wired, Batch(events=(_activation(wired, decision_id, at, now),)), now)
        if wired.publisher is not None:
            return _published(ActivateAnswer(decision_id=decision_id, activated_at=format_time(at), state="published"))
    activated_at = _activated_at(wired.engine, decision_id)
    return ActivateAnswer(
        decision_id=decision_id,
        activated_at=format_time(now if activated_at is None else activated_at),
        state="applied" if known is None else "duplicate",
    )


@router.post("/feedback", tags=["events"], summary="Give feedback", responses=responses(400, 404, 409, 413, 415))
def give_feedback(body: FeedbackBody, wired: Wired) -> FeedbackAnswer:
    """Store a comment, a rating, a demonstration or a preference."""
    now = wired.clock()
    feedback_id = body.feedback_id or uuid7(now)
    with writing(wired.engine) as connection:
        new = add_feedback(connection, feedback_id, body, wired.settings.text_limit_bytes, now)
    return FeedbackAnswer(feedback_id=feedback_id, status="created" if new else "existing")


@router.get("/loops", tags=["loops"], summary="List loops", responses=responses())
def list_loops(wired: Wired) -> Loops:
    """Every loop with its definition in force."""
    with reading(wired.engine) as connection:
        killed = killed_loops(connection)
        found = sorted(load_loops(connection).items())
    return Loops(loops=[_loop_answer(definition, version, killed) for _, (definition, version) in found])


@router.get("/loops/{loop_id}", tags=["loops"], summary="Read a loop", responses=responses(404))
def read_loop(loop_id: LoopId, wired: Wired) -> LoopAnswer:
    """The definition in force."""
    with reading(wired.engine) as connection:
        definition, version = load_loop(connection, loop_id)
        return _loop_answer(definition, version, killed_loops(connection))


@router.put("/loops/{loop_id}", tags=["loops"], summary="Define a loop", responses=responses(400, 409, 413, 415))
def define_loop(loop_id: LoopId, body: dict[str, Any], wired: Wired) -> LoopAnswer:
    """Define a loop, or change it: a new version. `loop` may be left out of the body.

    When the metrics change, history is scored again under the new ones; no fact is touched.
    """
    definition = parse_definition({"loop": loop_id} | body)
    if definition.loop != loop_id:
        raise BadInput(
            f"The body defines loop {definition.loop!r}, the path names {loop_id!r}; make them equal", "/loop"
        )
    version = redefine(wired.engine, definition, wired.clock(), actor(API))
    wired.changed()
    with reading(wired.engine) as connection:
        return _loop_answer(definition, version, killed_loops(connection))


@router.post("/loops/{loop_id}/kill", tags=["loops"], summary="Kill switch", responses=responses(400, 404, 413, 415))
def switch_loop(loop_id: LoopId, wired: Wired, body: SwitchBody | None = None) -> SwitchAnswer:
    """Put a loop on its baseline at once, or, with `killed: false`, let it choose again."""
    body = body or SwitchBody(killed=True)
    with writing(wired.engine) as connection:
        set_switch(connection, loop_id, body.killed, body.reason, actor(body.actor), wired.clock())
    wired.changed()
    return SwitchAnswer(loop=loop_id, killed=body.killed)


@router.post("/campaigns", tags=["copy"], summary="Register a campaign", responses=responses(400, 404, 409, 413, 415))
def register_campaign(body: CampaignBody, wired: Wired) -> CampaignAnswer:
    """Register a campaign, with contents if you like; start it, or end it.

    The start freezes the baseline: the named control, or uniform over the contents approved by then.
    """
    now = wired.clock()
    campaign = Campaign(
        campaign_id=body.campaign, loop_id=body.loop, brief=body.brief, channel=body.channel, created_at=now
    )
    contents = [content.content(body.campaign) for content in body.contents]
    with writing(wired.engine) as connection:
        load_loop(connection, body.loop)
        put_campaign(connection, campaign)
        added = (
            add_contents(connection, body.campaign, contents, wired.settings.text_limit_bytes, now) if contents else []
        )
        if body.state == "ended":
            end_campaign(connection, body.campaign, actor(API), now)
        elif body.state == "running" or (body.state is None and _may_start(connection, body.campaign)):
            start_campaign(connection, body.campaign, body.control, actor(API), now)
        stored = read_campaign(connection, body.campaign)
    wired.changed()
    return _campaign_answer(stored, added)


@router.get("/campaigns", tags=["copy"], summary="List campaigns", responses=responses())
def list_campaigns(wired: Wired, loop: LoopId | None = None, limit: Limit = 100, after: After = None) -> Campaigns:
    """Campaigns by id, all or those of one loop."""
    query = select(tables.campaigns).order_by(tables.campaigns.c.campaign_id).limit(limit + 1)
    if loop is not None:
        query = query.where(tables.campaigns.c.loop_id == loop)
    if after is not None:
        query = query.where(tables.campaigns.c.campaign_id > after)
    with reading(wired.engine) as connection:
        rows = connection.execute(query).all()
    following = rows[limit - 1].campaign_id if len(rows) > limit else None
    return Campaigns(campaigns=[_campaign_answer(row, []) for row in rows[:limit]], next=following)


@router.get("/campaigns/{campaign_id}/results", tags=["copy"], summary="Results so far", responses=responses(404))
def read_results(campaign_id: Id, wired: Wired) -> Results:
    """How often each content was shown, and what came of it so far, whoever chose it."""
    with reading(wired.engine) as connection:
        read_campaign(connection, campaign_id)
        return _results(campaign_id, campaign_results(connection, campaign_id))


@router.post("/contents", tags=["copy"], summary="Register contents", responses=responses(400, 404, 409, 413, 415))
def register_contents(body: ContentsBody, wired: Wired) -> ContentsAnswer:
    """Register generated copy in its campaign. Contents never change: an edit is a new content with a parent."""
    contents = [content.content(body.campaign) for content in body.contents]
    with writing(wired.engine) as connection:
        added = add_contents(connection, body.campaign, contents, wired.settings.text_limit_bytes, wired.clock())
    wired.changed()
    return ContentsAnswer(contents=_content_answers(added))


@router.get("/contents", tags=["copy"], summary="List contents", responses=responses())
def list_contents(wired: Wired, campaign: Id | None = None, limit: Limit = 100, after: After = None) -> StoredContents:
    """Contents by id, all or those of one campaign."""
    query = select(tables.contents).order_by(tables.contents.c.content_id).limit(limit + 1)
    if campaign is not None:
        query = query.where(tables.contents.c.campaign_id == campaign)
    if after is not None:
        query = query.where(tables.contents.c.content_id > after)
    with reading(wired.engine) as connection:
        rows = connection.execute(query).all()
    following = rows[limit - 1].content_id if len(rows) > limit else None
    return StoredContents(contents=[_stored_content(row) for row in rows[:limit]], next=following)


@router.post(
    "/contents/{content_id}/approval",
    tags=["copy"],
    summary="Approve a content",
    responses=responses(400, 404, 409, 413, 415),
)
def approve(content_id: Id, body: ApprovalBody, wired: Wired) -> ApprovalAnswer:
    """Approve, reject or retire a content. Only approved contents are candidates."""
    with writing(wired.engine) as connection:
        before = set_approval(connection, content_id, body.approval, actor(body.actor), body.reason, wired.clock())
    wired.changed()
    return ApprovalAnswer(content_id=content_id, before=before, approval=body.approval)


def _published(answer: PublishedAnswer | ActivateAnswer) -> JSONResponse:
    return JSONResponse(answer.model_dump(), 202)


def _activation(wired: Collector, decision_id: str, at: int, now: int) -> Event:
    """Said at another time it is another fact: the earliest counts."""
    return Event(
        source=wired.edge().source,
        event_id=f"{ACTIVATION}:{hash_id(decision_id)[:32]}:{at}",
        type=ACTIVATION,
        occurred_at=at,
        received_at=now,
        decision_id=decision_id,
        link="decision_id",
    )


def _decoded(item: Any, index: int, edge: Edge) -> Event | Rejected:
    event_id = _event_id(item)
    named = event_id is not None and event_id.isprintable()
    position = f"event/{event_id}"[:256] if named else f"item/{index}"
    return decode_event(item if isinstance(item, dict) else msgspec.json.encode(item), edge, position)


def _event_id(item: Any) -> str | None:
    found = item.get("event_id") if isinstance(item, dict) else None
    return found[:256] if isinstance(found, str) else None


def _moment(text: str, now: int) -> int:
    try:
        moment = parse_time(text)
    except (ValueError, OverflowError):
        raise BadInput(
            f"occurred_at {text!r} is not a time; write ISO 8601 like 2026-11-22T10:02:00Z", "/occurred_at"
        ) from None
    if not 0 <= moment <= now + HOUR:
        raise BadInput(f"occurred_at {text} is not in the past; it is {format_time(now)} here", "/occurred_at")
    return moment


def _sent_at(wired: Collector, decision_id: str, text: str, now: int) -> int:
    """When a decision was sent: after it was made, as far as two clocks agree."""
    with reading(wired.engine) as connection:
        decisions = tables.decisions.c
        decided_at = connection.scalar(select(decisions.decided_at).where(decisions.decision_id == decision_id))
    moment = _moment(text, now)
    if decided_at is not None and moment < decided_at - HOUR:
        raise BadInput(
            f"occurred_at {text} is before the decision, {format_time(decided_at)}; set the sender's clock",
            "/occurred_at",
        )
    return moment


def _activated_at(engine: Engine, decision_id: str) -> int | None:
    """The earliest activation, null for none. Raises ``NotFound`` for an unknown decision."""
    with reading(engine) as connection:
        if connection.scalar(select(func.count()).where(tables.decisions.c.decision_id == decision_id)) == 0:
            raise NotFound(f"No decision {decision_id!r}; activate one that /v1/rank answered with durable true")
        events = tables.events.c
        query = select(func.min(events.occurred_at)).where(events.type == ACTIVATION, events.decision_id == decision_id)
        found: int | None = connection.scalar(query)
    return found


def _may_start(connection: Connection, campaign_id: str) -> bool:
    """Whether a campaign that nobody started or ended has an approved content."""
    campaigns, contents = tables.campaigns.c, tables.contents.c
    draft = connection.scalar(select(campaigns.state).where(campaigns.campaign_id == campaign_id)) == "draft"
    query = select(func.count()).where(contents.campaign_id == campaign_id, contents.approval == "approved")
    return draft and bool(connection.scalar(query))


def _loop_answer(definition: LoopDefinition, version: int, killed: set[str]) -> LoopAnswer:
    return LoopAnswer(loop=definition.loop, version=version, killed=definition.loop in killed, definition=definition)


def _campaign_answer(row: Row[Any], added: list[Registered]) -> CampaignAnswer:
    return CampaignAnswer(
        campaign=row.campaign_id,
        loop=row.loop_id,
        brief=row.brief,
        channel=row.channel,
        state=row.state,
        baseline=row.baseline,
        created_at=format_time(row.created_at),
        contents=_content_answers(added),
    )


def _results(campaign_id: str, results: list[Result]) -> Results:
    by_content: dict[str, list[Result]] = {}
    for result in results:
        by_content.setdefault(result.content_id, []).append(result)
    shown = {content_id: max(row.exposures for row in rows) for content_id, rows in by_content.items()}
    total = sum(shown.values())
    return Results(
        campaign=campaign_id,
        exposures=total,
        contents=[
            ContentResult(
                content_id=content_id,
                exposures=shown[content_id],
                share=shown[content_id] / total,
                metrics={
                    row.metric: MetricResult(successes=row.successes, total=row.total, mean=row.total / row.exposures)
                    for row in rows
                },
            )
            for content_id, rows in by_content.items()
        ],
    )


def _content_answers(added: list[Registered]) -> list[ContentAnswer]:
    return [ContentAnswer(content_id=one.content_id, status=one.status, approval=one.approval) for one in added]


def _stored_content(row: Row[Any]) -> StoredContent:
    return StoredContent(
        content_id=row.content_id,
        campaign=row.campaign_id,
        slots=row.slots,
        features=row.features,
        locale=row.locale,
        prompt_id=row.prompt_id,
        generator=row.generator,
        parameters=row.parameters,
        parent_id=row.parent_id,
        approval=row.approval,
        created_at=format_time(row.created_at),
    )
