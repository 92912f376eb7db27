"""Running sums per content: what each decision adds to ``content_stats``, and moving them by the exact difference.

A decision that has started adds, for every content it showed and every metric of its loop, one exposure, and its
outcome: so the sums are always those of the outcomes as they stand, never a tally of changes.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, Text, delete, select, type_coerce

from infra.clock import DAY
from infra.database import add_up
from infra.tables import campaign_moves, content_stats, decisions
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
"""What :class:`Movement` reads of a decision."""


def shown(*more: Any) -> Select[Any]:
    """Decisions with the columns of ``SHOWN`` and ``more``."""
    return select(*SHOWN, *more)


class Movement:
    """By how much the sums move, gathered decision by decision under the definitions in force.

    Decisions of loops without a definition move nothing, nor do contents beyond the slots: they were not shown.
    """

    def __init__(self, rules: Iterable[LoopDefinition]) -> None:
        self._metrics = {rule.loop: {metric.name: metric.version for metric in rule.metrics} for rule in rules}
        self._shown: dict[tuple[str, _Place], list[int]] = {}
        """Exposures and predictions by loop and place."""
        self._values: dict[tuple[_Place, str], list[int]] = {}
        """Successes, sums and squares by place and metric."""

    def move(self, decision: Any, before: Values | None, after: Values | None) -> None:
        """Move what the decision adds from ``before`` to ``after``: its outcome, and the exposures of what it showed.

        None: it was not, or is not, counted.
        """
        metrics = self._metrics.get(decision.loop_id)
        if metrics is None or before == after:
            return
        contents = _shown(decision)
        bucket = decision.decided_at // DAY
        places = {id_: (decision.campaign_id, id_, decision.model_version or "", bucket) for id_ in contents}
        if before is None or after is None:
            self._show(decision, [places[id_] for id_ in contents], -1 if after is None else 1)
        self._change(metrics, places, before or {}, after or {})

    def _show(self, decision: Any, places: Iterable["_Place"], sign: Literal[1, -1]) -> None:
        expected = {candidate.content_id: candidate.expected for candidate in _predicted.decode(decision.candidates)}
        for place in places:
            micros = round(max(-_MOST, min(_MOST, (expected.get(place[1]) or 0.0) * 1e6)))
            total = self._shown.setdefault((decision.loop_id, place), [0, 0])
            total[0] += sign
            total[1] += sign * micros

    def _change(
        self, metrics: Mapping[str, str], places: Mapping[str, "_Place"], before: Values, after: Values
    ) -> None:
        for outcome in before.keys() | after.keys():
            content_id, metric, version = outcome
            old, new = before.get(outcome, 0), after.get(outcome, 0)
            if old == new or content_id not in places or metrics.get(metric) != version:
                continue
            total = self._values.setdefault((places[content_id], metric), [0] * 4)
            for power, (less, more) in enumerate(zip(_powers(old), _powers(new), strict=True)):
                total[power] += more - less

    def rows(self) -> list[dict[str, Any]]:
        """What to add to ``content_stats``."""
        sums = {key: [0, *values, 0] for key, values in self._values.items()}
        for (loop_id, place), (exposures, expected) in self._shown.items():
            for name in self._metrics[loop_id]:
                total = sums.setdefault((place, name), [0] * len(COLUMNS))
                total[0] += exposures
                total[-1] += expected
        moved = sorted((_key(*key), total) for key, total in sums.items() if any(total))
        return [{**key._asdict(), **dict(zip(COLUMNS, total, strict=True))} for key, total in moved]


_Place = tuple[str, str, str, int]
"""Campaign, content, model version, bucket."""


def _key(place: _Place, metric: str) -> StatsKey:
    campaign_id, content_id, model_version, bucket = place
    return StatsKey(campaign_id, content_id, metric, model_version, bucket)


def _shown(decision: Any) -> list[str]:
    placed = _placed.decode(decision.chosen)
    slots = _slots(decision.constraints) or len(placed)
    return [placement.content_id for placement in placed if placement.position <= slots]


@lru_cache(maxsize=1_000)
def _slots(constraints: str) -> int | None:
    """Most decisions are under the same constraints."""
    return _constraints.decode(constraints).slots


def _powers(value: int) -> tuple[int, int, int, int]:
    """Success, value, and its square in two parts."""
    high, low = divmod((value // 100) ** 2, SQUARE_SPLIT)
    return int(value > 0), value, low, high


def add_to_stats(connection: Connection, movement: Movement) -> None:
    """Move the stored sums."""
    rows = movement.rows()
    add_up(connection, content_stats, rows)
    _note(connection, {row["campaign_id"] for row in rows})


def replace_stats(connection: Connection, loop_id: str, movement: Movement) -> None:
    """Store the movement as all there is about the campaigns of a loop."""
    of_loop = select(decisions.c.campaign_id).where(decisions.c.loop_id == loop_id).distinct()
    connection.execute(delete(content_stats).where(content_stats.c.campaign_id.in_(of_loop)))
    _note(connection, set(connection.scalars(of_loop)))
    add_to_stats(connection, movement)


def _note(connection: Connection, moved: Iterable[str]) -> None:
    add_up(connection, campaign_moves, [{"campaign_id": campaign_id, "moves": 1} for campaign_id in sorted(moved)])
