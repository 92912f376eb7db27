"""Guardrails at work: what they say when a version is judged, and the fall to the baseline where the loop asks for it.

watched(connection, definition, now)            the policy that runs, against the holdout
of_challenger(definition, judged, evidence)     the new model, against what serves, off-policy
fall_back(connection, definition, guards, now)  the kill switch, thrown by a guardrail with the action `baseline`
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection

from ingestion.loops import LoopDefinition
from ingestion.switches import killed_loops, set_switch
from reward_models.assignment import load_register
from reward_models.dataset import TrainingSet
from reward_models.guardrails import Guarded, compare
from reward_models.lift_report import guard_all
from reward_models.offpolicy import Floor, Logged

ACTOR = "guardrail"


def watched(connection: Connection, definition: LoopDefinition, now: int) -> tuple[Guarded, ...]:
    """How every guardrail stands on the customers so far; nothing is read where the loop has none."""
    if not definition.guardrails:
        return ()
    return guard_all(load_register(connection, definition, definition.lift.since or 0), definition, now)


def of_challenger(
    definition: LoopDefinition, judged: TrainingSet, evidence: Logged | None, floor: Floor
) -> tuple[Guarded, ...]:
    """How the new model would stand. ``evidence``: of the rows of ``judged``, with what serves as its reference."""
    if evidence is None:
        return ()
    found = []
    for guardrail in definition.guardrails:
        value = judged.metrics[guardrail.metric]
        usual = np.full_like(evidence.q, value.mean() if len(value) else 0.0)
        found.append(compare(replace(evidence, reward=value, q=usual), guardrail, floor))
    return tuple(found)


def fall_back(connection: Connection, definition: LoopDefinition, guards: Sequence[Guarded], now: int) -> str | None:
    """Put the loop on its baseline if a breached guardrail asks for that. Returns the reason; None: nothing was done."""
    asks = {guardrail.metric for guardrail in definition.guardrails if guardrail.action == "baseline"}
    broken = [guard.sentence for guard in guards if guard.state == "breached" and guard.metric in asks]
    if not broken or definition.loop in killed_loops(connection):
        return None
    reason = " ".join(broken)
    set_switch(connection, definition.loop, True, reason, ACTOR, now)
    return reason
