"""Copy that is there already, when a loop's rules of copy change: it is looked at again, by the new rules.

    recheck(connection, definition, version, actor, now) -> Rechecked

Every content that is approved or waits, of campaigns that are not over, gets the verdicts of the new rules in place of the old
ones. What breaks one waits for a person again, with the verdict beside it in the queue: it is a candidate no more until somebody
approves it all the same. Nothing is approved by this, and nothing rejected: a person said yes to this copy once. That may
leave a campaign with nothing to send, and then `/v1/rank` says so.
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from infra import tables
from infra.database import chunks, insert_new
from ingestion.audit import record
from ingestion.contents import content_of, verdict_rows
from ingestion.copy.guardrails import Surroundings, Verdict, passed, text_of, vet
from ingestion.copy.near_duplicates import Known
from ingestion.events import Content
from ingestion.loops import LoopDefinition


class Rechecked(NamedTuple):
    """How many contents were looked at, and which of the approved wait again."""

    looked_at: int
    waiting: list[str]


def recheck(connection: Connection, definition: LoopDefinition, version: int, actor: str, now: int) -> Rechecked:
    """Verdicts by ``version``, and audited steps back of what breaks a rule."""
    judged = _judged(connection, definition)
    rules = {verdict.rule for _, verdicts in judged for verdict in verdicts} | _earlier(connection, judged)
    for some in chunks([content.content_id for content, _ in judged], 500):
        c = tables.verdicts.c
        connection.execute(delete(tables.verdicts).where(c.content_id.in_(some), c.rule.in_(sorted(rules))))
    rows = [row for content, verdicts in judged for row in verdict_rows(content.content_id, verdicts, version, now)]
    insert_new(connection, tables.verdicts, rows)
    broken = [(one, said) for one, said in judged if one.approval == "approved" and not passed(said)]
    for content, verdicts in broken:
        reason = "; ".join(f"{verdict.rule}: {verdict.reason}" for verdict in verdicts if not verdict.passed)
        step = {"from": "approved", "to": "draft", "reason": f"the rules of version {version}: {reason}"}
        record(connection, actor, "approval", content.content_id, step, now)
    for some in chunks([content.content_id for content, _ in broken], 500):
        changed = update(tables.contents).where(tables.contents.c.content_id.in_(some))
        connection.execute(changed.values(approval="draft"))
    return Rechecked(len(judged), [content.content_id for content, _ in broken])


_KEPT = "best_of"
"""What best of N said of a draft is no rule of copy."""


def _earlier(connection: Connection, judged: list[tuple[Content, tuple[Verdict, ...]]]) -> set[str]:
    """Rules that were in force before."""
    c, found = tables.verdicts.c, set[str]()
    for some in chunks([content.content_id for content, _ in judged], 500):
        found |= set(connection.scalars(select(c.rule).distinct().where(c.content_id.in_(some), c.rule != _KEPT)))
    return found


def _judged(connection: Connection, definition: LoopDefinition) -> list[tuple[Content, tuple[Verdict, ...]]]:
    """Contents with what the new rules say; the older of two that are alike stands."""
    contents, campaigns = tables.contents.c, tables.campaigns.c
    query = (
        select(tables.contents, campaigns.brief)
        .join(tables.campaigns, campaigns.campaign_id == contents.campaign_id)
        .where(
            campaigns.loop_id == definition.loop,
            campaigns.state != "ended",
            contents.approval.in_(("approved", "draft")),
        )
        .order_by(contents.campaign_id, contents.created_at, contents.content_id)
    )
    rows = connection.execute(query).all()
    parents = _parents(connection, [row.parent_id for row in rows if row.parent_id])
    found, standing = [], dict[str, Known]()
    for row in rows:
        content, others = content_of(row), standing.setdefault(row.campaign_id, Known())
        around = Surroundings(row.brief, parents.get(row.parent_id or ""), others)
        verdicts = vet(definition.copy_rules, content, around)
        if passed(verdicts):
            others.add(content.content_id, text_of(content))
        found.append((content, verdicts))
    return found


def _parents(connection: Connection, names: list[str]) -> dict[str, Content]:
    found = dict[str, Content]()
    for some in chunks(sorted(set(names)), 500):
        query = select(tables.contents).where(tables.contents.c.content_id.in_(some))
        found |= {row.content_id: content_of(row) for row in connection.execute(query)}
    return found
