"""``POST /v1/rank`` for questions as most are: read, chosen and answered on the event loop, without a thread.

The long way (``routes.choose``) can do everything and costs a thread, a framework's validation of what comes and goes,
and a look into the database. This one needs none of them:

1. read the question, if it is a plain one (``asking.read_plain``);
2. choose from the snapshot, as the long way does (``ranker.rank``);
3. wait until it is stored (``DecisionLog.stored``); the log says if the id was there before;
4. write the answer.

Whatever is not plain goes the long way, with the body it came with: drafts, links, dry runs; an unknown campaign, which
is worth a look into the database; a customer whose sends have to be counted; an error, which is explained there; an id that is stored with another body. Nothing
was stored then. So there is one set of rules, and this is a way through it.
"""

import time

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from infra import telemetry
from infra.errors import RewardloopError, Unavailable
from infra.ids import uuid7
from ingestion.events import Decision
from ingestion.http.limits import replay
from reward_models.serving.answering import answer_of
from reward_models.serving.asking import Asked, digest_of, read_plain, request_of
from reward_models.serving.customers import as_known, must_count
from reward_models.serving.ranker import rank
from reward_models.serving.routes import Serving

PATH = "/v1/rank"

_encode = msgspec.json.Encoder().encode


class QuickRank:
    """ASGI middleware, the innermost: behind keys and limits, before the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        body: bytes = (await receive()).get("body", b"")  # whole: the limits have read it
        asked, wired = read_plain(body), scope["app"].state.serving
        answered = None if asked is None else await _answered(asked, wired)
        if answered is None:
            await self.app(scope, replay(body, receive), send)
            return
        decision, durable = answered
        document = _encode(answer_of(decision, durable, wired.secrets))
        headers = [(b"content-length", str(len(document)).encode()), (b"content-type", b"application/json")]
        telemetry.ranks.labels(decision.group, decision.learning_mode, str(durable).lower()).inc()
        telemetry.rank_seconds.labels(decision.learning_mode).observe(time.perf_counter() - began)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": document})


async def _answered(asked: Asked, wired: Serving) -> tuple[Decision, bool] | None:
    """The decision and whether it is stored; None: ask the long way."""
    question, snapshot = asked.question, wired.snapshots.current
    if question.loop not in snapshot.loops or question.campaign not in snapshot.campaigns:
        return None
    now, limit = wired.clock(), wired.settings.candidate_limit
    digest = digest_of(question.loop, asked.said, wired.secrets)
    request = request_of(question, question.decision_id or uuid7(now), digest, question.candidates, now)
    request = as_known(request, snapshot, wired.secrets)
    if must_count(request, snapshot):
        return None
    try:
        decision = rank(snapshot, request, wired.secrets, limit)
    except RewardloopError:
        return None
    try:
        stored = await wired.decisions.stored(decision)
    except Unavailable:
        if wired.settings.unstored == "refuse":
            return None
        return rank(snapshot, request, wired.secrets, limit, away=True), False
    return (stored, True) if stored.request_digest == digest else None
