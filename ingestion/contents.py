"""Campaigns, their contents and baselines, and approval.

A content never changes: an edit is a new content with a parent. The same copy in one campaign (equal fingerprint)
is one content. New copy is held against the loop's rules (``guardrails.py``): what breaks one is rejected, with the verdict
stored; what passes is approved if the loop approves automatically, else it waits as a draft. A campaign's baseline is frozen when it starts: the named control, or uniform over the contents
approved by then. Everything here happens inside the caller's transaction, so a refused request leaves nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, select, update

from infra import tables
from infra.database import chunks, insert_new
from infra.errors import BadInput, Conflict, NotFound
from ingestion.audit import record
from ingestion.copy.guardrails import Surroundings, Verdict, passed, text_of, vet
from ingestion.copy.near_duplicates import Known
from ingestion.events import NO_SEND, Campaign, Content
from ingestion.loops import LoopDefinition, load_loop

Approval = Literal["draft", "approved", "rejected", "retired"]

TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "draft": ("approved", "rejected"),
    "approved": ("retired",),
    "rejected": ("approved",),
    "retired": ("approved",),
}
"""What may follow each state of approval."""

BASELINE_VERSION = 1
NOTHING_SAID: Mapping[str, Sequence[Verdict]] = {}
_MUTABLE = ("approval", "created_at")


class Registered(NamedTuple):
    """One content after registration."""

    content_id: str
    status: Literal["created", "existing"]
    approval: Approval


ACTIONS = "-actions"
"""End of the name of the campaign that holds the actions of a loop's Personalizer clients."""


def put_campaign(connection: Connection, campaign: Campaign) -> bool:
    """Register a campaign as a draft without a baseline; the same again changes nothing. Returns whether it is new.

    Raises :class:`Conflict` for a known id with another loop, brief or channel, :class:`BadInput` for the name of
    another loop's actions.
    """
    if campaign.campaign_id.endswith(ACTIONS) and campaign.campaign_id != campaign.loop_id + ACTIONS:
        raise BadInput(
            f"Names that end in {ACTIONS!r} hold a loop's actions; give the campaign another id", "/campaign"
        )
    row = msgspec.structs.asdict(campaign) | {"state": "draft", "baseline": {}}
    if insert_new(connection, tables.campaigns, [row]):
        return True
    stored = read_campaign(connection, campaign.campaign_id)
    for name in ("loop_id", "brief", "channel"):
        if getattr(stored, name) != row[name]:
            raise Conflict(
                f"Campaign {campaign.campaign_id!r} exists with another {name.removesuffix('_id')}; "
                "use another campaign id, or send the first body again"
            )
    return False


def start_campaign(connection: Connection, campaign_id: str, control: str | None, actor: str, now: int) -> None:
    """Freeze the baseline and set the campaign running. A running campaign stays as it is.

    Raises :class:`BadInput` when no content is approved, or when the control is not, :class:`Conflict` when the
    campaign has ended or started with another control.
    """
    stored = read_campaign(connection, campaign_id, lock=True)
    if stored.state == "ended":
        raise Conflict(f"Campaign {campaign_id!r} has ended; register a new one")
    if stored.state == "running":
        if control is not None and stored.baseline.get("content_ids") != [control]:
            raise Conflict(
                f"Campaign {campaign_id!r} runs and its baseline is frozen; register a new one for another control"
            )
        return
    definition, _ = load_loop(connection, stored.loop_id)
    baseline = _frozen(campaign_id, _approved(connection, campaign_id), control, definition)
    _change(connection, stored, "start", actor, now, state="running", baseline=baseline)


def end_campaign(connection: Connection, campaign_id: str, actor: str, now: int) -> None:
    """Stop a campaign: it is ranked no more; its events are still counted."""
    stored = read_campaign(connection, campaign_id, lock=True)
    if stored.state != "ended":
        _change(connection, stored, "end", actor, now, state="ended")


def read_campaign(connection: Connection, campaign_id: str, lock: bool = False) -> Row[Any]:
    """The stored campaign; ``lock``: nobody else changes it until the transaction ends. Raises :class:`NotFound`."""
    query = select(tables.campaigns).where(tables.campaigns.c.campaign_id == campaign_id)
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise NotFound(f"No campaign {campaign_id!r}; register it with POST /v1/campaigns")
    return row


def add_contents(
    connection: Connection,
    campaign_id: str,
    contents: Sequence[Content],
    text_limit: int,
    now: int,
    said: Mapping[str, Sequence[Verdict]] = NOTHING_SAID,
) -> list[Registered]:
    """Register contents in their campaign, in the order given, under the loop's rules and its approval rule.

    A content without an id (empty) gets one made from its copy. Copy that the campaign knows is answered with
    the known content, whoever wrote it first. ``said``: further verdicts by fingerprint; one that is not passed rejects like a rule's. Raises
    :class:`Conflict` for a known id with another body, :class:`NotFound` for an unknown campaign, :class:`BadInput`
    for a text that is too long.
    """
    campaign = read_campaign(connection, campaign_id, lock=True)
    definition, version = load_loop(connection, campaign.loop_id)
    admitted = [admit(definition, campaign_id, content, text_limit, now) for content in contents]
    by_copy = _stored(connection, tables.contents.c.fingerprint, [c.fingerprint for c in admitted], campaign_id)
    by_id = _stored(connection, tables.contents.c.content_id, [c.content_id for c in admitted])
    answers: list[Registered | int] = []
    new: list[Content] = []
    for given, content in zip(contents, admitted, strict=True):
        known = by_copy.get(content.fingerprint)
        same_id = by_id.get(content.content_id)
        if same_id is not None and (given.content_id or known is None):
            _agree(same_id, content)
            known = same_id
        if known is None:
            answers.append(len(new))
            new.append(content)
            by_copy[content.fingerprint] = by_id[content.content_id] = content
        else:
            answers.append(Registered(known.content_id, "existing", known.approval))
    if new and campaign.state == "ended":
        raise Conflict(f"Campaign {campaign_id!r} has ended and takes no more contents; register a new one")
    judged = judge(connection, definition, campaign, new, said)
    insert_new(connection, tables.contents, [content_row(content) for content, _ in judged])
    rows = [row for content, verdicts in judged for row in verdict_rows(content.content_id, verdicts, version, now)]
    insert_new(connection, tables.verdicts, rows)
    made = [Registered(content.content_id, "created", content.approval) for content, _ in judged]
    return [made[answer] if isinstance(answer, int) else _after(answer, made) for answer in answers]


def admit(definition: LoopDefinition, campaign_id: str, content: Content, text_limit: int, now: int) -> Content:
    """The content as the loop takes it: checked for what no loop takes, with an id; a draft until its rules have spoken,
    approved if there are none and the loop approves automatically."""
    if content.content_id == NO_SEND:
        raise BadInput(f"{NO_SEND!r} is reserved for sending nothing; give the content another id")
    if not any(text.strip() for text in content.slots.values()):
        raise BadInput("A content needs at least one slot with text")
    for slot, text in content.slots.items():
        if (size := len(text.encode())) > text_limit:
            raise BadInput(f"Slot {slot!r} holds {size} bytes of text; the limit is {text_limit}: shorten it", "/slots")
    made = hashlib.sha256(f"{campaign_id}\x00{content.fingerprint}".encode()).hexdigest()[:20]
    at_once = definition.approval == "automatic" and not definition.copy_rules.any
    return msgspec.structs.replace(
        content,
        content_id=content.content_id or f"c-{made}",
        campaign_id=campaign_id,
        approval="approved" if at_once else "draft",
        created_at=now,
    )


def judge(
    connection: Connection,
    definition: LoopDefinition,
    campaign: Row[Any],
    contents: Sequence[Content],
    said: Mapping[str, Sequence[Verdict]] = NOTHING_SAID,
) -> list[tuple[Content, tuple[Verdict, ...]]]:
    """Admitted contents with their state of approval, each with its verdicts; later ones may repeat earlier ones."""
    rules = definition.copy_rules
    others = (
        _standing_copy(connection, campaign.campaign_id) if rules.most_similar is not None and contents else Known()
    )
    parents = _stored(connection, tables.contents.c.content_id, [c.parent_id for c in contents if c.parent_id])
    found = []
    for content in contents:
        verdicts = (
            *vet(rules, content, Surroundings(campaign.brief, parents.get(content.parent_id or ""), others)),
            *said.get(content.fingerprint, ()),
        )
        good = passed(verdicts)
        if good:
            others.add(content.content_id, text_of(content))
        approval: Approval = "rejected" if not good else "approved" if definition.approval == "automatic" else "draft"
        found.append((msgspec.structs.replace(content, approval=approval), verdicts))
    return found


def read_verdicts(connection: Connection, content_ids: Sequence[str]) -> dict[str, list[Verdict]]:
    """What the guardrails said of these contents, by id; of one that no rule looked at there is nothing."""
    c, found = tables.verdicts.c, dict[str, list[Verdict]]()
    for some in chunks(content_ids, 500):
        query = select(tables.verdicts).where(c.content_id.in_(some)).order_by(c.content_id, c.rule)
        for row in connection.execute(query):
            found.setdefault(row.content_id, []).append(Verdict(row.rule, row.passed, row.reason))
    return found


def set_approval(
    connection: Connection, content_id: str, approval: Approval, actor: str, reason: str, now: int
) -> Approval:
    """Move a content to another state of approval, audited. Returns the state before.

    Raises :class:`NotFound`, or :class:`Conflict` for a step that :data:`TRANSITIONS` does not have.
    """
    row = connection.execute(
        select(tables.contents).where(tables.contents.c.content_id == content_id).with_for_update(key_share=True)
    ).first()
    if row is None:
        raise NotFound(f"No content {content_id!r}; register it with POST /v1/contents")
    before: Approval = row.approval
    if before == approval:
        return before
    if approval not in TRANSITIONS[before]:
        allowed = " or ".join(TRANSITIONS[before])
        raise Conflict(f"Content {content_id!r} is {before} and can become {allowed}, not {approval}")
    connection.execute(
        update(tables.contents).where(tables.contents.c.content_id == content_id).values(approval=approval)
    )
    record(connection, actor, "approval", content_id, {"from": before, "to": approval, "reason": reason}, now)
    return before


def verdict_rows(content_id: str, verdicts: Iterable[Verdict], version: int, now: int) -> list[dict[str, Any]]:
    """Verdicts on a content, by the rules of this version of the loop, as rows of ``verdicts``."""
    about = {"content_id": content_id, "at": now, "loop_version": version}
    return [msgspec.structs.asdict(one) | about for one in verdicts]


def content_row(content: Content) -> dict[str, Any]:
    """The content as a row of ``contents``."""
    return msgspec.structs.asdict(content) | {"fingerprint": content.fingerprint}


def content_of(row: Row[Any]) -> Content:
    """A row of ``contents`` as a content."""
    return Content(**{name: getattr(row, name) for name in Content.__struct_fields__})


def _standing_copy(connection: Connection, campaign_id: str) -> Known:
    """Copy of the campaign that is approved or waits for it."""
    c = tables.contents.c
    query = select(tables.contents).where(c.campaign_id == campaign_id, c.approval.in_(("draft", "approved")))
    rows = connection.execute(query.order_by(c.content_id))
    return Known((content.content_id, text_of(content)) for content in map(content_of, rows))


def _after(known: Registered, made: Sequence[Registered]) -> Registered:
    """A known content's answer; one that was made a moment ago has its state from its verdicts."""
    return next((known._replace(approval=one.approval) for one in made if one.content_id == known.content_id), known)


def _approved(connection: Connection, campaign_id: str) -> list[str]:
    contents = tables.contents.c
    query = select(contents.content_id).where(contents.campaign_id == campaign_id, contents.approval == "approved")
    return list(connection.scalars(query.order_by(contents.content_id)))


def _frozen(campaign_id: str, approved: list[str], control: str | None, definition: LoopDefinition) -> dict[str, Any]:
    if control is not None:
        if control not in approved and not (control == NO_SEND and definition.no_send):
            raise BadInput(f"Control {control!r} is no approved content of campaign {campaign_id!r}; approve it first")
        return {"version": BASELINE_VERSION, "kind": "control", "content_ids": [control], "weights": [1.0]}
    if not approved:
        raise BadInput(
            f"Campaign {campaign_id!r} has no approved content; register contents with POST /v1/contents, "
            "approve them with POST /v1/contents/{id}/approval, then start it"
        )
    weights = [1.0 / len(approved)] * len(approved)
    return {"version": BASELINE_VERSION, "kind": "uniform", "content_ids": approved, "weights": weights}


def _change(connection: Connection, stored: Row[Any], action: str, actor: str, now: int, **values: Any) -> None:
    connection.execute(
        update(tables.campaigns).where(tables.campaigns.c.campaign_id == stored.campaign_id).values(**values)
    )
    record(connection, actor, f"campaign.{action}", stored.campaign_id, values, now)


def _stored(
    connection: Connection, column: Any, keys: Sequence[str], campaign_id: str | None = None
) -> dict[str, Content]:
    found = {}
    for some in chunks(keys, 500):
        query = select(tables.contents).where(column.in_(some))
        if campaign_id is not None:
            query = query.where(tables.contents.c.campaign_id == campaign_id)
        for row in connection.execute(query):
            found[row._mapping[column]] = content_of(row)
    return found


def _agree(stored: Content, content: Content) -> None:
    for name in Content.__struct_fields__:
        if name not in _MUTABLE and getattr(stored, name) != getattr(content, name):
            what = name.removesuffix("_id")
            raise Conflict(
                f"Content {content.content_id!r} exists with another {what}; contents never change: "
                "give the edit its own id and name the old one as its parent"
            )
