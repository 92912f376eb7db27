"""Machines that click: link scanners, previews, prefetching browsers. Their events are kept and labelled ``bot``.

A label is a word about an event (``event_labels``), excluded from metrics by definition (``EXCLUDING_LABELS`` in
``ingestion/join/outcomes.py``) and taken back by anybody: ``rewardloop events unlabel``. The words come from

1. the vendor, with the event (``ingestion/connectors``),
2. how our own redirect was asked: method, headers, client (:func:`machine`),
3. a sweep over stored events (:class:`BotWatch`): a client that is known as a machine's, and impossible speeds:
   a click sooner than ``fastest`` after its decision started, or ``BURST`` clicks of one decision or one customer
   within that time. Only clicks and opens: a shop's word about money is not doubted because of its speed.

The sweep is a function of the stored facts, and idempotent: its word is dated when the event was received, so that it
is one word however often it is said, and a person's later word always holds against it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Row,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.sql import Select

from infra.clock import DAY, MICROS, Clock
from infra.database import reading, search_by_keys
from infra.dialect import as_list, listed, prepared
from infra.errors import NotFound
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tables import attributions, batches, decisions, event_keys, event_labels, events
from ingestion import store
from ingestion.events import Batch, Label, hash_id
from ingestion.join.attribution import start_of

BOT = "bot"
KINDS = ("click", "open")
"""Types of events that machines make."""
BURST = 4
"""Clicks within ``fastest`` that are too many: a double click is two."""
RANGE = 20_000
"""Most records of the ledger that are looked at together; a single batch may be larger."""

WAITING = 10_000
"""Most clicks that are remembered until their decision comes."""

PREFETCHING = (
    ("sec-purpose", "prefetch"),  # Chromium, Firefox: also "prefetch;prerender"
    ("purpose", "prefetch"),  # older Chromium, Safari
    ("x-purpose", "preview"),  # Safari's top sites
    ("x-moz", "prefetch"),  # older Firefox
)
"""Headers, with the word in them, by which a browser says that nobody has clicked yet."""

MACHINES = (
    # proxies that fetch for a mailbox
    *("GoogleImageProxy", "YahooMailProxy", "Google-Safety", "GoogleDocs"),
    # mail gateways and link scanners that say who they are
    *("link-scanner", "Barracuda", "Mimecast", "Proofpoint", "Symantec", "TrendMicro", "Office-Existence-Discovery"),
    # previews of chats and social networks
    *("Slackbot", "Slack-ImgProxy", "facebookexternalhit", "Facebot", "Twitterbot", "LinkedInBot", "WhatsApp/"),
    *("TelegramBot", "Discordbot", "SkypeUriPreview", "Pinterestbot", "redditbot", "Iframely", "Embedly"),
    # crawlers
    *("Googlebot", "AdsBot-Google", "bingbot", "BingPreview", "Applebot", "YandexBot", "Baiduspider", "DuckDuckBot"),
    *("AhrefsBot", "SemrushBot", "PetalBot", "GPTBot", "ClaudeBot", "CCBot", "Bytespider", "Amazonbot"),
    # programs
    *("curl/", "Wget/", "python-requests", "python-httpx", "aiohttp", "Go-http-client", "Java/", "Apache-HttpClient"),
    *("node-fetch", "axios/", "libwww-perl", "HeadlessChrome", "PhantomJS"),
)
"""What machines write into their user agent, anywhere in it, in any case. Scanners that pose as browsers are not
known by their name; speed gives many of them away."""

_MACHINE = re.compile("|".join(re.escape(name) for name in MACHINES), re.IGNORECASE)


_WATCHED = text("events.type IN ('click', 'open', 'activation')")
"""Spelled out like the condition of ``ix_events_watched``, so that the database uses it."""

EventKey = tuple[str, str]
"""Source and event id."""


class Click(NamedTuple):
    """A stored click or open. ``group``: the decision it belongs to, or the customer."""

    group: str
    source: str
    event_id: str
    occurred_at: int
    received_at: int


def machine(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request was not made by a person's click; None: perhaps it was. Header names in lower case."""
    if method == "HEAD":
        return "a HEAD request"
    for header, word in PREFETCHING:
        if word in headers.get(header, "").lower():
            return f"{header}: {word}"
    return known_client(headers.get("user-agent", "")) if headers.get("user-agent") else "no user agent"


def known_client(client: str) -> str | None:
    """Why a client is a machine, by its own name."""
    found = _MACHINE.search(client)
    return f"client {found.group()}" if found else None


def in_a_burst(clicks: Iterable[Click], fastest: int) -> set[Click]:
    """The clicks that are among ``BURST`` of one group within less than ``fastest`` microseconds."""
    by_group: dict[str, list[Click]] = defaultdict(list)
    for click in clicks:
        by_group[click.group].append(click)
    found: set[Click] = set()
    for group in by_group.values():
        group.sort(key=lambda click: (click.occurred_at, click.source, click.event_id))
        for first, last in enumerate(range(BURST - 1, len(group))):
            if group[last].occurred_at - group[first].occurred_at < fastest:
                found.update(group[first : last + 1])
    return found


def suspects(connection: Connection, recent: Sequence[Row[Any]], touched: Iterable[str], fastest: int) -> list[Label]:
    """Labels for clicks among ``recent`` events, of the decisions they ``touched`` and next to them, that machines made.

    Clicks about which somebody has said ``bot`` before, or taken it back, are left out. ``fastest``: microseconds;
    0 leaves speed out of it.
    """
    reasons: dict[EventKey, tuple[int, str]] = {}
    for row in recent:
        if row.type in KINDS and (reason := known_client(str(msgspec.json.decode(row.raw).get("client", "")))):
            reasons[row.source, row.event_id] = row.received_at, reason
    if fastest:
        found = _of_decisions(connection, touched=as_list((decision_id,) for decision_id in touched))
        of_decisions = [row for row in found if row.type in KINDS]
        for row in of_decisions:
            if row.start is not None and 0 <= row.occurred_at - row.start < fastest:
                reasons[row.source, row.event_id] = row.received_at, "sooner than a person could"
        near = as_list((row.unit, row.occurred_at) for row in recent if row.unit and row.type in KINDS)
        of_units = [row for row in _of_units(connection, near=near, fastest=fastest) if row.type in KINDS]
        bursts = in_a_burst(map(_click, of_decisions), fastest) | in_a_burst(map(_click, of_units), fastest)
        for click in bursts:
            reasons.setdefault((click.source, click.event_id), (click.received_at, "too many at once"))
    known = _judged_before(connection, list(reasons))
    return [
        Label(source=source, event_id=event_id, label=BOT, labelled_at=received_at, reason=reason)
        for (source, event_id), (received_at, reason) in sorted(reasons.items())
        if (source, event_id) not in known
    ]


class BotWatch:
    """The sweep, for one process: it goes on where it stopped, and begins a day back.

    Any number of processes may sweep the same events: a label that is there is a duplicate.
    """

    def __init__(self, engine: Engine, secrets: Secrets, settings: Settings, clock: Clock) -> None:
        self._engine, self._secrets, self._settings, self._clock = engine, secrets, settings, clock
        self._since: int | None = None
        self._waiting: dict[int, None] = {}
        """Numbers of clicks whose decision has not come."""

    def label_bots(self) -> int:
        """Look at every batch since the last call, at most ``RANGE`` records at once; returns how many it labelled.

        Raises :class:`Unavailable` when the database is away; the next call goes on there.
        """
        labelled = 0
        while (found := self._look()) is not None:
            labelled += found
        return labelled

    def _look(self) -> int | None:
        """How many of the next range it labelled; None at the end of the ledger."""
        with reading(self._engine) as connection:
            if self._since is None:
                self._since = _a_day_back(connection, self._clock())
            upto = _up_to(connection, self._since)
            if upto == self._since:
                return None
            search_by_keys(connection)
            recent = _recent(connection, since=self._since, upto=upto).all()
            clicks = self._waiting | {row.event_no: None for row in recent if row.type in KINDS}
            found = _attributed(connection, clicks=as_list((number,) for number in clicks)).all()
            touched = {row.decision_id for row in (*found, *recent) if row.decision_id is not None}
            labels = suspects(connection, recent, touched, int(self._settings.bot_seconds * MICROS))
            for row in found:
                clicks.pop(row.event_no, None)
        if labels:
            store.apply(self._engine, Batch(labels=tuple(labels)), self._secrets, self._clock())
        self._since, self._waiting = upto, dict.fromkeys(list(clicks)[-WAITING:])
        return len(labels)


def put_label(
    engine: Engine, secrets: Secrets, source: str, event_id: str, label: str, applies: bool, reason: str, now: int
) -> Label:
    """A person's word about a stored event: it holds against every word said before.

    Raises :class:`NotFound` for an event that is not stored.
    """
    said = (event_labels.c.source == source, event_labels.c.event_id == event_id, event_labels.c.label == label)
    key = (event_keys.c.source == source, event_keys.c.id_hash == hash_id(event_id))
    stored = exists().where(*key, event_keys.c.event_no == events.c.event_no)
    with reading(engine) as connection:
        if not connection.scalar(select(stored)):
            raise NotFound(
                f"No event {event_id!r} of source {source!r}; GET /v1/decisions/{{id}} shows a decision's events"
            )
        latest = connection.scalar(select(func.max(event_labels.c.labelled_at)).where(*said))
    word = Label(
        source=source,
        event_id=event_id,
        label=label,
        labelled_at=now if latest is None else max(now, latest + 1),
        applies=applies,
        reason=reason,
    )
    store.apply(engine, Batch(labels=(word,)), secrets, now)
    return word


@prepared
def _recent() -> Select[Any]:
    """Clicks, opens and activations of the batches in (``since``, ``upto``]."""
    columns = (events.c.source, events.c.event_id, events.c.type, events.c.decision_id, events.c.unit)
    return select(events.c.event_no, *columns, events.c.occurred_at, events.c.received_at, events.c.raw).where(
        _WATCHED,
        events.c.batch_no > bindparam("since", type_=BigInteger),
        events.c.batch_no <= bindparam("upto", type_=BigInteger),
    )


@prepared
def _attributed() -> Select[Any]:
    """The decisions that clicks belong to."""
    clicks = listed("clicks", event_no=BigInteger())
    found = clicks.join(attributions, attributions.c.event_no == clicks.c.event_no)
    return select(clicks.c.event_no, attributions.c.decision_id).select_from(found)


@prepared
def _of_decisions() -> Select[Any]:
    """Every event of decisions, with when its decision started. Types are told apart afterwards: a condition on them
    would have the database read its small index of clicks whole."""
    touched = listed("touched", decision_id=Text())
    return (
        select(
            attributions.c.decision_id.label("group"),
            events.c.source,
            events.c.event_id,
            events.c.occurred_at,
            events.c.received_at,
            events.c.type,
            start_of(decisions).label("start"),
        )
        .select_from(touched)
        .join(attributions, attributions.c.decision_id == touched.c.decision_id)
        .join(events, events.c.event_no == attributions.c.event_no)
        .join(decisions, decisions.c.decision_id == touched.c.decision_id)
        .distinct()
    )


@prepared
def _of_units() -> Select[Any]:
    """Every event of a customer next to one of these."""
    near = listed("near", unit=Text(), occurred_at=BigInteger())
    fastest = bindparam("fastest", type_=BigInteger)
    return (
        select(
            events.c.unit.label("group"),
            events.c.source,
            events.c.event_id,
            events.c.occurred_at,
            events.c.received_at,
            events.c.type,
        )
        .select_from(near)
        .join(
            events,
            and_(
                events.c.unit == near.c.unit,
                events.c.occurred_at.between(near.c.occurred_at - fastest, near.c.occurred_at + fastest),
            ),
        )
        .distinct()
    )


def _click(row: Row[Any]) -> Click:
    return Click._make(row[: len(Click._fields)])


def _judged_before(connection: Connection, found: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those about which there is a word already, for or against."""
    return {(row.source, row.event_id) for row in _words(connection, found=as_list(found))} if found else set()


@prepared
def _words() -> Select[Any]:
    found = listed("found", source=Text(), event_id=Text())
    word = event_labels.c
    same = and_(word.source == found.c.source, word.event_id == found.c.event_id, word.label == literal(BOT))
    return select(word.source, word.event_id).select_from(found.join(event_labels, same))


def _a_day_back(connection: Connection, now: int) -> int:
    """The newest batch older than a day; 0 without one."""
    query = select(batches.c.batch_no).where(batches.c.at < now - DAY).order_by(batches.c.batch_no.desc()).limit(1)
    return connection.scalar(query) or 0


def _up_to(connection: Connection, since: int) -> int:
    """The last batch of the next range of the ledger; ``since`` when there is none."""
    line = batches.c
    query = (
        select(line.batch_no, line.read + line.decisions)
        .where(line.batch_no > since)
        .order_by(line.batch_no)
        .limit(1_000)
    )
    upto, total = since, 0
    for batch_no, size in connection.execute(query):
        total += size
        if total > RANGE and upto > since:
            break
        upto = batch_no
    return upto
