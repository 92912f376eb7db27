"""Where retention stands: a *horizon*, a time that only moves forward. Decisions made before it are sealed.

A sealed decision's outcomes are final. They stand in ``outcomes``, the join computes them no more, and the events behind them
may go (``ingestion/retention.py``). What still stands attributed to it is not attributed anew.

    load_seals(connection) -> Seals
    Seals.horizon                                        0: nothing is sealed
    Seals.readable(definition) -> spans                  times of decisions whose outcomes are those of this definition
    open_decisions(connection, ids, horizon) -> ids      those that the join may compute

Outcomes are measured under the metrics in force; a later definition cannot be measured on what is gone. Sealed decisions that were
measured otherwise are left out of sums and training sets, rather than taken for silent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    bindparam,
    func,
    or_,
    select,
)

from infra.dialect import as_list, listed, prepared
from infra.tables import decisions, seals
from ingestion.loops import LoopDefinition


class Seal(NamedTuple):
    """Decisions from the horizon before up to this one were measured under ``metrics``: {loop: {metric: version}}."""

    batch_no: int
    horizon: int
    metrics: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Seals:
    """Every sealing, in order."""

    every: tuple[Seal, ...] = ()

    @property
    def horizon(self) -> int:
        """Decisions made before it are sealed. Microseconds; 0: none."""
        return self.every[-1].horizon if self.every else 0

    def readable(self, definition: LoopDefinition) -> list[tuple[int, int]]:
        """From when until when sealed decisions of the loop were measured as the definition says; what meets is one."""
        wanted = {metric.name: metric.version for metric in definition.metrics}
        found: list[tuple[int, int]] = []
        since = 0
        for seal in self.every:
            if wanted.items() <= dict(seal.metrics.get(definition.loop, {})).items():
                meets = bool(found) and found[-1][1] == since
                found[-1:] = [(found[-1][0], seal.horizon)] if meets else [*found[-1:], (since, seal.horizon)]
            since = seal.horizon
        return found

    def knows(self, definition: LoopDefinition, decided_at: int) -> bool:
        """Whether the outcome of a decision made then is known under the definition."""
        spans = self.readable(definition)
        return decided_at >= self.horizon or any(since <= decided_at < until for since, until in spans)

    def sealed_by(self, decided_at: int) -> int | None:
        """The batch that sealed decisions made then; None: they are open."""
        return next((seal.batch_no for seal in self.every if decided_at < seal.horizon), None)

    def known(self, definition: LoopDefinition) -> ColumnElement[bool]:
        """Decisions whose outcomes are known under the definition: those that are open, and those of :meth:`readable`."""
        at = decisions.c.decided_at
        spans = [and_(at >= since, at < until) for since, until in self.readable(definition)]
        return or_(at >= self.horizon, *spans)


def load_seals(connection: Connection) -> Seals:
    """All that was sealed."""
    c = seals.c
    rows = connection.execute(select(c.batch_no, c.horizon, c.metrics).order_by(c.batch_no))
    return Seals(tuple(Seal(*row) for row in rows))


def horizon_of(connection: Connection) -> int:
    """:attr:`Seals.horizon`, alone."""
    return int(connection.execute(select(func.coalesce(func.max(seals.c.horizon), 0))).scalar_one())


def is_sealed(decision: FromClause) -> ColumnElement[bool]:
    """Decisions made before the parameter ``horizon``."""
    return decision.c.decided_at < bindparam("horizon", type_=BigInteger)


def open_outcomes(every: Select[Any]) -> Select[Any]:
    """Of a select of outcomes those of decisions that are not sealed. Leaves the parameter ``horizon`` open."""
    found = every.subquery("every")
    same = decisions.c.decision_id == found.c.decision_id
    return select(*found.c).select_from(found.join(decisions, same)).where(~is_sealed(decisions))


def open_decisions(connection: Connection, ids: Iterable[str], horizon: int) -> set[str]:
    """Those of these decisions that are not sealed."""
    if not horizon:
        return set(ids)
    return set(_open(connection, wanted=as_list((id_,) for id_ in sorted(ids)), horizon=horizon).scalars())


@prepared
def _open() -> Select[Any]:
    wanted = listed("wanted", decision_id=Text())
    found = wanted.join(decisions, decisions.c.decision_id == wanted.c.decision_id)
    return select(decisions.c.decision_id).select_from(found).where(~is_sealed(decisions))
