"""Pages that ask what people think of copy, in three ways; and ``/campaigns/{id}/diff``, which shows what differs between two contents.

    /campaigns/{id}/preferences      which of two is better
    /campaigns/{id}/rankings         the best of a few, then the best of the rest: what is picked so far stands in the address
    /campaigns/{id}/ratings          one content, 1 to 5

The answer is a click on a form, stored as feedback like what comes by API, once however often it is clicked. Changes that another
site's page sends never get here (``ingestion/http/access.py``). Every text is escaped by the templates.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, RewardloopError
from ingestion.contents import read_campaign
from ingestion.copy.slots import as_read
from ingestion.feedback import add_feedback
from ingestion.fields import Name
from ingestion.http.bodies import FeedbackBody
from pipelines.pages.routes import page, problem
from pipelines.variants import told, variants_of
from reward_models.opinions import in_words
from reward_models.preferences.asking import FEW, next_few, next_pair, next_single
from reward_models.preferences.judgements import Comparison, Rating, load_judgements
from reward_models.serving.routes import Serving, Wired

router = APIRouter(include_in_schema=False)

Content = Annotated[str, Query(min_length=1, max_length=256)]
Few = Annotated[Sequence[Content], Query(max_length=FEW)]
Mark = Annotated[int, Query(ge=1, le=5)]
Kind = Literal["preference", "ranking", "rating"]
Slots = list[tuple[str, str]]
WAYS = {
    "preferences": ("Pairs", "Which is better?"),
    "rankings": ("Ranking", "In which order?"),
    "ratings": ("Rating", "How good is it?"),
}
"""Of asking: the end of the address, the name, and the question."""
MARKS = {
    1: "I would not send it",
    2: "rather not",
    3: "it will do",
    4: "good",
    5: "I would send it at once",
}
MOST_STARTS = 100
"""Contents of which it is shown where they start."""


@dataclass(frozen=True)
class Asked:
    """A campaign's copy, by content id, and what people said of it so far."""

    campaign_id: str
    loop_id: str
    copy: Mapping[str, Slots]
    comparisons: Sequence[Comparison]
    ratings: Sequence[Rating]

    def own(self, said: Iterable[Comparison | Rating], annotator: str | None) -> int:
        """How much of it this person said."""
        return sum(one.annotator == annotator for one in said)


@router.get("/campaigns/{campaign_id}/preferences")
def ask(campaign_id: str, wired: Wired, annotator: Name | None = None) -> HTMLResponse:
    """Two contents to choose from; first of all, who is asked."""
    try:
        asked = _asked(wired, campaign_id)
    except RewardloopError as error:
        return problem(error)
    pair = (next_pair(list(asked.copy), asked.comparisons, annotator) if annotator else None) or ()
    sides = [
        {
            "slots": asked.copy[one],
            "address": _to(asked, "preferences", annotator, winner=one, loser=pair[1 - place]),
        }
        for place, one in enumerate(pair)
    ]
    said = f"has made {asked.own(asked.comparisons, annotator)} choices"
    return _page(wired, asked, annotator, "preferences", said, asks=bool(sides), sides=sides)


@router.post("/campaigns/{campaign_id}/preferences")
def choose(campaign_id: str, wired: Wired, annotator: Name, winner: Content, loser: Content) -> Response:
    """Keep the choice; the next pair follows."""
    value = {"winner": winner, "loser": loser}
    return _keep(wired, campaign_id, annotator, "preferences", "preference", value, [winner, loser])


@router.get("/campaigns/{campaign_id}/rankings")
def ask_order(
    campaign_id: str, wired: Wired, annotator: Name | None = None, among: Few = (), picked: Few = ()
) -> HTMLResponse:
    """A few contents of which the best is picked, then the best of the rest. ``among``: the few, from the first pick on."""
    try:
        asked = _asked(wired, campaign_id)
        few = among or (next_few(list(asked.copy), asked.comparisons, annotator) if annotator else None) or ()
        left = [one for one in few if one not in picked]
        if not {*few, *picked} <= asked.copy.keys() or (few and (not set(picked) <= set(few) or len(set(left)) < 2)):
            raise BadInput("Those contents cannot be ranked here; open the page anew")
    except RewardloopError as error:
        return problem(error)
    sides = [{"slots": asked.copy[one], "address": _pick(asked, annotator, few, picked, one, left)} for one in left]
    said = f"has put {asked.own(asked.comparisons, annotator)} pairs in order"
    best = [asked.copy[one] for one in picked]
    again = _to(asked, "rankings", annotator)
    more = {"sides": sides, "best": best, "last": len(left) == 2, "again": again}
    return _page(wired, asked, annotator, "rankings", said, asks=bool(sides), **more)


@router.post("/campaigns/{campaign_id}/rankings")
def order(campaign_id: str, wired: Wired, annotator: Name, picked: Few) -> Response:
    """Keep the order, the best first; the next few follow."""
    value = {"ranking": list(picked)}
    return _keep(wired, campaign_id, annotator, "rankings", "ranking", value, picked)


@router.get("/campaigns/{campaign_id}/ratings")
def ask_rating(campaign_id: str, wired: Wired, annotator: Name | None = None) -> HTMLResponse:
    """One content to rate."""
    try:
        asked = _asked(wired, campaign_id)
    except RewardloopError as error:
        return problem(error)
    single = next_single(list(asked.copy), asked.ratings, annotator) if annotator else None
    marks = (
        []
        if single is None
        else [
            {"mark": mark, "means": means, "address": _to(asked, "ratings", annotator, content=single, rating=mark)}
            for mark, means in MARKS.items()
        ]
    )
    said = f"has rated {asked.own(asked.ratings, annotator)} so far"
    slots = () if single is None else asked.copy[single]
    return _page(wired, asked, annotator, "ratings", said, asks=bool(marks), slots=slots, marks=marks)


@router.post("/campaigns/{campaign_id}/ratings")
def rate(campaign_id: str, wired: Wired, annotator: Name, content: Content, rating: Mark) -> Response:
    """Keep the rating; the next content follows."""
    return _keep(wired, campaign_id, annotator, "ratings", "rating", {"rating": rating}, [content], content)


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


def _asked(wired: Serving, campaign_id: str) -> Asked:
    """Raises :class:`NotFound` for an unknown campaign."""
    with reading(wired.engine) as connection:
        campaign = read_campaign(connection, campaign_id)
        said = load_judgements(connection, campaign.loop_id)
        return Asked(
            campaign_id,
            campaign.loop_id,
            _copy(connection, campaign_id),
            [one for one in said.comparisons if one.campaign == campaign_id],
            [one for one in said.ratings if one.campaign == campaign_id],
        )


def _page(
    wired: Serving, asked: Asked, annotator: str | None, way: str, said: str, asks: bool, **more: Any
) -> HTMLResponse:
    ways = [
        {"name": name, "here": path == way, "address": _to(asked, path, annotator)} for path, (name, _) in WAYS.items()
    ]
    known: dict[str, Any] = {
        "campaign": asked.campaign_id,
        "annotator": annotator or "",
        "said": said,
        "ways": ways,
        "asks": asks,
    }
    return page(f"{way}.html", WAYS[way][1], **known, **more, **_counts(wired, asked))


def _keep(
    wired: Serving,
    campaign_id: str,
    annotator: str,
    way: str,
    kind: Kind,
    value: dict[str, Any],
    about: Sequence[str],
    content_id: str | None = None,
) -> Response:
    """Store what was said of contents of the campaign, and ask on. The same said again by the same person has the same id."""
    try:
        with writing(wired.engine) as connection:
            campaign = read_campaign(connection, campaign_id)
            if not set(about) <= _copy(connection, campaign_id).keys():
                raise BadInput("Those contents are not of this campaign; open its page anew")
            body = FeedbackBody(
                feedback_id=None,
                kind=kind,
                source="HUMAN",
                loop=campaign.loop_id,
                decision_id=None,
                content_id=content_id,
                annotator=annotator,
                value=value,
            )
            feedback_id = f"page-{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:40]}"
            add_feedback(connection, feedback_id, body, wired.settings.text_limit_bytes, wired.clock())
    except RewardloopError as error:
        return problem(error)
    return RedirectResponse(
        f"/campaigns/{quote(campaign_id, safe='')}/{way}?{urlencode({'annotator': annotator})}", 303
    )


def _pick(
    asked: Asked, annotator: str | None, few: Sequence[str], picked: Sequence[str], one: str, left: Sequence[str]
) -> str:
    """Where picking one as the best of those left leads; of two it says the whole order."""
    if len(left) > 2:
        return _to(asked, "rankings", annotator, among=few, picked=[*picked, one])
    return _to(asked, "rankings", annotator, picked=[*picked, one, *(other for other in left if other != one)])


def _to(asked: Asked, way: str, annotator: str | None, **said: Any) -> str:
    fields = ({"annotator": annotator} if annotator else {}) | said
    query = urlencode(fields, doseq=True)
    return f"/campaigns/{quote(asked.campaign_id, safe='')}/{way}" + (f"?{query}" if query else "")


def _counts(wired: Serving, asked: Asked) -> dict[str, Any]:
    """What opinions count for where copy is chosen: in words, and where the contents of the campaign start. The page shows it
    before somebody begins and when they have done, not beside the question: it would answer for them."""
    heard = wired.snapshots.current.heard.get(asked.loop_id)
    if heard is None:
        return {"opinions": [], "starts": []}
    said = heard.opinions.said.get(asked.campaign_id, {})
    starts = sorted(((start, name) for name, start in said.items() if name in asked.copy), reverse=True)[:MOST_STARTS]
    return {
        "opinions": [in_words(name, one) for name, one in heard.opinions.agreements.items()],
        "starts": [(asked.copy[name], f"{start:+.1%}") for start, name in starts],
    }


def _copy(connection: Connection, campaign_id: str) -> dict[str, Slots]:
    """Slots of the campaign's contents that may be sent or wait for it, by id."""
    c = tables.contents.c
    query = select(c.content_id, c.slots).where(c.campaign_id == campaign_id, c.approval.in_(("approved", "draft")))
    return {name: as_read(slots) for name, slots in connection.execute(query)}
