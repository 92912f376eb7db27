"""When a loop is due for a retrain: enough new outcomes have matured, counted in the database.

    new = decisions whose outcome became final since the newest version was registered

Due: 1 new ≥ ``retrain_outcomes``; 2 any new, and the newest version is older than ``retrain_days``; 3 the run that made the
newest version did not end: it is neither judged nor, having passed, promoted. Without a version only decisions count
that a model could be trained on: those that matured before the gate's window.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from infra import tables
from infra.clock import DAY
from infra.settings import Settings
from ingestion.join.attribution import start_of
from ingestion.loops import LoopDefinition
from reward_models import registry
from reward_models.registry import Version


@dataclass(frozen=True)
class Due:
    """Whether a loop is due, and why or why not, in a sentence."""

    loop_id: str
    new: int
    due: bool
    sentence: str


def look(connection: Connection, definition: LoopDefinition, settings: Settings, now: int) -> Due:
    """How the loop stands at ``now`` (microseconds)."""
    newest = next(iter(registry.versions(connection, definition.loop)), None)
    new = count_new(connection, definition, newest, now)
    if newest is not None and _cut_short(newest, definition):
        return Due(definition.loop, new, True, f"The run that made {newest.version} did not end.")
    if new >= settings.retrain_outcomes:
        return Due(
            definition.loop, new, True, f"{new:,} new outcomes matured; {settings.retrain_outcomes:,} are enough."
        )
    if newest is not None and new and now - newest.created_at >= settings.retrain_days * DAY:
        said = f"{newest.version} is {settings.retrain_days} days old, and {new:,} new outcomes matured."
        return Due(definition.loop, new, True, said)
    return Due(definition.loop, new, False, f"{new:,} of {settings.retrain_outcomes:,} new outcomes matured.")


def enough(connection: Connection, definition: LoopDefinition, settings: Settings, now: int) -> str | None:
    """The newest version, empty before the first, if ``retrain_outcomes`` matured since; else None.

    Cheap: it reads no more decisions than it needs, along their index. What was deferred from before that version is left to ``look``.
    """
    newest = next(iter(registry.versions(connection, definition.loop)), None)
    d = tables.decisions.c
    lately = [d.decided_at <= _last(definition, newest, now)]
    if newest is not None:
        lately.append(d.decided_at > newest.created_at - definition.maturity)
    first = select(d.decision_id).where(*lately, *_new(definition, newest, now)).limit(settings.retrain_outcomes)
    found = connection.scalar(select(func.count()).select_from(first.subquery())) or 0
    return (newest.version if newest else "") if found == settings.retrain_outcomes else None


def count_new(connection: Connection, definition: LoopDefinition, newest: Version | None, now: int) -> int:
    """How many decisions' outcomes became final since the newest version, or can be learned from at all."""
    return connection.scalar(select(func.count()).where(*_new(definition, newest, now))) or 0


def _new(definition: LoopDefinition, newest: Version | None, now: int) -> list[ColumnElement[bool]]:
    start, d = start_of(tables.decisions), tables.decisions.c
    found = [d.loop_id == definition.loop, d.batch_no.is_not(None), start <= _last(definition, newest, now)]
    return found if newest is None else [*found, start > newest.created_at - definition.maturity]


def _last(definition: LoopDefinition, newest: Version | None, now: int) -> int:
    """When the last decision started that counts."""
    return definition.cutoff(now) if newest is None else now - definition.maturity


def _cut_short(newest: Version, definition: LoopDefinition) -> bool:
    waits = definition.gate.approval and not newest.approved
    return newest.state == "registered" or (newest.state == "passed" and not waits)
