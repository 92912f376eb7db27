"""What the weekly report reads from the database: counts per content, promises against what came, changes, health.

Everything here takes an open connection and a period, and returns plain values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import BigInteger, Connection, cast, func, select

from infra import tables
from infra.clock import DAY, HOUR, MICROS
from ingestion.audit import read_audit
from ingestion.loops import LoopDefinition
from pipelines.reporting.facts import Change, Check, Period
from reward_models.best_arm import load_days
from reward_models.calibration import reliability
from reward_models.dataset import TrainingSet
from reward_models.health import examine
from reward_models.posterior import ArmCounts

Floats = npt.NDArray[np.float64]

MOST_CAMPAIGNS = 6
"""Campaigns in the report: those with the most decisions in the period."""
MOST_PROMISES = 20_000
"""Decisions whose promise is compared with what came, the newest."""
MOST_CHANGES = 500


@dataclass(frozen=True)
class Shown:
    """A campaign with its K contents: rows of ``contents``, counts per day, and results in the period by metric."""

    campaign_id: str
    brief: str
    contents: Sequence[Any]
    days: Sequence[ArmCounts]
    exposures: Mapping[str, int]
    totals: Mapping[str, Mapping[str, float]]
    """By metric and content."""


def campaigns_shown(connection: Connection, definition: LoopDefinition, period: Period) -> list[Shown]:
    """The campaigns of the period, those with the most decisions first."""
    stats, campaigns = tables.content_stats.c, tables.campaigns.c
    busy = (
        select(campaigns.campaign_id, campaigns.brief)
        .join(tables.content_stats, stats.campaign_id == campaigns.campaign_id)
        .where(campaigns.loop_id == definition.loop, *_within(period))
        .group_by(campaigns.campaign_id, campaigns.brief)
        .order_by(func.sum(stats.exposures).desc(), campaigns.campaign_id)
        .limit(MOST_CAMPAIGNS)
    )
    return [_shown(connection, definition, period, *row) for row in connection.execute(busy).all()]


def totals(connection: Connection, definition: LoopDefinition, period: Period) -> tuple[int, dict[str, float]]:
    """Decisions of the period, and the sum of each metric over them so far, in units."""
    stats = tables.content_stats.c
    query = (
        select(stats.metric, _sum(stats.exposures), _sum(stats.sum))
        .join(tables.campaigns, tables.campaigns.c.campaign_id == stats.campaign_id)
        .where(tables.campaigns.c.loop_id == definition.loop, *_within(period))
        .group_by(stats.metric)
    )
    found = {metric: (int(shown), total / MICROS) for metric, shown, total in connection.execute(query)}
    return max((shown for shown, _ in found.values()), default=0), {name: total for name, (_, total) in found.items()}


def promises(
    connection: Connection, training: TrainingSet, period: Period
) -> tuple[float, tuple[tuple[float, float, float], ...]] | None:
    """What the posterior promised of the contents that were sent, against the mature rewards: mean error and bins.
    None without decisions of a model."""
    place = {decision: row for row, decision in enumerate(training.decision_id) if training.position[row] == 1}
    c = tables.decisions.c
    query = (
        select(c.decision_id, c.candidates, c.chosen)
        .where(
            c.loop_id == training.loop_id,
            c.model_version.is_not(None),
            c.group == "treatment",
            c.decided_at >= period.since,
            c.decided_at < period.until,
        )
        .order_by(c.decided_at.desc())
        .limit(MOST_PROMISES)
    )
    pairs = [
        (promised, float(training.reward[place[decision]]))
        for decision, promised in _promised(connection.execute(query))
        if decision in place
    ]
    if not pairs:
        return None
    promised, arrived = np.array(pairs).T
    return reliability(promised, arrived, np.ones(len(pairs)))


def changes(connection: Connection, loop_id: str, since: int, until: int) -> list[Change]:
    """What was changed, oldest first: copy by day and campaign, and the audit's lines about the loop."""
    found = [*_new_copy(connection, loop_id, since, until), *_audited(connection, loop_id, since, until)]
    return sorted(found, key=lambda change: change.at)[-MOST_CHANGES:]


def health(connection: Connection, definition: LoopDefinition, period: Period, as_of: int, now: int) -> list[Check]:
    """Log health of the period's decisions, and what its batches and events say."""
    found = examine(connection, definition, as_of=as_of, now=now, since=period.since, before=min(period.until, now))
    checks = [Check(each.name, each.state, each.sentence) for each in found.checks]
    return [*checks, *_ledger(connection, period), _late(connection, definition, period)]


def _within(period: Period) -> tuple[Any, Any]:
    bucket = tables.content_stats.c.bucket
    return bucket >= period.since // DAY, bucket < period.until // DAY


def _sum(column: Any) -> Any:
    return cast(func.sum(column), BigInteger)


def _shown(connection: Connection, definition: LoopDefinition, period: Period, campaign_id: str, brief: str) -> Shown:
    c, stats = tables.contents.c, tables.content_stats.c
    contents = connection.execute(
        select(c.content_id, c.slots, c.approval).where(c.campaign_id == campaign_id).order_by(c.content_id)
    ).all()
    query = (
        select(stats.content_id, stats.metric, _sum(stats.exposures), _sum(stats.sum))
        .where(stats.campaign_id == campaign_id, *_within(period))
        .group_by(stats.content_id, stats.metric)
    )
    exposures: dict[str, int] = {}
    by_metric: dict[str, dict[str, float]] = {}
    for content_id, metric, shown, total in connection.execute(query):
        exposures[content_id] = max(exposures.get(content_id, 0), shown)
        by_metric.setdefault(metric, {})[content_id] = total / MICROS
    ids = [content.content_id for content in contents]
    days = load_days(connection, campaign_id, ids, definition.reward)
    return Shown(campaign_id, brief, contents, days, exposures, by_metric)


class _Promised(msgspec.Struct):
    content_id: str
    mean: float | None = None


class _Chosen(msgspec.Struct):
    content_id: str
    position: int = 1


def _promised(rows: Any) -> Iterator[tuple[str, float]]:
    for decision_id, candidates, chosen in rows:
        first = next((one.content_id for one in msgspec.convert(chosen, list[_Chosen]) if one.position == 1), None)
        for candidate in msgspec.convert(candidates, list[_Promised]):
            if candidate.content_id == first and candidate.mean is not None:
                yield decision_id, candidate.mean


def _new_copy(connection: Connection, loop_id: str, since: int, until: int) -> Iterator[Change]:
    c, campaigns = tables.contents.c, tables.campaigns.c
    date = c.created_at - c.created_at % DAY
    query = (
        select(func.min(c.created_at), c.campaign_id, func.count())
        .join(tables.campaigns, campaigns.campaign_id == c.campaign_id)
        .where(campaigns.loop_id == loop_id, c.created_at >= since, c.created_at < until)
        .group_by(date, c.campaign_id)
        .order_by(date, c.campaign_id)
        .limit(MOST_CHANGES)
    )
    for at, campaign_id, count in connection.execute(query):
        yield Change(at, "copy", f"{count:,} new in {campaign_id}")


def _audited(connection: Connection, loop_id: str, since: int, until: int) -> Iterator[Change]:
    in_loop = select(tables.campaigns.c.campaign_id).where(tables.campaigns.c.loop_id == loop_id)
    ours = set(
        connection.scalars(select(tables.contents.c.content_id).where(tables.contents.c.campaign_id.in_(in_loop)))
    )
    for entry in read_audit(connection, since=since, limit=10 * MOST_CHANGES):
        about = entry.subject == loop_id or entry.details.get("loop") == loop_id or entry.subject in ours
        if about and entry.at < until and (change := _told(entry.action, entry.subject, entry.details)) is not None:
            yield Change(entry.at, *change)


def _told(action: str, subject: str, details: Mapping[str, Any]) -> tuple[Any, str] | None:
    """Kind and words of a line of the audit; None: of no interest here."""
    if action == "promote":
        replaced = details.get("replaces")
        return "model", f"{subject} serves" + (f" instead of {replaced}" if replaced else "")
    if action in ("kill", "unkill"):
        return "paused", "switched to the baseline" if action == "kill" else "chooses again"
    if action == "define_loop":
        return "rules", f"definition {details.get('version')}"
    if action == "approval" and details.get("to") in ("retired", "rejected"):
        return "paused", f"{subject} {details['to']}"
    return None


def _ledger(connection: Connection, period: Period) -> list[Check]:
    b = tables.batches.c
    columns = (b.read, b.applied, b.duplicate, b.ignored, b.pending, b.quarantined)
    row = connection.execute(
        select(*(func.coalesce(_sum(column), 0) for column in columns)).where(b.at >= period.since, b.at < period.until)
    ).one()
    read, applied, duplicate, ignored, pending, held = (int(value) for value in row)
    if not read:
        return [Check("records", "none", "No record was read in this period.")]
    said = (
        f"{read:,} records were read in the installation: {applied:,} applied, {duplicate:,} seen before, {ignored:,} of "
        f"no use, {pending:,} waiting for their decision, {held:,} could not be used (rewardloop quarantine list)."
    )
    return [Check("records", "look" if held > 0.01 * read else "fine", said)]


def _late(connection: Connection, definition: LoopDefinition, period: Period) -> Check:
    """How late events of the loop's metrics arrived; later than ``lateness`` may miss its decision's maturity."""
    e = tables.events.c
    types = sorted({metric.event for metric in definition.metrics})
    within = (e.type.in_(types), e.occurred_at >= period.since, e.occurred_at < period.until)
    delay = e.received_at - e.occurred_at
    whole = connection.scalar(select(func.count()).where(*within)) or 0
    if not whole:
        return Check("late", "none", "No event of the loop's metrics in this period.")
    late = connection.scalar(select(func.count()).where(*within, delay > definition.lateness)) or 0
    mean = float(connection.scalar(select(func.avg(delay)).where(*within)) or 0.0) / HOUR
    said = (
        f"{late / whole:.1%} of {whole:,} clicks, purchases and the like came later than the loop waits for "
        f"({definition.lateness / HOUR:,.3g} hours); on average they came after {max(0.0, mean):,.2g} hours."
    )
    return Check("late", "look" if late > 0.02 * whole else "fine", said)
