"""Clicks through our own redirect: ``GET /r/<signed>`` records the click, then leads on.

1. Read the link; what we did not sign, or does not lead to a listed host any more, is a page that says so (404).
2. Make the click: source ``redirect``, an id of its own per request, decision and position as signed, and the label
   ``bot`` where method, headers or client are a machine's (HEAD and prefetch lead on too; nothing is dropped).
3. Keep it: in the log (the store, or Kafka where it is configured), many clicks in one commit. If the log fails or is
   slow, in the spool, fsynced, and from there in the log once it is back, under the same ids.
4. Answer 302. The reader gets there in any case; a click that neither log nor spool took is counted and logged.

At least once in, exactly once counted: the same id again is a duplicate.
"""

import queue
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from infra import telemetry
from infra.clock import Clock
from infra.errors import NotFound, RewardloopError, Unavailable
from infra.ids import uuid7
from infra.logs import log
from infra.secrets import Secrets
from infra.settings import Settings
from infra.threads import groups
from ingestion.bots import BOT, machine
from ingestion.connectors.fields import page
from ingestion.events import Event, Label, Rejected
from ingestion.links import Link, read_link, with_token
from ingestion.spool import Line, Spool
from ingestion.tokens import make_token

REDIRECT = "redirect"
"""The permanent source of these clicks."""
CLIENT_LIMIT = 200
GROUP = 200
"""Most clicks in one commit."""
WAITING = 2_000
"""Most clicks that wait for a commit; more go into the spool."""
PATIENCE_SECONDS = 1.0
"""How long a reader waits for the log; then the click goes into the spool."""
STOP_SECONDS = 10.0

Kept = Literal["recorded", "spooled", "lost"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1.5rem;color-scheme:light dark}"
_GONE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>This link leads nowhere</title><style>{_STYLE}</style>
<h1>This link leads nowhere</h1>
<p>It is damaged or no longer valid. Copy it again, whole, from the message it came with.</p></html>
"""
_POLICY = f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'"

router = APIRouter()


class Click(msgspec.Struct, frozen=True):
    """A click with what is said about it: what the spool keeps."""

    event: Event
    labels: tuple[Label, ...] = ()


Record = Callable[[Sequence[Click], Sequence[Rejected]], None]
"""Puts clicks, and lines of the spool that cannot be read, into the log. Repeating it changes nothing. It raises when
the log is away."""


class _Ticket(NamedTuple):
    click: Click
    recorded: "Future[None]"


class ClickLog:
    """Keeps clicks from any thread. Start it once; ``drain`` it again and again; ``stop`` it at the end."""

    def __init__(self, record: Record, spool: Spool, patience: float = PATIENCE_SECONDS) -> None:
        self._record, self._spool, self._patience = record, spool, patience
        self._queue: queue.Queue[_Ticket | None] = queue.Queue(WAITING)
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="clicks", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop(self) -> None:
        """Record what waits, then end the writer."""
        self._queue.put(None)
        self._thread.join(STOP_SECONDS)
        self._spool.close()

    def keep(self, click: Click) -> Kept:
        """Where the click is once this returns. Never raises: a reader waits."""
        try:
            self._into_log(click)
        except Exception as error:  # whatever is wrong with the log, the click goes into the spool
            if not isinstance(error, Unavailable | TimeoutError):
                log.error("click_not_recorded", exc_info=error)
            return self._into_spool(click)
        return "recorded"

    def drain(self) -> int:
        """Put what the spool holds into the log; returns how many lines. Raises what the log raises when it is away."""
        drained = self._spool.drain(self._take)
        telemetry.spool_bytes.set(self._spool.size())
        return drained

    def _into_log(self, click: Click) -> None:
        if (since := self._busy_since) is not None and time.monotonic() - since > self._patience:
            raise Unavailable("The log is slow; the click need not wait to find out")
        ticket = _Ticket(click, Future())
        try:
            self._queue.put_nowait(ticket)
        except queue.Full:
            raise Unavailable("Too many clicks wait to be recorded") from None
        try:
            ticket.recorded.result(self._patience)
        except TimeoutError:
            ticket.recorded.cancel()  # if it is being recorded already it will be there twice, under one id
            raise

    def _into_spool(self, click: Click) -> Kept:
        try:
            self._spool.append(msgspec.json.encode(click))
        except RewardloopError as error:
            log.error("click_lost", reason=str(error))
            return "lost"
        return "spooled"

    def _run(self) -> None:
        for tickets in groups(self._queue, GROUP):
            self._write([ticket for ticket in tickets if ticket.recorded.set_running_or_notify_cancel()])

    def _write(self, tickets: Sequence[_Ticket]) -> None:
        if not tickets:
            return
        self._busy_since = time.monotonic()
        try:
            self._record([ticket.click for ticket in tickets], [])
        except Exception as error:  # the writer must live: each reader's thread spools its own click
            for ticket in tickets:
                ticket.recorded.set_exception(error)
        else:
            for ticket in tickets:
                ticket.recorded.set_result(None)
        finally:
            self._busy_since = None

    def _take(self, lines: Sequence[Line]) -> None:
        read = [_read(line) for line in lines]
        self._record(
            [click for click in read if isinstance(click, Click)],
            [damaged for damaged in read if isinstance(damaged, Rejected)],
        )


@dataclass(frozen=True)
class Redirects:
    """What the call stands on."""

    secrets: Secrets
    settings: Settings
    clock: Clock
    clicks: ClickLog


async def _redirects(request: Request) -> Redirects:
    found: Redirects = request.app.state.redirects
    return found


Wired = Annotated[Redirects, Depends(_redirects)]


@router.head("/r/{signed}", include_in_schema=False)
@router.get(
    "/r/{signed}",
    tags=["events"],
    summary="Follow a redirect link",
    status_code=302,
    response_class=Response,
    responses={
        302: {"description": "Leads on; the click is recorded."},
        404: {"description": "Not a link of this installation; a page says so.", "content": {"text/html": {}}},
    },
)
def follow(signed: str, request: Request, wired: Wired) -> Response:
    """Record the click, then lead on to where the link says."""
    try:
        link = read_link(wired.secrets, signed, wired.settings.redirect_hosts)
    except NotFound:
        telemetry.redirects.labels("refused").inc()
        return HTMLResponse(_GONE, 404, headers=_HEADERS | {"Content-Security-Policy": _POLICY})
    click = click_of(link, request.method, request.headers, wired.clock())
    telemetry.redirects.labels(wired.clicks.keep(click)).inc()
    return Response(status_code=302, headers={**_HEADERS, "Location": _destination(link, wired)})


def click_of(link: Link, method: str, headers: Any, now: int) -> Click:
    """The click that following this link is. The query of the address stays out: it may name the customer."""
    event = Event(
        source=REDIRECT,
        event_id=uuid7(now),
        type="click",
        occurred_at=now,
        received_at=now,
        decision_id=link.decision_id,
        link="token",
        position=link.position,
        raw={"url": page(link.url), "client": _storable(headers.get("user-agent", ""))},
    )
    reason = machine(method, headers)
    said = Label(source=REDIRECT, event_id=event.event_id, label=BOT, labelled_at=now, reason=reason or "")
    return Click(event, (said,) if reason else ())


def _storable(client: str) -> str:
    """What a client calls itself, as far as it is kept. Printable ASCII: it comes from outside."""
    return "".join(letter for letter in client if " " <= letter <= "~")[:CLIENT_LIMIT]


def _destination(link: Link, wired: Redirects) -> str:
    if not wired.settings.redirect_token:
        return link.url
    return with_token(link.url, make_token(wired.secrets, link.decision_id, link.position))


def _read(line: Line) -> Click | Rejected:
    reason = "A line of the spool is damaged on disk; the click in it is lost, drop it here"
    if line.content is not None:
        try:
            return msgspec.json.decode(line.content, type=Click)
        except msgspec.DecodeError:
            reason = "A line of the spool is not a click of this version; drop it here"
    return Rejected(source=REDIRECT, position=f"spool/{line.position}", reason=reason, raw=line.raw)
