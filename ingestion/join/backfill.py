"""Re-scoring history: after a change of a loop's metrics, its attributions, outcomes and content statistics are
computed anew from the facts, which are not touched.

One batch, under the join lock, by the same expressions the worker uses; a reader sees the old numbers or the new. Sealed
decisions (``seals.py``) keep attributions and outcomes; those that were measured otherwise leave the statistics.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, delete, select, true

from infra.database import lock_join, writing
from infra.dialect import Run, prepared
from infra.tables import attributions, decisions, events, outcomes
from ingestion.copy.rechecking import recheck
from ingestion.join import statistics
from ingestion.join.attribution import COLUMNS, all_attributions, reach_of, start_of, unattributed
from ingestion.join.outcomes import joining, parameters
from ingestion.join.seals import Seals, horizon_of, load_seals, open_outcomes
from ingestion.ledger import Counts, newest_batch, record_batch
from ingestion.loops import LoopDefinition, define, load_loop, load_loops

_OUTCOME = [column.name for column in outcomes.columns]


def redefine(engine: Engine, definition: LoopDefinition, now: int, actor: str = "cli") -> int:
    """Store a definition, audited, and, in one transaction: if it measures differently, re-score the loop; if its rules of copy
    are others, look at its copy again.

    Returns the version in force; the same definition again changes nothing.
    """
    with writing(engine) as connection:
        lock_join(connection)
        before = load_loops(connection).get(definition.loop)
        version = define(connection, definition, actor, now)
        if before is None or _measures(before[0]) != _measures(definition):
            rescore(connection, definition, now)
        if before is not None and before[0].copy_rules != definition.copy_rules:
            recheck(connection, definition, version, actor, now)
    return version


def backfill(engine: Engine, loop_id: str, now: int) -> int:
    """Compute a loop's attributions, outcomes and content statistics anew, in one batch; returns its number.

    Raises :class:`NotFound` for an unknown loop.
    """
    with writing(engine) as connection:
        lock_join(connection)
        return rescore(connection, load_loop(connection, loop_id)[0], now)


def _measures(definition: LoopDefinition) -> tuple[object, ...]:
    """The parts of a definition that the join reads."""
    return definition.metrics, definition.refund_horizon, definition.sources


def rescore(connection: Connection, definition: LoopDefinition, now: int) -> int:
    """:func:`backfill` inside a transaction that holds the join lock."""
    batch_no = newest_batch(connection) + 1
    before = _pending(connection)
    horizon = horizon_of(connection)
    _attribute(connection, definition, horizon)
    after = _pending(connection)
    _replace_outcomes(connection, definition, horizon)
    statistics.replace_stats(connection, definition.loop, _sums(connection, definition))
    record_batch(
        connection, batch_no, now, Counts(left_pending=len(before - after), became_pending=len(after - before))
    )
    return batch_no


def _pending(connection: Connection) -> set[int]:
    belongs = attributions.c.event_no == events.c.event_no
    query = select(events.c.event_no).where(~select(attributions.c.loop_id).where(belongs).exists())
    return set(connection.scalars(query))


def _attribute(connection: Connection, definition: LoopDefinition, horizon: int) -> None:
    of_loop = attributions.c.loop_id == definition.loop
    to_open = attributions.c.decision_id.in_(_open_decisions(definition, horizon)) if horizon else true()
    connection.execute(delete(attributions).where(of_loop, to_open))
    _attribute_all(horizon > 0)(connection, reach=reach_of([definition]))


@cache
def _attribute_all(some_are_kept: bool) -> Run:
    every = select(all_attributions())
    return prepared(lambda: attributions.insert().from_select(COLUMNS, unattributed(every) if some_are_kept else every))


def _replace_outcomes(connection: Connection, definition: LoopDefinition, horizon: int) -> None:
    """The outcomes of decisions that are not sealed."""
    these = _open_decisions(definition, horizon)
    connection.execute(delete(outcomes).where(outcomes.c.decision_id.in_(these)))
    join_all = _join_all(definition.guarded, definition.converts, horizon > 0)
    join_all(connection, **parameters([definition]), **({"horizon": horizon} if horizon else {}))


def _open_decisions(definition: LoopDefinition, horizon: int) -> Select[tuple[str]]:
    c = decisions.c
    return select(c.decision_id).where(c.loop_id == definition.loop, c.decided_at >= horizon)


@cache
def _join_all(guarded: bool, converting: bool, some_are_sealed: bool) -> Run:
    every = joining(False, False, guarded, converting)
    found = open_outcomes(every) if some_are_sealed else every
    return prepared(lambda: outcomes.insert().from_select(_OUTCOME, found))


def _sums(connection: Connection, definition: LoopDefinition) -> statistics.Movement:
    movement = statistics.Movement([definition])
    for decision, values in _started(connection, definition, load_seals(connection)):
        movement.move(decision, None, values)
    return movement


def _started(
    connection: Connection, definition: LoopDefinition, seals: Seals
) -> Iterator[tuple[Row[Any], statistics.Values]]:
    """Each started decision of the loop whose outcome is known, with its values, read side by side in the order of their
    ids."""
    of_loop = and_(decisions.c.loop_id == definition.loop, decisions.c.batch_no.is_not(None), seals.known(definition))
    query = (
        statistics.shown(outcomes.c.content_id, outcomes.c.metric, outcomes.c.metric_version, outcomes.c.value)
        .select_from(decisions.outerjoin(outcomes, outcomes.c.decision_id == decisions.c.decision_id))
        .where(of_loop, start_of(decisions).is_not(None))
        .order_by(decisions.c.decision_id)
    )
    latest: Row[Any] | None = None
    values: dict[tuple[str, str, str], int] = {}
    for row in connection.execute(query):
        if latest is not None and row.decision_id != latest.decision_id:
            yield latest, values
            values = {}
        latest = row
        if row.metric is not None:
            values[row.content_id, row.metric, row.metric_version] = row.value
    if latest is not None:
        yield latest, values
