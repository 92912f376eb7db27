"""The lift over time: where its confidence sequence stood at the end of each day.

    courses(register, definition, now) -> one Course per metric, per 1,000 customers

The points are looks at one sequence (``reward_models/sequences.py``), which hold all together; customers of different days
are in each of them. A look counts from the first on that ``lift_so_far`` counts.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from infra.errors import EstimateRefused
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from pipelines.reporting.facts import Course, Interval, Point
from reward_models.assignment import Matured, Register
from reward_models.lift import RunningLift, lift_so_far
from reward_models.sequences import Dealt, ready, running, sequence

Floats = npt.NDArray[np.float64]

THOUSAND = 1_000.0
MOST_POINTS = 120
"""Days of a course that are kept, evenly; the last always."""

WORDS = {
    "better": "clearly better than the baseline",
    "worse": "clearly worse than the baseline",
    "negligible": "too close to the baseline to matter",
    "open": "not decided yet",
}


def courses(register: Register, definition: LoopDefinition, now: int) -> tuple[tuple[Course, ...], str]:
    """The courses of the metrics that have one, those of the reward first; and why there is none, else empty."""
    units = register.matured(definition, definition.lift_window, now).by_chance()
    late = definition.lift_window + definition.lateness + definition.refund_horizon
    found, reasons = [], []
    for metric in sorted(definition.metrics, key=lambda metric: metric.name not in definition.reward):
        try:
            found.append(course(units, metric, definition, late))
        except EstimateRefused as error:
            reasons.append(str(error))
    return tuple(found), reasons[0] if reasons and not found else ""


def course(units: Matured, metric: Metric, definition: LoopDefinition, late: int) -> Course:
    """The course of one metric. ``late``: from a customer's first decision to maturity. Raises :class:`EstimateRefused`."""
    dealt = units.dealt(units.values[metric.name])
    last = lift_so_far(dealt, definition.lift)
    return Course(
        metric=metric.name,
        currency=metric.currency or "",
        points=tuple(_points(dealt, definition, units.first_at + late)),
        earned=_scaled(last, float(last.n_treatment)),
        relative=last.relative,
        standing=last.standing,
        sentence=f"{metric.name}: {WORDS[last.standing]}",
        customers=len(units),
    )


def _points(dealt: Dealt, definition: LoopDefinition, matured_at: npt.NDArray[np.int64]) -> Iterator[Point]:
    settings = definition.lift
    estimate = running(dealt)
    interval = sequence(estimate, settings.alpha, settings.tuned_units)
    looks = ready(dealt, settings.min_units, settings.min_responses)
    ends = np.flatnonzero(np.diff(matured_at // DAY, append=matured_at[-1] // DAY + 1))
    ends = ends[looks[ends]]
    kept = ends if len(ends) <= MOST_POINTS else ends[np.linspace(0, len(ends) - 1, MOST_POINTS).astype(int)]
    for place in kept.tolist():
        parts = (estimate.mean[place], interval.low[place], interval.high[place])
        yield Point(int(matured_at[place]), Interval(*(THOUSAND * float(part) for part in parts)))


def _scaled(lift: RunningLift, units: float) -> Interval:
    return Interval(units * lift.difference, units * lift.low, units * lift.high)
