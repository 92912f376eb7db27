"""HTTP: the approval queue (``reviews.py``). What is decided goes to ``POST /v1/contents/{id}/approval``."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from infra.clock import format_time
from infra.database import reading
from ingestion.copy.reviews import Waiting, waiting
from ingestion.fields import Body, Id
from ingestion.http.problems import responses
from ingestion.http.wiring import Wired
from ingestion.loops import LoopId, load_loop

router = APIRouter(prefix="/v1")


class VerdictAnswer(Body):
    """What one rule said."""

    rule: str = Field(description="The rule: `length`, `banned`, `facts`, `near_duplicate`, `best_of` …")
    passed: bool = Field(description="Whether it holds.")
    reason: str = Field(description="What was found.")


class WaitingContent(Body):
    """Copy that waits for approval."""

    content_id: str = Field(description="Its id.")
    campaign: str = Field(description="The campaign it is to compete in.")
    slots: dict[str, str] = Field(description="`{slot: text}`.")
    locale: str | None = Field(description="BCP 47 tag.")
    prompt_id: str | None = Field(description="The prompt that made it.")
    generator: str | None = Field(description="The model or person that made it.")
    parameters: dict[str, Any] = Field(description="Prompt version, model, seed, tokens and cost, as far as known.")
    created_at: str = Field(description="When it was registered.")
    verdicts: list[VerdictAnswer] = Field(description="What the guardrails said; empty where no rule is in force.")


class ApprovalQueue(Body):
    """A page of the queue, by content id."""

    waiting: list[WaitingContent] = Field(description="The contents.")
    next: str | None = Field(description="Give it as `after` for the next page; null: this is the last.")


@router.get("/loops/{loop_id}/approvals", tags=["copy"], summary="Approval queue", responses=responses(404))
def read_queue(
    loop_id: LoopId,
    wired: Wired,
    campaign: Id | None = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most entries of the page.")] = 100,
    after: Annotated[Id | None, Query(description="`next` of the page before.")] = None,
) -> ApprovalQueue:
    """Copy of a loop that waits for approval, with what the guardrails said of it."""
    with reading(wired.engine) as connection:
        load_loop(connection, loop_id)
        found = waiting(connection, loop=loop_id, campaign=campaign, after=after, limit=limit + 1)
    following = found[limit - 1].content_id if len(found) > limit else None
    return ApprovalQueue(waiting=[_answer(one) for one in found[:limit]], next=following)


def _answer(one: Waiting) -> WaitingContent:
    return WaitingContent(
        content_id=one.content_id,
        campaign=one.campaign_id,
        slots=one.slots,
        locale=one.locale,
        prompt_id=one.prompt_id,
        generator=one.generator,
        parameters=one.parameters,
        created_at=format_time(one.created_at),
        verdicts=[VerdictAnswer(rule=said.rule, passed=said.passed, reason=said.reason) for said in one.verdicts],
    )
