"""The pages' addresses: ``/`` compares lines and lists campaigns, ``/campaigns/{id}`` shows one.

Asked by GET, so nothing changes by looking, and an address can be kept; only the way back to the version before is a click
that changes something (``rollback.py``). No scripts: the policy forbids them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from infra.database import reading, writing
from infra.errors import RewardloopError
from ingestion.http.access import actor, caller
from ingestion.http.problems import retry_after
from ingestion.loops import LoopId
from pipelines.pages.rollback import earlier, go_back, signature
from pipelines.pages.views import amount, campaign_view, loops_view, scores_view
from reward_models.serving.bodies import ScoreBody
from reward_models.serving.routes import Wired, score

MOST_LINES = 20
MOST_CHARACTERS = 4_000

POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
"""Nothing is loaded but our own style, nothing is run."""

router = APIRouter(include_in_schema=False)
_pages = Environment(
    loader=PackageLoader("pipelines.pages", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_STYLE = Path(__file__).with_name("page.css").read_text()

Texts = Annotated[str, Query(max_length=MOST_CHARACTERS)]
Part = Annotated[int, Query(ge=1, le=1_000_000)]


@router.get("/page.css")
async def style() -> Response:
    """The pages' style."""
    return Response(_STYLE, media_type="text/css", headers={"Cache-Control": "max-age=300"})


@router.get("/")
def home(wired: Wired, loop: str = "", texts: Texts = "") -> HTMLResponse:
    """Lines to compare, and every loop with its campaigns."""
    known, loops = caller(), wired.snapshots.current.loops
    own = {name: one for name, one in loops.items() if known is None or not known.loops or name in known.loops}
    scorable = sorted(name for name, one in own.items() if one.served is not None)
    chosen = loop if loop in own or not scorable else scorable[0]
    try:
        with reading(wired.engine) as connection:
            listed = loops_view(connection, own)
            for one in listed:
                one["back"] = _way_back(wired, earlier(connection, one["name"]), one["name"])
    except RewardloopError as error:
        return problem(error)
    return page(
        "home.html",
        "Compare lines",
        texts=texts,
        scorable=scorable,
        chosen=chosen,
        loops=listed,
        unit="reward per 1,000",
        most_characters=MOST_CHARACTERS,
        **_scored(wired, chosen, texts, scorable),
    )


@router.get("/campaigns/{campaign_id}")
def campaign(campaign_id: str, wired: Wired, part: Part = 1) -> HTMLResponse:
    """A campaign's copy, shares and results so far."""
    try:
        with reading(wired.engine) as connection:
            view = campaign_view(connection, campaign_id, part)
    except RewardloopError as error:
        return problem(error)
    return page("campaign.html", campaign_id, **view)


@router.post("/loops/{loop_id}/rollback")
def rollback(loop_id: LoopId, wired: Wired, version: str, revision: int, signed: str) -> Response:
    """Serve the version before again; the page follows. Whoever clicks must be allowed to promote."""
    try:
        with writing(wired.engine) as connection:
            asked = (version, revision, signed)
            go_back(connection, wired.secrets, loop_id, asked, _who(), actor("page"), wired.clock())
    except RewardloopError as error:
        return problem(error)
    wired.snapshots.look()
    return RedirectResponse("/", 303)


def _way_back(wired: Wired, before: tuple[str, int] | None, loop_id: str) -> dict[str, str] | None:
    if before is None:
        return None
    signed = signature(wired.secrets, loop_id, *before, _who())
    fields = {"version": before[0], "revision": before[1], "signed": signed}
    return {"version": before[0], "action": f"/loops/{quote(loop_id)}/rollback?{urlencode(fields)}"}


def _who() -> str:
    known = caller()
    return "" if known is None else known.key_id


def _scored(wired: Wired, loop: str, texts: str, scorable: Sequence[str]) -> dict[str, Any]:
    lines = [line.strip() for line in texts.splitlines() if line.strip()]
    nothing: dict[str, Any] = {"scores": [], "mean": "", "problem": ""}
    if not lines:
        return nothing
    if loop not in scorable:
        return nothing | {"problem": "That loop has no model to compare lines with; choose one of the list."}
    if len(lines) > MOST_LINES:
        return nothing | {"problem": f"{len(lines)} lines; compare at most {MOST_LINES} at a time."}
    try:
        answer = score(ScoreBody(loop=loop, texts=lines, explain=True), wired)
    except RewardloopError as error:
        return nothing | {"problem": str(error)}
    return {"scores": scores_view(lines, answer.scores), "mean": amount(answer.loop_mean), "problem": ""}


def problem(error: RewardloopError) -> HTMLResponse:
    """The page that says what is wrong, and when to come again where that may help."""
    answer = page("error.html", error.title, error.status, problem=str(error))
    answer.headers.update(retry_after(error))
    return answer


def page(template: str, title: str, status: int = 200, **known: Any) -> HTMLResponse:
    """A template filled in, under the policy."""
    content = _pages.get_template(template).render(title=title, **known)
    return HTMLResponse(content, status, {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})
