"""Holdout against learned policy in one period: what was measured, and what the simulator knows.

Measured: intention to treat. Every unit in the group it was assigned to, from its first decision in the period, with
all its clicks and purchases, attributed or not (``reward_models/assignment.py``, ``reward_models/lift.py``).

True lift, for the same units and the same decisions, from the probabilities stored with each decision:

    truth = 1/|U| · Σ_u Σ_{d of u} ( Σ_c policy_p(d, c)·μ(u, c) − Σ_c baseline_p(c)·μ(u, c) )

μ(u, c) is the exact click rate, or the expected net revenue, of content c for customer u (``pipelines/simulator.py``);
policy_p is what the learned policy would have drawn with, which is stored for the holdout's decisions too. Both are
per decision: the measured one by ``lift``'s basis "send" (each unit is sent equally often here, which makes it
fair), the true one divided by the mean number of decisions per unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra.tables import campaigns, contents, decisions
from ingestion.loops import LoopDefinition
from pipelines.simulator import Customer, World, true_values
from reward_models.assignment import Assigned, load_assigned
from reward_models.lift import Lift, UnitOutcomes, lift
from reward_models.policies import baseline_pmf

Floats = npt.NDArray[np.float64]

METRICS = ("click", "revenue")
"""Metrics of a loop that can be compared with the truth."""


@dataclass(frozen=True)
class Comparison:
    """One period. Means and lifts are per decision: a rate, and currency units."""

    holdout_decisions: int
    treatment_decisions: int
    measured: Mapping[str, Lift]
    """By metric: ``click`` and ``revenue``."""
    true: Mapping[str, float]


def compare(
    connection: Connection,
    definition: LoopDefinition,
    world: World,
    customers: Mapping[str, Customer],
    since: int,
    until: int,
) -> Comparison:
    """The comparison of decisions in [since, until). ``customers``: by unit. Call it once all outcomes are mature."""
    assigned = load_assigned(connection, definition, since, until)
    gained = true_gain(connection, definition.loop, world, customers, since, until)
    return Comparison(
        holdout_decisions=int(assigned.decisions[~assigned.treatment].sum()),
        treatment_decisions=int(assigned.decisions[assigned.treatment].sum()),
        measured={metric: lift(_outcomes(assigned, metric), basis="send") for metric in METRICS},
        true={metric: gained[metric] / float(assigned.decisions.sum()) for metric in METRICS},
    )


def true_gain(
    connection: Connection,
    loop_id: str,
    world: World,
    customers: Mapping[str, Customer],
    since: int,
    until: int,
) -> dict[str, float]:
    """The double sum of the formula above, by metric."""
    copy = _load_copy(connection, loop_id)
    baselines = _load_baselines(connection, loop_id)
    value = true_values(world, list(customers.values()), list(copy.values()))
    row_of = {unit: row for row, unit in enumerate(customers)}
    column_of = {content_id: column for column, content_id in enumerate(copy)}
    query = select(decisions.c.unit, decisions.c.campaign_id, decisions.c.candidates).where(
        decisions.c.loop_id == loop_id, decisions.c.decided_at >= since, decisions.c.decided_at < until
    )
    gained = dict.fromkeys(METRICS, 0.0)
    for unit, campaign_id, candidates in connection.execute(query):
        ids = [candidate["content_id"] for candidate in candidates]
        better = _policy(candidates, baselines[campaign_id]) - baseline_pmf(baselines[campaign_id], ids)
        columns = [column_of[content_id] for content_id in ids]
        gained["click"] += float(value.click[row_of[unit], columns] @ better)
        gained["revenue"] += float(value.revenue[row_of[unit], columns] @ better)
    return gained


def _outcomes(assigned: Assigned, metric: str) -> UnitOutcomes:
    return UnitOutcomes(assigned.units, assigned.treatment, assigned.values[metric], assigned.decisions)


def _policy(candidates: list[dict[str, Any]], baseline: Mapping[str, Any]) -> Floats:
    """The learned policy's distribution; a decision that fell back had none, and its baseline stands in."""
    if any(candidate["policy_p"] is None for candidate in candidates):
        return baseline_pmf(baseline, [candidate["content_id"] for candidate in candidates])
    return np.array([candidate["policy_p"] for candidate in candidates])


def _load_copy(connection: Connection, loop_id: str) -> dict[str, dict[str, Any]]:
    """Features of the loop's contents, by content id."""
    query = select(contents.c.content_id, contents.c.features).join(campaigns).where(campaigns.c.loop_id == loop_id)
    return {row.content_id: row.features for row in connection.execute(query)}


def _load_baselines(connection: Connection, loop_id: str) -> dict[str, dict[str, Any]]:
    query = select(campaigns.c.campaign_id, campaigns.c.baseline).where(campaigns.c.loop_id == loop_id)
    return {row.campaign_id: row.baseline for row in connection.execute(query)}
