"""Guardrails: metrics that may not get worse, and the veto when they do (unsubscribe, complaint, refund).

Two tests per guardrail, both one-sided in the direction of harm:

    running      treatment − (1 + margin)·holdout > 0    over matured units, a one-sided confidence sequence: one may
                                                         look after every unit (``sequences.py``)
    challenger   target − (1 + margin)·reference > 0     off-policy, doubly robust, once per version (``offpolicy.py``)

The first says that the policy which runs does harm, the second that the new model would do more. Either vetoes: a version
that passed is not promoted. Units count for the metric's own window, so that harm is known as early as it can be. A
guardrail looks once both groups have their least units and a few responses have come from either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from infra.errors import EstimateRefused
from ingestion.fields import DOCUMENTED
from ingestion.loops import Guardrail, LiftSettings
from reward_models.assignment import Matured
from reward_models.gate import Verdict
from reward_models.offpolicy import Floor, Logged, difference
from reward_models.sequences import Bools, Dealt, Floats, ready, running, sequence

State = Literal["fine", "breached", "waiting"]
"""fine: no harm shown so far, which is no proof of none; waiting: too few units or responses to say anything."""


@dataclass(frozen=True)
class Guarded:
    """How one guardrail stands. Means and ``harm`` are per unit (running) or per decision (challenger)."""

    __pydantic_config__ = DOCUMENTED

    metric: str
    """The guarded metric."""
    state: State
    """breached, fine, or waiting for more customers."""
    sentence: str
    """The finding in words."""
    harm: float = 0.0
    """Treatment minus (1 + margin) times holdout, or the new model minus so much of what serves."""
    low: float | None = None
    """Lower end of the one-sided interval of ``harm``, above 0 a veto; None: not known yet."""
    holdout_mean: float = 0.0
    """Mean of the holdout, or of what serves."""
    treatment_mean: float = 0.0
    """Mean of the treatment, or of the new model."""
    units: int = 0
    """Customers behind it."""


def watch(units: Matured, guardrail: Guardrail, settings: LiftSettings) -> Guarded:
    """The running test, on units that are mature for this metric and were dealt by chance."""
    return judge_units(units.dealt(units.values[guardrail.metric]), guardrail, settings)


def judge_units(dealt: Dealt, guardrail: Guardrail, settings: LiftSettings) -> Guarded:
    """The running test on totals of the guarded metric."""
    name, units = guardrail.metric, len(dealt.total)
    if not units or not looks(dealt, settings)[-1]:
        return Guarded(name, "waiting", _too_early(name, dealt, settings), units=units)
    estimate, low = harm(dealt, guardrail, settings)
    means = float(dealt.total[~dealt.treatment].mean()), float(dealt.total[dealt.treatment].mean())
    state: State = "breached" if low[-1] > 0.0 else "fine"
    return Guarded(
        name, state, _sentence(name, state, *means, guardrail), float(estimate[-1]), float(low[-1]), *means, units
    )


def harm(dealt: Dealt, guardrail: Guardrail, settings: LiftSettings) -> tuple[Floats, Floats]:
    """After each unit treatment minus (1 + margin) times holdout, and the lower end of its one-sided interval."""
    estimate = running(dealt, 1.0 + guardrail.margin)
    return estimate.mean, sequence(estimate, guardrail.alpha, settings.tuned_units, sides=1).low


def looks(dealt: Dealt, settings: LiftSettings) -> Bools:
    """Whether a look after each unit counts. Harm may be all in one group, so responses of either do."""
    return ready(dealt, settings.min_units, 0) & (np.cumsum(dealt.total != 0.0, axis=-1) >= settings.min_responses)


def compare(logged: Logged, guardrail: Guardrail, floor: Floor) -> Guarded:
    """The challenger's test. ``logged.reward`` is the guarded metric, ``q`` may be anything fitted elsewhere."""
    name = guardrail.metric
    try:
        found = difference(logged, of_reference=1.0 + guardrail.margin, floor=floor, level=1.0 - 2.0 * guardrail.alpha)
    except EstimateRefused as error:
        return Guarded(name, "waiting", f"{name}: the new model cannot be compared. {error}.")
    state: State = "breached" if found.low > 0.0 else "fine"
    more = f"at least {1000.0 * found.low:.3g} per 1,000 decisions more than tolerated"
    sentence = f"{name}: the new model causes {more}." if state == "breached" else f"{name}: no harm shown."
    return Guarded(name, state, sentence, found.value, found.low, units=found.clusters)


def vetoed(verdict: Verdict, guards: Sequence[Guarded]) -> Verdict:
    """The verdict after the guardrails: what passed fails where one is breached."""
    broken = [guard.sentence for guard in guards if guard.state == "breached"]
    if verdict.state != "passed" or not broken:
        return verdict
    return replace(verdict, state="failed", sentence=f"Vetoed by a guardrail. {' '.join(broken)} {verdict.sentence}")


def _too_early(name: str, dealt: Dealt, settings: LiftSettings) -> str:
    treated = int(dealt.treatment.sum())
    return (
        f"{name}: too early to say; of {len(dealt.total) - treated:,} customers in the holdout and {treated:,} others "
        f"{np.count_nonzero(dealt.total):,} had any. It needs {settings.min_units:,} of each and "
        f"{settings.min_responses:,}."
    )


def _sentence(name: str, state: State, holdout: float, treatment: float, guardrail: Guardrail) -> str:
    seen = f"{1000.0 * treatment:,.3g} per 1,000 customers, {1000.0 * holdout:,.3g} in the holdout"
    if state == "fine":
        return f"{name}: no harm shown ({seen})."
    tolerated = f" and the {guardrail.margin:.0%} tolerated on top" if guardrail.margin else ""
    return f"{name}: clearly more than the holdout{tolerated} ({seen})."
