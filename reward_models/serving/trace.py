"""The trace of a decision: what was known, what was chosen, what came of it and why, and whether it replays."""

from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, func, select

from infra import tables
from infra.clock import MICROS, format_time
from infra.errors import NotFound, RewardloopError
from ingestion.contents import content_of
from ingestion.events import ACTIVATION, NO_SEND, Content, Decision
from ingestion.join.outcomes import judged, matured_at
from ingestion.join.seals import load_seals
from ingestion.loops import LoopDefinition, load_loop, parse_definition
from reward_models.boosted import RewardModel
from reward_models.rewards import reward_of
from reward_models.serving.bodies import (
    ExplainedContent,
    ReplayAnswer,
    Trace,
    TracedEvent,
    TracedOutcome,
    TracedReward,
)
from reward_models.serving.decision_log import decision_of
from reward_models.serving.reasons import explained, told
from reward_models.serving.replay import Replay, replay_choice, replay_scores
from reward_models.serving.snapshot import Snapshots, no_send

SEALED = "sealed"
"""Why an event does not count that came in after the decision's retention."""


def trace(connection: Connection, decision_id: str, snapshots: Snapshots, now: int, explain: bool = False) -> Trace:
    """Everything that is known of a decision; ``explain``: its reasons too. Raises :class:`NotFound`."""
    row = connection.execute(select(tables.decisions).where(tables.decisions.c.decision_id == decision_id)).first()
    if row is None:
        raise NotFound(f"No decision {decision_id!r}; only answers with durable true are stored")
    decision = decision_of(row)
    definition, _ = load_loop(connection, decision.loop_id)
    outcomes = _outcomes(connection, decision, definition)
    start = _start(connection, decision)
    mature = None if start is None else matured_at(definition, start)
    return Trace(
        decision_id=decision_id,
        decision=_readable(decision),
        started_at=None if start is None else format_time(start),
        matured_at=None if mature is None else format_time(mature),
        counted=row.batch_no is not None,
        events=_events(connection, decision, definition),
        outcomes=outcomes,
        rewards=_rewards(decision, definition, outcomes, mature is not None and mature <= now),
        replay=_replay(connection, decision, snapshots),
        reasons=_reasons(decision, snapshots) if explain else None,
    )


def _readable(decision: Decision) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(decision)
    del document["request_digest"]
    return document | {"decided_at": format_time(decision.decided_at)}


def _start(connection: Connection, decision: Decision) -> int | None:
    events = tables.events.c
    query = select(func.min(events.occurred_at)).where(
        events.type == ACTIVATION, events.decision_id == decision.decision_id, events.batch_no.is_not(None)
    )
    activated: int | None = connection.scalar(query)
    return activated if activated is not None or decision.deferred else decision.decided_at


def _events(connection: Connection, decision: Decision, definition: LoopDefinition) -> list[TracedEvent]:
    decision_id, too_late = decision.decision_id, _after_the_seal(connection, decision)
    rows = connection.execute(judged([definition], [decision_id])).all()
    reasons = [SEALED if (row.source, row.event_id) in too_late else row.reason for row in rows]
    return [
        TracedEvent(
            source=row.source,
            event_id=row.event_id,
            occurred_at=format_time(row.occurred_at),
            method=row.method,
            content_id=row.content_id,
            metric=row.metric,
            used=reason is None,
            reason=reason,
            value=None if row.value is None else row.value / MICROS,
        )
        for row, reason in sorted(
            zip(rows, reasons, strict=True),
            key=lambda each: (each[0].occurred_at, each[0].source, each[0].event_id, each[0].metric),
        )
        if row.decision_id == decision_id
    ]


def _after_the_seal(connection: Connection, decision: Decision) -> set[tuple[str, str]]:
    """Events that came in when the outcome of the decision was final."""
    batch_no = load_seals(connection).sealed_by(decision.decided_at)
    if batch_no is None:
        return set()
    events, attributed = tables.events, tables.attributions.c
    belongs = attributed.event_no == events.c.event_no
    query = select(events.c.source, events.c.event_id).join(tables.attributions, belongs)
    late = query.where(attributed.decision_id == decision.decision_id, events.c.batch_no > batch_no)
    return {(source, event_id) for source, event_id in connection.execute(late)}


def _outcomes(connection: Connection, decision: Decision, definition: LoopDefinition) -> list[TracedOutcome]:
    outcomes = tables.outcomes.c
    query = (
        select(tables.outcomes)
        .where(
            outcomes.decision_id == decision.decision_id,
            outcomes.metric_version.in_([metric.version for metric in definition.metrics]),
        )
        .order_by(outcomes.content_id, outcomes.metric)
    )
    return [
        TracedOutcome(content_id=row.content_id, metric=row.metric, value=row.value / MICROS, count=row.count)
        for row in connection.execute(query)
    ]


def _rewards(
    decision: Decision, definition: LoopDefinition, outcomes: list[TracedOutcome], mature: bool
) -> list[TracedReward]:
    """What it earned; before maturity nobody knows who is silent, so the default reward is not given yet."""
    if not mature:
        definition = definition.model_copy(update={"default_reward": 0.0})
    found = {(outcome.content_id, outcome.metric): outcome.value for outcome in outcomes}
    ids = [placement.content_id for placement in decision.chosen]
    values = {
        metric.name: np.array([found.get((content_id, metric.name), 0.0) for content_id in ids])
        for metric in definition.metrics
    }
    rewards = reward_of(definition, values).tolist()
    return [
        TracedReward(content_id=content_id, reward=reward, mature=mature)
        for content_id, reward in zip(ids, rewards, strict=True)
    ]


def _replay(connection: Connection, decision: Decision, snapshots: Snapshots) -> ReplayAnswer:
    loops, campaigns, version = tables.loops.c, tables.campaigns.c, _chosen_under(connection, decision)
    stored = connection.scalar(
        select(loops.definition).where(loops.loop_id == decision.loop_id, loops.version == version)
    )
    baseline = connection.scalar(select(campaigns.baseline).where(campaigns.campaign_id == decision.campaign_id))
    choice = (
        Replay("not possible", f"Version {version} of the loop is not stored.")
        if stored is None
        else replay_choice(decision, parse_definition(stored).policy, baseline or {})
    )
    scores = replay_scores(decision, *_model_and_contents(connection, decision, snapshots))
    return ReplayAnswer(choice=choice.result, scores=scores.result, detail=f"{choice.detail} {scores.detail}")


def _reasons(decision: Decision, snapshots: Snapshots) -> list[ExplainedContent]:
    found = explained(decision, snapshots, snapshots.current, snapshots.engine)
    scores = {candidate.content_id: candidate.score for candidate in decision.candidates}
    return [
        ExplainedContent(content_id=name, score=scores[name] or 0.0, reasons=told(lines) or [])
        for name, lines in found.items()
    ]


def _chosen_under(connection: Connection, decision: Decision) -> int:
    """Version of the definition whose policy chose: the model's own, without a model the loop's."""
    models = tables.model_versions.c
    judged: int | None = connection.scalar(
        select(models.loop_version).where(models.loop_id == decision.loop_id, models.version == decision.model_version)
    )
    return decision.loop_version if judged is None else judged


def _model_and_contents(
    connection: Connection, decision: Decision, snapshots: Snapshots
) -> tuple[RewardModel | None, list[Content]]:
    if decision.model_version is None:
        return None, []
    ids = [candidate.content_id for candidate in decision.candidates]
    rows = connection.execute(select(tables.contents).where(tables.contents.c.content_id.in_(ids)))
    found = {row.content_id: content_of(row) for row in rows} | {NO_SEND: no_send(decision.campaign_id)}
    try:
        model = snapshots.model(connection, decision.loop_id, decision.model_version)
    except RewardloopError:
        model = None
    return model, [found[content_id] for content_id in ids]
