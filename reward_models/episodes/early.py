"""Early and late outcomes of customers as they were dealt: what a surrogate index is learned from and applied to.

    samples(register, definition, metric, spans, now) -> (known, new)

Early: every metric of the loop within ``early`` of a customer's first decision. Late: one metric within ``late``. Known are
the customers for whom ``late`` has passed with lateness and refunds, new those for whom only ``early`` has; only those whose
group was dealt by chance, in order of their first decisions. What was known before are the lift's covariates.
"""

from typing import NamedTuple

import numpy as np

from infra.errors import BadInput
from ingestion.loops import LoopDefinition
from reward_models.assignment import Register
from reward_models.episodes.surrogates import Sample


class Spans(NamedTuple):
    """From a customer's first decision on, microseconds."""

    early: int
    late: int


def samples(
    register: Register, definition: LoopDefinition, metric: str, spans: Spans, now: int
) -> tuple[Sample, Sample]:
    """Customers whose late outcome is known, and those since. Raises :class:`BadInput` for a late span that is no longer
    than the early one."""
    if spans.late <= spans.early:
        raise BadInput("The late span must be longer than the early one; there is nothing to foretell")
    early = register.matured(definition, spans.early, now).by_chance()
    late = register.matured(definition, spans.late, now)
    outcome = dict(zip(late.units, late.values[definition.metric(metric).name].tolist(), strict=True))
    known = np.array([unit in outcome for unit in early.units], dtype=np.bool_)
    answers = np.column_stack([early.values[each.name] for each in definition.metrics])
    late_values = np.array([outcome.get(unit, 0.0) for unit in early.units])
    found, since = (
        Sample(answers[rows], early.covariates[rows], early.treatment[rows], late_values[rows] if told else None)
        for rows, told in ((known, True), (~known, False))
    )
    return found, since
