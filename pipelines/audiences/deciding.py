"""A send decided for a whole audience: every recipient's choice stored, then written beside the recipient.

Per chunk of the audience:

1 read, 2 look for a newer snapshot: the chunk uses one, 3 which recipients are decided already, 4 who may not be sent
anything, 5 decide the others and store them, 6 write every row from what is stored

The decision of a recipient is ``<send>/<hash of the customer under the loop's secret>``: the same send again, after a
crash or for a file in another order, finds what is stored and decides nobody twice. Its id and request are those of a
call of ``/v1/rank``, which would answer the same. Files appear when they are whole.

A customer who is suppressed after having been decided is written as ``no_send`` all the same: what was decided stays
on record, what is sent is decided by what holds now.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
from sqlalchemy import Engine, select

from infra import tables
from infra.clock import Clock
from infra.database import reading
from infra.errors import BadInput, Conflict
from infra.randomness import digest
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import store
from ingestion.contents import read_campaign
from ingestion.events import NO_SEND, Batch, Decision
from ingestion.files.audience import Audience, Columns, Recipient, Unread, Value, open_audience
from ingestion.links import check_links, make_link
from ingestion.tokens import make_token
from pipelines.audiences.output import Answer, columns_of, rejects_of, writing_rejects, writing_rows
from pipelines.audiences.storing import Choice, choice_of, read_choices, store_many
from reward_models.serving.asking import digest_of
from reward_models.serving.eligibility import OPEN, capped, suppressed
from reward_models.serving.many import rank_many
from reward_models.serving.ranker import Request, sends
from reward_models.serving.snapshot import Snapshot, Snapshots

CHUNK = 4_096
"""Recipients decided together."""
LEAST = 100
"""Fewest recipients decided together where a budget is nearly used up: it may be passed by as many."""
ROWS_LIMIT = 10_000_000
"""Most rows of an audience: what was seen of each is kept in memory."""
SEND = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""What a send may be called. No slash: what follows one in a decision's id is the recipient."""
_REASONS = 50
"""Most reasons that are told apart in the report."""

Tell = Callable[[int, int, int], None]
"""Told how many rows are done, and how much of how much of the file that is."""
Write = Callable[[Sequence[Sequence[Value | None]]], None]
Reject = Callable[[Unread], None]


@dataclass(frozen=True)
class Send:
    """What is to be sent to whom. ``destination``: null in a dry run, which stores and writes nothing."""

    name: str
    campaign: str
    source: Path
    destination: Path | None
    loop: str | None = None
    columns: Columns = field(default_factory=Columns)
    links: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    """Whether decisions of this send may be there already."""


class Complaint(msgspec.Struct):
    """Why rows could not be used: how many, and the first of them."""

    rows: int
    first_line: int


class Report(msgspec.Struct):
    """What became of every row: ``rows`` = decided + stored_before + repeated + refused + rejected."""

    send: str
    loop: str
    campaign: str
    rows: int = 0
    decided: int = 0
    stored_before: int = 0
    repeated: int = 0
    """Rows of customers who were in the file before: the same answer again."""
    refused: int = 0
    """Rows of customers who may not be sent anything, in a loop that has no such choice: nothing is decided."""
    rejected: int = 0
    holdout: int = 0
    """Rows whose customer is held out."""
    contents: dict[str, int] = {}
    """Rows by content."""
    nothing_because: dict[str, int] = {}
    """Rows that were given nothing, by reason."""
    complaints: dict[str, Complaint] = {}
    """Rejected rows by reason."""
    output: str | None = None
    rejects: str | None = None


@dataclass(frozen=True)
class Desk:
    """What a send is decided on."""

    engine: Engine
    secrets: Secrets
    settings: Settings
    clock: Clock


def decide(desk: Desk, send: Send, tell: Tell) -> Report:
    """Decide for every recipient, store, write. Raises :class:`BadInput` when the send cannot be made as it is asked
    for, :class:`Conflict` when its name was used for another one, ``Unavailable`` when the database is away: what was
    decided is stored, the same send goes on."""
    deciding = _Deciding(desk, send)
    report, target = deciding.report, send.destination
    with open_audience(send.source, send.columns) as audience:
        if target is None:
            deciding.run(audience, tell, None, None)
            return report
        columns = columns_of(send.columns.keep, list(send.links))
        with writing_rejects(rejects_of(target)) as rejects, writing_rows(target, columns) as rows:
            deciding.run(audience, tell, rows.write, rejects.write)
    report.output, report.rejects = str(target), str(rejects_of(target)) if report.rejected else None
    return report


class _Deciding:
    """One run of a send."""

    def __init__(self, desk: Desk, send: Send) -> None:
        self._desk, self._send = desk, send
        self._snapshots = Snapshots(desk.engine, desk.settings.bundles)
        self._loop = _check(desk, send)
        self._secret = desk.secrets.loop(self._loop)
        self._resumed = _is_begun(desk.engine, send.name)
        if self._resumed and not send.resume and send.destination is not None:
            raise Conflict(
                f"The send {send.name!r} was begun before; go on with --resume, or give this one its own name"
            )
        self._seen: set[str] = set()
        self.report = Report(send.name, self._loop, send.campaign)

    def run(self, audience: Audience, tell: Tell, write: Write | None, reject: Reject | None) -> None:
        """All chunks of the audience. Without ``write`` nothing is stored."""
        self._snapshots.refresh()
        self._snapshots.current = self._snapshots.with_layer_of(self._snapshots.listen(), self._send.campaign)
        while chunk := list(islice(audience.rows, self._size())):
            self._chunk(chunk, write, reject)
            tell(self.report.rows, audience.position(), audience.size)
            if self.report.rows > ROWS_LIMIT:
                raise BadInput(f"The audience has more than {ROWS_LIMIT:,} rows; make several sends of it")

    def _size(self) -> int:
        """Recipients of the next chunk: about as many as the scarcest budget has left, so that it is hardly passed."""
        snapshot = self._snapshots.current
        loop, campaign = snapshot.loops[self._loop], snapshot.campaigns[self._send.campaign]
        budgets = {name: one.budget for name, one in loop.definition.limits.items()}
        left = [(budgets[name] or 0) - sent for name, sent in sends(snapshot, loop.definition, campaign).items()]
        return min(CHUNK, max(LEAST, min((one for one in left if one > 0), default=CHUNK)))

    def _count_sends(self) -> None:
        """Make exposures of what was decided, as the server's tick does, where a budget depends on it."""
        snapshot = self._snapshots.current
        campaign = snapshot.campaigns[self._send.campaign]
        if sends(snapshot, snapshot.loops[self._loop].definition, campaign):
            store.apply(self._desk.engine, Batch(), self._desk.secrets, self._desk.clock())
            self._snapshots.refresh()

    def _chunk(self, chunk: Sequence[Recipient | Unread], write: Write | None, reject: Reject | None) -> None:
        people = [(self._id(row.unit), row) for row in chunk if isinstance(row, Recipient)]
        first = dict(reversed(people))
        earlier = self._earlier({name: row for name, row in first.items() if self._resumed or name in self._seen})
        new = {name: row for name, row in people if first[name] is row and name not in earlier}
        answers = earlier | self._decided(new, write is not None)
        self._count([(name, answers[name]) for name, _ in people], earlier)
        if write is not None:
            write([_row(row, answers[name], len(self._send.links)) for name, row in people])
        for row in chunk:
            if isinstance(row, Unread):
                self._complain(row)
                if reject is not None:
                    reject(row)
        self.report.rows += len(chunk)

    def _id(self, unit: str) -> str:
        """The decision's id: nobody can tell the customer from it, and it is the same for ever."""
        return f"{self._send.name}/{digest(self._secret, 'send', f'{self._send.name}/{unit}')[:16].hex()}"

    def _earlier(self, people: Mapping[str, Recipient]) -> dict[str, Answer]:
        """Of those who are decided already, what is to be written now: who was suppressed since gets nothing."""
        if not people:
            return {}
        every = {name: self._desk.secrets.every_unit(row.unit) for name, row in people.items()}
        with reading(self._desk.engine) as connection:
            found = read_choices(connection, list(people))
            gone = suppressed(connection, self._loop, {every[name][0]: every[name] for name in found})
        return {name: self._answer(choice, gone.get(every[name][0])) for name, choice in found.items()}

    def _decided(self, people: Mapping[str, Recipient], stored: bool) -> dict[str, Answer]:
        """Decisions for these, stored unless it is a dry run."""
        if not people:
            return {}
        requests = self._requests(self._snapshots.refresh(), people)
        made = rank_many(self._snapshots.current, requests, self._desk.secrets, self._desk.settings.candidate_limit)
        decisions = [one for one in made if isinstance(one, Decision)]
        both = zip(requests, made, strict=True)
        refused = {request.decision_id: _refused(request, one) for request, one in both if isinstance(one, Conflict)}
        choices = [choice_of(one) for one in decisions]
        if stored:
            choices = store_many(self._desk.engine, decisions)
            self._count_sends()
        return refused | {choice.decision_id: self._answer(choice) for choice in choices}

    def _requests(self, snapshot: Snapshot, people: Mapping[str, Recipient]) -> list[Request]:
        secrets, now, campaign = self._desk.secrets, self._desk.clock(), self._send.campaign
        every = {name: secrets.every_unit(row.unit) for name, row in people.items()}
        units = {known[0]: known for known in every.values()}
        with reading(self._desk.engine) as connection:
            gone = suppressed(connection, self._loop, units)
            often = capped(connection, snapshot.loops[self._loop].definition, campaign, units, now)
        return [
            Request(
                decision_id=name,
                request_digest=digest_of(self._loop, self._said(name, row), secrets),
                loop_id=self._loop,
                campaign_id=campaign,
                decided_at=now,
                unit=row.unit,
                context=row.context,
                suppressed=gone.get(every[name][0]),
                capped=often.get(every[name][0], OPEN),
            )
            for name, row in people.items()
        ]

    def _said(self, name: str, row: Recipient) -> dict[str, object]:
        """The body of ``/v1/rank`` that asks the same."""
        said = {"decision_id": name, "loop": self._loop, "campaign": self._send.campaign, "unit": row.unit}
        return {**said, "context": row.context} if row.context else {**said}

    def _answer(self, choice: Choice, gone: str | None = None) -> Answer:
        """A choice as it is written. ``gone``: why the customer may not be sent anything any more."""
        if choice.campaign_id != self._send.campaign:
            raise Conflict(
                f"The send {self._send.name!r} was decided for campaign {choice.campaign_id!r}; give this one its own name"
            )
        content_id, reason = choice.content_id, choice.withheld
        if gone is not None and content_id != NO_SEND:
            content_id, reason = NO_SEND, f"suppressed: {gone}"
        name, secrets, public = choice.decision_id, self._desk.secrets, self._desk.settings.public_url
        nothing = content_id == NO_SEND
        links = self._send.links.values()
        return Answer(
            content_id,
            choice.propensity if content_id == choice.content_id else None,
            choice.group,
            choice.learning_mode,
            reason,
            name,
            None if nothing else make_token(secrets, name),
            tuple(None if nothing else make_link(secrets, public, name, 1, url) for url in links),
        )

    def _count(self, answers: Sequence[tuple[str, Answer]], earlier: Mapping[str, Answer]) -> None:
        report = self.report
        for name, answer in answers:
            if name in self._seen:
                report.repeated += 1
            elif name in earlier:
                report.stored_before += 1
            elif answer.decision_id is None:
                report.refused += 1
            else:
                report.decided += 1
            self._seen.add(name)
            report.holdout += answer.group == "holdout"
            report.contents[answer.content_id] = report.contents.get(answer.content_id, 0) + 1
            if answer.reason is not None:
                report.nothing_because[answer.reason] = report.nothing_because.get(answer.reason, 0) + 1

    def _complain(self, row: Unread) -> None:
        self.report.rejected += 1
        known = self.report.complaints
        reason = row.reason if row.reason in known or len(known) < _REASONS else "other reasons"
        found = known.setdefault(reason, Complaint(0, row.line))
        found.rows += 1


def _check(desk: Desk, send: Send) -> str:
    """The loop of the send. Raises :class:`BadInput` when it cannot be made."""
    if not re.fullmatch(SEND, send.name):
        raise BadInput(
            f"{send.name[:64]!r} cannot name a send; use up to 128 letters, digits, dots, dashes, underscores"
        )
    with reading(desk.engine) as connection:
        campaign = read_campaign(connection, send.campaign)
    loop: str = campaign.loop_id
    if send.loop not in (None, loop):
        raise BadInput(f"Campaign {send.campaign!r} belongs to loop {loop!r}, not {send.loop!r}")
    if campaign.state != "running":
        raise BadInput(f"Campaign {send.campaign!r} does not run ({campaign.state}); only a running campaign is sent")
    if send.links:
        check_addresses(send.links, desk.settings)
    return loop


def check_addresses(links: Mapping[str, str], settings: Settings) -> None:
    """Raise :class:`BadInput` unless links to these can be made."""
    check_links(links, 1, settings)
    if not settings.public_url:
        raise BadInput("Links need the address that readers reach the API under; set REWARDLOOP_PUBLIC_URL", "/links")


def _is_begun(engine: Engine, name: str) -> bool:
    """Whether a decision of this send is stored: ids of no other begin so."""
    c = tables.decisions.c
    query = select(c.decision_id).where(c.decision_id >= f"{name}/", c.decision_id < f"{name}0").limit(1)
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def _row(row: Recipient, answer: Answer, links: int) -> tuple[Value | None, ...]:
    return (row.line, row.unit, *row.kept, *answer[:-1], *(answer.links or (None,) * links))


def _refused(request: Request, refusal: Conflict) -> Answer:
    """Who may not be sent anything in a loop that knows no such choice: nothing is decided."""
    return Answer(NO_SEND, None, None, None, request.capped.everything or str(refusal), None, None)
