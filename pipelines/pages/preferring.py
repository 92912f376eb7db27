"""Two pages about copy side by side: ``/campaigns/{id}/preferences`` asks which of two is better, ``/campaigns/{id}/diff`` shows what differs.

The answer is a click on a form, stored as feedback like any other preference. A click that comes from another site is refused: browsers say where it
comes from, and pages cannot. Every text is escaped by the templates.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, Forbidden, RewardloopError
from infra.ids import uuid7
from ingestion.contents import read_campaign
from ingestion.copy.slots import as_read
from ingestion.feedback import add_feedback
from ingestion.fields import Name
from ingestion.http.bodies import FeedbackBody
from pipelines.pages.routes import page, problem
from pipelines.variants import told, variants_of
from reward_models.opinions import in_words
from reward_models.preferences.asking import next_pair
from reward_models.preferences.judgements import load_judgements
from reward_models.serving.routes import Serving, Wired

router = APIRouter(include_in_schema=False)

Content = Annotated[str, Query(min_length=1, max_length=256)]
Slots = list[tuple[str, str]]
MOST_STARTS = 100
"""Contents of which it is shown where they start."""
Site = Annotated[str, Header(alias="sec-fetch-site")]


@router.get("/campaigns/{campaign_id}/preferences")
def ask(campaign_id: str, wired: Wired, annotator: Name | None = None) -> HTMLResponse:
    """Two contents to choose from; first of all, who is asked."""
    try:
        with reading(wired.engine) as connection:
            campaign = read_campaign(connection, campaign_id)
            said = [
                one for one in load_judgements(connection, campaign.loop_id).comparisons if one.campaign == campaign_id
            ]
            copy = _copy(connection, campaign_id)
            pair = next_pair(list(copy), said, annotator) if annotator else None
    except RewardloopError as error:
        return problem(error)
    sides = (
        []
        if pair is None
        else [{"slots": copy[name], "address": _address(campaign_id, annotator, pair, name)} for name in pair]
    )
    own = sum(one.annotator == annotator for one in said)
    return page(
        "preferences.html",
        "Which is better?",
        campaign=campaign_id,
        annotator=annotator or "",
        sides=sides,
        own=own,
        **_counts(wired, campaign.loop_id, campaign_id, copy),
    )


@router.post("/campaigns/{campaign_id}/preferences")
def choose(
    campaign_id: str, wired: Wired, annotator: Name, winner: Content, loser: Content, site: Site = "none"
) -> Response:
    """Keep the choice; the next pair follows."""
    try:
        if site not in ("same-origin", "none"):
            raise Forbidden("This click came from another site; open our page, and click there")
        with writing(wired.engine) as connection:
            campaign = read_campaign(connection, campaign_id)
            if not {winner, loser} <= _copy(connection, campaign_id).keys():
                raise BadInput("Those contents are not of this campaign; open its page anew")
            body = FeedbackBody(
                feedback_id=None,
                kind="preference",
                source="HUMAN",
                loop=campaign.loop_id,
                decision_id=None,
                content_id=None,
                annotator=annotator,
                value={"winner": winner, "loser": loser},
            )
            now = wired.clock()
            add_feedback(connection, uuid7(now), body, wired.settings.text_limit_bytes, now)
    except RewardloopError as error:
        return problem(error)
    return RedirectResponse(f"/campaigns/{campaign_id}/preferences?{urlencode({'annotator': annotator})}", 303)


@router.get("/campaigns/{campaign_id}/diff")
def differences(campaign_id: str, wired: Wired, first: Content, second: Content) -> HTMLResponse:
    """What differs between two contents of a campaign, with the effect of each change where it was tested."""
    try:
        with reading(wired.engine) as connection:
            if not {first, second} <= _copy(connection, campaign_id).keys():
                raise BadInput("Both contents have to be of this campaign")
            found = variants_of(connection, first, second)
    except RewardloopError as error:
        return problem(error)
    changed = [(slot.name, one.change, told(one.effect)) for slot in found.slots for one in slot.changes]
    ahead = None if found.ahead is None else told(found.ahead)
    return page("diff.html", "What differs", campaign=campaign_id, found=found, changed=changed, ahead=ahead)


def _counts(wired: Serving, loop_id: str, campaign_id: str, copy: Mapping[str, Slots]) -> dict[str, Any]:
    """What opinions count for where copy is chosen: in words, and where the contents of the campaign start. The page shows it
    before somebody begins and when they have done, not beside the question: it would answer for them."""
    heard = wired.snapshots.current.heard.get(loop_id)
    if heard is None:
        return {"opinions": [], "starts": []}
    said = heard.opinions.said.get(campaign_id, {})
    starts = sorted(((start, name) for name, start in said.items() if name in copy), reverse=True)[:MOST_STARTS]
    return {
        "opinions": [in_words(name, one) for name, one in heard.opinions.agreements.items()],
        "starts": [(copy[name], f"{start:+.1%}") for start, name in starts],
    }


def _copy(connection: Connection, campaign_id: str) -> dict[str, Slots]:
    """Slots of the campaign's contents that may be sent or wait for it, by id."""
    c = tables.contents.c
    query = select(c.content_id, c.slots).where(c.campaign_id == campaign_id, c.approval.in_(("approved", "draft")))
    return {name: as_read(slots) for name, slots in connection.execute(query)}


def _address(campaign_id: str, annotator: str | None, pair: tuple[str, str], winner: str) -> str:
    loser = pair[1] if winner == pair[0] else pair[0]
    return f"/campaigns/{campaign_id}/preferences?" + urlencode(
        {"annotator": annotator, "winner": winner, "loser": loser}
    )
