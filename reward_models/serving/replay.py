"""Replay: a stored decision computed again, in two stages (invariant 12).

1. scores: the stored model on the stored context gives the stored ``expected`` within 1e-9
2. choice: the stored means and deviations, floor, constraints (slots, limits on shares, what had to be included, the caller's
   control) and seed give the stored
   probabilities and the stored choice, exactly
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ingestion.events import Content, Decision, Placement
from ingestion.loops import PolicySettings
from reward_models import limits, policies
from reward_models.boosted import RewardModel
from reward_models.serving.ranker import baseline_of, draw, settled

TOLERANCE = 1e-9

Result = Literal["exact", "differs", "not possible"]


class Replay(NamedTuple):
    """One stage's result, with a sentence."""

    result: Result
    detail: str


def replay_choice(decision: Decision, settings: PolicySettings, baseline: Mapping[str, Any]) -> Replay:
    """Stage 2, from the stored numbers alone. ``settings``: of the definition whose policy chose; the floor is stored."""
    if not decision.seed or any(candidate.behaviour_p is None for candidate in decision.candidates):
        return Replay("not possible", "The choice was made elsewhere: how it was drawn is not known.")
    stored_policy = [candidate.policy_p for candidate in decision.candidates]
    policy = _policy(decision, settings.model_copy(update={"floor": decision.floor}))
    if policy is not None and policy != stored_policy:
        return Replay("differs", "The stored scores give other policy probabilities.")
    own = decision.group == "treatment" and decision.learning_mode == "online"
    ids = [candidate.content_id for candidate in decision.candidates]
    behaviour = policy if own else policies.baseline_pmf(baseline_of(baseline, decision.constraints), ids).tolist()
    if behaviour != [candidate.behaviour_p for candidate in decision.candidates]:
        return Replay("differs", "The stored policy or baseline gives other probabilities to draw with.")
    certain = settled(decision.constraints, ids, own)
    slots, seed = decision.constraints["slots"], bytes.fromhex(decision.seed)
    drawn = draw(np.array(behaviour), seed, decision.decision_id, slots, *certain)
    again = tuple(
        Placement(position=place, content_id=ids[index], propensity=propensity)
        for place, (index, propensity) in enumerate(drawn, 1)
    )
    if again != decision.chosen:
        return Replay("differs", "The stored probabilities and seed give another choice.")
    return Replay("exact", "Stored scores, probabilities and seed give the stored choice.")


def replay_scores(decision: Decision, model: RewardModel | None, contents: Sequence[Content]) -> Replay:
    """Stage 1. ``contents``: the candidates, in their stored order; ``model``: the stored version, null if not kept."""
    if decision.model_version is None:
        return Replay("exact" if _silent(decision) else "differs", "No model was used.")
    if model is None:
        return Replay("not possible", f"Model {decision.model_version} could not be loaded.")
    again = model.score(decision.context, model.encode(contents))
    stored = np.array([candidate.expected for candidate in decision.candidates], dtype=np.float64)
    distance = float(np.max(np.abs(again - stored)))
    detail = f"Model {decision.model_version} gives the stored scores within {distance:.1e}."
    return Replay("exact", detail) if distance <= TOLERANCE else Replay("differs", detail)


def _policy(decision: Decision, settings: PolicySettings) -> list[float] | None:
    means = [candidate.mean for candidate in decision.candidates]
    deviations = [candidate.sd for candidate in decision.candidates]
    if any(number is None for number in (*means, *deviations)):
        return None
    ids = [candidate.content_id for candidate in decision.candidates]
    allowed = limits.bounds(limits.read(decision.constraints), ids)
    again = policies.pmf(settings, np.array(means, dtype=float), np.array(deviations, dtype=float), allowed)
    return [float(probability) for probability in again]


def _silent(decision: Decision) -> bool:
    return all(candidate.expected in (None, 0.0) for candidate in decision.candidates)
