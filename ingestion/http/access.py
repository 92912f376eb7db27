"""Who may make a call: the key's scope, its rate, and the loops it is limited to.

Order: 1 an address with control characters is refused, and so is a change that a page of another site sends, 2 paths outside the API pass (health, documentation, redirects; webhooks prove themselves by signature), 3 the key is
proven, 4 its rate allows the call, 5 its scope covers it, 6 the loops that the call touches are the key's own. Step 6 reads
what the handler reads, and nothing else: the path, the body of a change, the parameters that a list is filtered by.

``caller()`` is the key's owner while a call is handled, None without keys.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec
from sqlalchemy import Connection, Engine, select
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from infra import tables
from infra.database import reading
from infra.errors import BadInput, Forbidden, RewardloopError, TooMany, Unauthorized
from ingestion.http.limits import replay
from ingestion.http.problems import problem
from ingestion.http.rates import Buckets
from ingestion.keys import Caller, Keyring

HEADERS = ("x-api-key", "ocp-apim-subscription-key")
"""Where a key may be, besides ``Authorization: Bearer``; the second is what Azure's clients send."""

_UNKNOWN = "The key is missing, wrong or ended; send Authorization: Bearer <key>, made with rewardloop keys create"
_PREFIXES = ("/v1/", "/personalizer/", "/campaigns/", "/loops/")
_PAGES = "/"
_STRANGE = re.compile(r"[\x00-\x1f\x7f]")
"""What no address holds: routes end where a newline begins."""
_SIGNED = "/v1/webhooks/"
_SCOPES = (
    ("/v1/rank", "rank"),
    ("/v1/score", "rank"),
    ("/v1/decisions/", "rank"),
    ("/personalizer/", "rank"),
    ("/v1/events", "events"),
    ("/v1/feedback", "events"),
    ("/v1/suppressions", "events"),
    ("/v1/campaigns", "content"),
    ("/v1/contents", "content"),
    ("/campaigns/", "content"),
)
_SECRET = frozenset(("rank", "events", "content", "admin"))
"""Scopes of keys that only servers hold: each may read of loops."""
_LESSER = {"/v1/events": "signed"}
"""Where a lesser scope is enough: what such a key may send is looked at event by event (``ingestion/rules.py``)."""

_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def caller() -> Caller | None:
    """The key's owner while a call is handled; None where keys are not required."""
    return _caller.get()


def has_public_key() -> bool:
    """Whether the caller's key may send events only with a token, because the public can read it."""
    known = caller()
    return known is not None and "events" not in known.scopes


def actor(said: str) -> str:
    """Who is written into the audit: who the caller says it is, behind the name of its key."""
    known = caller()
    return said if known is None else f"{known.name}: {said}"[:256]


def scope_of(method: str, path: str) -> str:
    """The scope a call needs; whatever is not listed needs ``admin``. Empty: reading of loops, for every secret key."""
    if path.endswith("/approval"):
        return "admin"
    if _is_send(path):
        return "rank"
    found = next((scope for prefix, scope in _SCOPES if path.startswith(prefix)), "admin")
    if path == _PAGES:
        return "content"
    return "" if method == "GET" and path.startswith("/v1/loops") else found


class Access:
    """ASGI middleware. ``app.state.keyring`` is the keyring; without one everybody may call."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._buckets = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_strange(scope):
            detail = "The address holds a control character; take it out"
            await problem(422, BadInput.title, detail, scope["path"])(scope, receive, send)
            return
        if scope["type"] == "http" and _is_foreign(scope):
            detail = "This was sent by another site's page; use our own page, or send an API key in a header"
            await problem(403, Forbidden.title, detail, scope["path"])(scope, receive, send)
            return
        if scope["type"] != "http" or not _is_guarded(scope["path"]):
            await self.app(scope, receive, send)
            return
        keyring: Keyring | None = getattr(scope["app"].state, "keyring", None)
        if keyring is None:
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            known = keyring.find(key_in(headers, _is_page(scope["path"]) and _is_ours(scope["method"], headers)))
            self._admit(known, scope)
        except RewardloopError as refused:
            await _refuse(refused, scope)(scope, receive, send)
            return
        token = _caller.set(known)
        try:
            await self.app(scope, receive, send)
        finally:
            _caller.reset(token)

    def _admit(self, known: Caller | None, scope: Scope) -> None:
        if known is None:
            raise Unauthorized(_UNKNOWN)
        if wait := self._buckets.take(known.key_id, known.rate):
            raise TooMany(
                f"The key {known.name!r} may make {known.rate} requests; slow down, or have its rate raised",
                math.ceil(wait),
            )
        needed = scope_of(scope["method"], scope["path"])
        enough = {needed, _LESSER.get(scope["path"], needed)} if needed else _SECRET
        if not enough & known.scopes:
            wanted = f"the scope {needed!r}" if needed else "a key that the public cannot read"
            raise Forbidden(f"This call needs {wanted}; the key {known.name!r} has {', '.join(sorted(known.scopes))}")


class LoopLimits:
    """ASGI middleware for keys that are limited to loops; behind the limits on bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = caller()
        if scope["type"] != "http" or known is None or not known.loops or _sees_to_it(scope["path"]):
            await self.app(scope, receive, send)
            return
        message = await receive()
        try:
            state = scope["app"].state
            body = b"" if scope["method"] == "GET" or _is_page(scope["path"]) else message.get("body", b"")
            await run_in_threadpool(_check_loops, state.collector.engine, state.loop_of, known, scope, body)
        except RewardloopError as refused:
            await _refuse(refused, scope)(scope, receive, send)
            return
        await self.app(scope, replay(message.get("body", b""), receive), send)


def key_in(headers: Headers, of_page: bool = False) -> str:
    """The key that a request brings; empty without one. A page's may be the password that a browser asks its user for,
    a call's may not: browsers send passwords along with other sites' forms."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if of_page and kind.lower() == "basic":
        return _password(value)
    return next((headers[name] for name in HEADERS if name in headers), "")


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii").partition(":")[2]
    except (ValueError, UnicodeDecodeError):
        return ""


def _is_guarded(path: str) -> bool:
    return path == _PAGES or (path.startswith(_PREFIXES) and not path.startswith(_SIGNED))


def _is_foreign(scope: Scope) -> bool:
    """Whether a browser sends a change for another site's page, also where nobody needs a key. What is no browser names
    no site, and pages cannot put a key into a header unasked."""
    headers = Headers(scope=scope)
    return (
        scope["method"] not in ("GET", "HEAD", "OPTIONS")
        and not scope["path"].startswith(_SIGNED)
        and headers.get("sec-fetch-site", "same-origin") != "same-origin"
        and not key_in(headers)
    )


def _is_send(path: str) -> bool:
    """Calls about a send: ``/v1/loops/<loop>/sends/…``, whatever the loop is called."""
    return path.startswith("/v1/loops/") and path.split("/")[4:5] == ["sends"]


def _is_strange(scope: Scope) -> bool:
    """Whether the address holds control characters. Redirect links have a page of their own for what is damaged."""
    query = unquote(scope["query_string"].decode("latin-1"))
    if scope["path"] == _PAGES:
        query = re.sub(r"[\r\n\t]", " ", query)  # lines to compare, one per row, as browsers send them
    return not scope["path"].startswith("/r/") and _STRANGE.search(scope["path"] + query) is not None


def _sees_to_it(path: str) -> bool:
    """Calls that look at the caller's loops themselves."""
    return path == _PAGES or path.startswith("/personalizer/")


def _is_page(path: str) -> bool:
    return path == _PAGES or path.startswith(("/campaigns/", "/loops/"))


def _is_ours(method: str, headers: Headers) -> bool:
    """Whether a page's request changes nothing, or came from our own page: browsers say so, and pages cannot."""
    return method == "GET" or headers.get("sec-fetch-site") == "same-origin"


def _refuse(refused: RewardloopError, scope: Scope) -> ASGIApp:
    way = 'Basic realm="Rewardloop: any name, the API key as password"' if _is_page(scope["path"]) else "Bearer"
    headers = {"WWW-Authenticate": way} if isinstance(refused, Unauthorized) else {}
    if refused.retriable:
        headers["Retry-After"] = str(getattr(refused, "seconds", 1))
    if scope["path"].startswith("/personalizer/"):
        error = {"code": HTTPStatus(refused.status).phrase.replace(" ", ""), "message": str(refused)}
        return JSONResponse({"error": error}, refused.status, headers)
    return problem(refused.status, refused.title, str(refused), scope["path"], headers=headers)


LoopOf = Callable[[str], str | None]
"""The loop of a campaign that the server knows; it answers without the database."""


def _check_loops(engine: Engine, loop_of: LoopOf, known: Caller, scope: Scope, body: bytes) -> None:
    touched = set(_touched(engine, loop_of, scope, body))
    if not touched:
        raise Forbidden(f"The key {known.name!r} is limited to loops {_named(known.loops)}; name one of them")
    if strange := touched - known.loops:
        raise Forbidden(f"The key {known.name!r} is limited to loops {_named(known.loops)}, not {_named(strange)}")


def _named(loops: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(loops)))


def _touched(engine: Engine, loop_of: LoopOf, scope: Scope, body: bytes) -> Iterator[str]:
    """The loops that a call names, wherever its handler reads them: itself, by a campaign, a content or a decision.
    What is not stored touches none."""
    parts = scope["path"].split("/")
    if _is_page(scope["path"]):
        parts.insert(1, "v1")
    kind, name = parts[2], "/".join(parts[3:])
    said = _said(scope, kind, name, body)
    yield from (value for field, value in said if field == "loop")
    campaigns = [value for field, value in said if field == "campaign"]
    if kind == "loops" and name:
        yield parts[3]
    if kind == "campaigns" and name:
        campaigns.append(parts[3])
    yield from filter(None, map(loop_of, campaigns))
    stored = [campaign for campaign in campaigns if loop_of(campaign) is None]
    if stored or kind in ("contents", "decisions"):
        with reading(engine) as connection:
            yield from _stored(connection, kind, name, scope["method"], stored)


def _said(scope: Scope, kind: str, name: str, body: bytes) -> list[tuple[str, str]]:
    """Fields that a handler reads: a list is filtered by one parameter, a change has a body."""
    if scope["method"] == "GET":
        filters = {"campaigns": "loop", "contents": "campaign"}.get(kind) if not name else None
        pairs: Iterable[tuple[str, Any]] = QueryParams(scope["query_string"]).multi_items()
        return [(field, value) for field, value in pairs if field == filters]
    return [(field, value) for field, value in _document(body).items() if isinstance(value, str)]


def _stored(connection: Connection, kind: str, name: str, method: str, stored: Sequence[str]) -> Iterator[str]:
    campaigns, contents, decisions = tables.campaigns.c, tables.contents.c, tables.decisions.c
    yield from connection.scalars(select(campaigns.loop_id).where(campaigns.campaign_id.in_(stored)))
    if kind == "contents" and name:
        of_content = select(campaigns.loop_id).join(tables.contents, contents.campaign_id == campaigns.campaign_id)
        yield from connection.scalars(of_content.where(contents.content_id == name.partition("/")[0]))
    if kind == "decisions" and name:
        decision_id = name if method == "GET" else name.removesuffix("/activate")
        yield from connection.scalars(select(decisions.loop_id).where(decisions.decision_id == decision_id))


def _document(body: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(body) if body else {}
    return found if isinstance(found, dict) else {}
