"""Running sums per content: what each decision adds to ``content_stats``, and moving them by the exact difference.

A decision that has started adds, for every content it showed and every metric of its loop, one exposure, and its
outcome: so the sums are always those of the outcomes as they stand, never a tally of changes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, Text, delete, select, type_coerce

from infra.clock import DAY
from infra.database import add_up
from infra.tables import content_stats, decisions
from ingestion.loops import LoopDefinition


class StatsKey(NamedTuple):
    """Primary key of ``content_stats``."""

    campaign_id: str
    content_id: str
    metric: str
    model_version: str
    bucket: int


COLUMNS = ("exposures", "successes", "sum", "sum_squares", "sum_squares_high", "expected")
"""What is summed; a square in units of 1e-8 (its value cut to 1e-4) is split at ``SQUARE_SPLIT``, because the sum of
whole squares outgrows a 64-bit integer after a hundred orders of 30,000 yen."""

SQUARE_SPLIT = 10**12

_MOST = 1e15
"""Largest prediction of one decision that is summed, millionths."""

Sums = list[int]
"""In the order of ``COLUMNS``."""

Totals = dict[StatsKey, Sums]

Values = Mapping[tuple[str, str, str], int]
"""Outcome values of one decision in millionths, by (content, metric, metric version)."""


class _Placed(msgspec.Struct):
    position: int
    content_id: str


class _Predicted(msgspec.Struct):
    content_id: str
    expected: float | None = None


class _Constraints(msgspec.Struct):
    slots: int | None = None


_placed = msgspec.json.Decoder(list[_Placed])
_predicted = msgspec.json.Decoder(list[_Predicted])
_constraints = msgspec.json.Decoder(_Constraints)

SHOWN = (
    decisions.c.decision_id,
    decisions.c.loop_id,
    decisions.c.campaign_id,
    type_coerce(decisions.c.chosen, Text).label("chosen"),
    type_coerce(decisions.c.candidates, Text).label("candidates"),
    type_coerce(decisions.c.constraints, Text).label("constraints"),
    decisions.c.model_version,
    decisions.c.decided_at,
)
"""What :func:`contribution` reads of a decision."""


def shown(*more: Any) -> Select[Any]:
    """Decisions with the columns of ``SHOWN`` and ``more``."""
    return select(*SHOWN, *more)


def measured(definition: LoopDefinition) -> list[tuple[str, str]]:
    """Names and versions of a loop's metrics."""
    return [(metric.name, metric.version) for metric in definition.metrics]


def contribution(decision: Any, metrics: Sequence[tuple[str, str]], values: Values) -> Iterator[tuple[StatsKey, Sums]]:
    """What one started decision adds. Contents beyond the slots were not shown and add nothing."""
    expected = {candidate.content_id: candidate.expected for candidate in _predicted.decode(decision.candidates)}
    for content_id in _shown(decision):
        micros = round(max(-_MOST, min(_MOST, (expected.get(content_id) or 0.0) * 1e6)))
        for name, version in metrics:
            value = values.get((content_id, name, version), 0)
            yield _key(decision, content_id, name), [1, *_powers(value), micros]


def difference(
    decision: Any, metrics: Sequence[tuple[str, str]], before: Values, after: Values
) -> Iterator[tuple[StatsKey, Sums]]:
    """:func:`contribution` with the values ``after``, less that with the values ``before``, where they differ."""
    for content_id in _shown(decision):
        for name, version in metrics:
            old, new = before.get((content_id, name, version), 0), after.get((content_id, name, version), 0)
            if old != new:
                moved = [now - once for now, once in zip(_powers(new), _powers(old), strict=True)]
                yield _key(decision, content_id, name), [0, *moved, 0]


def _shown(decision: Any) -> Iterator[str]:
    placed = _placed.decode(decision.chosen)
    slots = _constraints.decode(decision.constraints).slots or len(placed)
    return (placement.content_id for placement in placed if placement.position <= slots)


def _key(decision: Any, content_id: str, metric: str) -> StatsKey:
    bucket = decision.decided_at // DAY
    return StatsKey(decision.campaign_id, content_id, metric, decision.model_version or "", bucket)


def _powers(value: int) -> Sums:
    """Success, value, and its square in two parts."""
    high, low = divmod((value // 100) ** 2, SQUARE_SPLIT)
    return [int(value > 0), value, low, high]


def move(totals: Totals, parts: Iterable[tuple[StatsKey, Sums]], sign: int) -> None:
    """Add ``parts`` to ``totals`` (1) or take them away (-1)."""
    for key, sums in parts:
        total = totals.setdefault(key, [0] * len(COLUMNS))
        for place, amount in enumerate(sums):
            total[place] += sign * amount


def add_to_stats(connection: Connection, totals: Totals) -> None:
    """Move the stored sums by ``totals``."""
    moved = sorted((key, sums) for key, sums in totals.items() if any(sums))
    rows = [{**key._asdict(), **dict(zip(COLUMNS, sums, strict=True))} for key, sums in moved]
    add_up(connection, content_stats, rows)


def replace_stats(connection: Connection, loop_id: str, totals: Totals) -> None:
    """Store ``totals`` as all there is about the campaigns of a loop."""
    campaigns = select(decisions.c.campaign_id).where(decisions.c.loop_id == loop_id)
    connection.execute(delete(content_stats).where(content_stats.c.campaign_id.in_(campaigns)))
    add_to_stats(connection, totals)
