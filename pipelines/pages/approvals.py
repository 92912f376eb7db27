"""The approval queue as a page: ``/loops/{loop}/approvals`` shows copy that waits, with a button to approve and one to reject.

A click posts to ``/loops/{loop}/contents/{content}/approval``, which needs the scope ``admin``. Another site cannot click: the
browser must say that the click came from our own page, and the address carries a signature that only our page knows.
"""

import hmac
from typing import Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from infra.database import reading, writing
from infra.errors import Forbidden, NotFound, RewardloopError
from infra.randomness import derive, digest
from infra.secrets import Secrets
from ingestion.contents import set_approval
from ingestion.copy.reviews import Waiting, waiting
from ingestion.copy.slots import as_read
from ingestion.fields import Id
from ingestion.http.access import actor, caller
from ingestion.loops import LoopId, load_loop
from pipelines.pages.routes import page, problem
from pipelines.pages.views import amount
from reward_models.serving.routes import Wired

SHOWN = 100
"""Contents on one page."""
Word = Literal["approved", "rejected"]

router = APIRouter(include_in_schema=False)


@router.get("/loops/{loop_id}/approvals")
def queue(loop_id: LoopId, wired: Wired) -> HTMLResponse:
    """Copy of a loop that waits for approval."""
    try:
        with reading(wired.engine) as connection:
            load_loop(connection, loop_id)
            found = waiting(connection, loop=loop_id, limit=SHOWN)
    except RewardloopError as error:
        return problem(error)
    promised = _promised(wired, loop_id, found)
    shown = [_shown(wired.secrets, loop_id, one, promised.get(one.content_id, "")) for one in found]
    return page("approvals.html", "Approvals", loop=loop_id, waiting=shown, most=SHOWN)


@router.post("/loops/{loop_id}/contents/{content_id}/approval")
def decide(loop_id: LoopId, content_id: Id, wired: Wired, approval: Word, signed: str) -> Response:
    """Approve or reject a content; the queue follows."""
    try:
        if not hmac.compare_digest(signature(wired.secrets, content_id, approval, _who()), signed):
            raise Forbidden("This click did not come from our page; open the page again, then decide")
        with writing(wired.engine) as connection:
            if not waiting(connection, loop=loop_id, content=content_id):
                raise NotFound(f"No content {content_id!r} waits for approval in loop {loop_id!r}; somebody was faster")
            set_approval(connection, content_id, approval, actor("page"), "", wired.clock())
    except RewardloopError as error:
        return problem(error)
    wired.snapshots.look()
    return RedirectResponse(f"/loops/{quote(loop_id)}/approvals", 303)


def signature(secrets: Secrets, content_id: str, approval: Word, who: str) -> str:
    """What a button carries. ``who``: the key that the page was shown to, empty without keys."""
    return digest(derive(secrets.master, "pages"), "approval", "\x00".join((content_id, approval, who))).hex()


def _promised(wired: Wired, loop_id: str, found: list[Waiting]) -> dict[str, str]:
    """What the model that serves expects of each, per 1,000; nothing without one."""
    loop, campaigns = wired.snapshots.current.loops.get(loop_id), wired.snapshots.current.campaigns
    if loop is None or loop.served is None:
        return {}
    known = {name: content for campaign in campaigns.values() for name, content in campaign.contents.items()}
    contents = [known[one.content_id] for one in found if one.content_id in known]
    if not contents:
        return {}
    scores = loop.served.model.grid([{}], contents)[0].tolist()
    return {content.content_id: amount(score) for content, score in zip(contents, scores, strict=True)}


def _shown(secrets: Secrets, loop_id: str, one: Waiting, expected: str) -> dict[str, Any]:
    return {
        "id": one.content_id,
        "campaign": one.campaign_id,
        "slots": as_read(one.slots),
        "origin": " by ".join(filter(None, (one.prompt_id, one.generator))),
        "expected": expected,
        "nearness": one.nearness,
        "remarks": [verdict.reason for verdict in one.verdicts if verdict.reason],
        "passed": [verdict.rule for verdict in one.verdicts if verdict.passed and not verdict.reason],
        "approve": _button(secrets, loop_id, one.content_id, "approved"),
        "reject": _button(secrets, loop_id, one.content_id, "rejected"),
    }


def _button(secrets: Secrets, loop_id: str, content_id: str, approval: Word) -> str:
    fields = {"approval": approval, "signed": signature(secrets, content_id, approval, _who())}
    return f"/loops/{quote(loop_id)}/contents/{quote(content_id)}/approval?{urlencode(fields)}"


def _who() -> str:
    known = caller()
    return "" if known is None else known.key_id
