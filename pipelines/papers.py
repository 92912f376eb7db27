"""The papers of a version: its figures in business words, its pictures, and the report they make.

Names of figures: ``<word>_per_1000`` is what was seen, ``<word>_per_1000_<policy>`` what a policy would earn, with
``_low`` and ``_high`` for its 95 % interval. ``<word>`` is the name of the reward's metric where there is only one,
else ``reward``. Values are doubly robust (DR) where an interval is given; those of the other estimators end in their name
(``<word>_per_1000_<policy>_snips``), ``_automatic`` being the one to believe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ingestion.events import Content
from ingestion.loops import LoopDefinition
from pipelines.mirror import Report
from pipelines.names import columns
from reward_models.automatic import CHOSEN
from reward_models.boosted import RewardModel
from reward_models.dataset import TrainingSet
from reward_models.features import text_of
from reward_models.lift import smallest_detectable
from reward_models.offpolicy import Estimate, Logged
from reward_models.report import Bar, content_chart, reliability_diagram, reward_words, value_chart
from reward_models.trial import Policy, distinct_contexts

THOUSAND = 1_000.0
TOP = 8
"""Contents in the report."""
_CONTEXTS = 25
"""Contexts that the best contents are averaged over."""

TITLES: Mapping[Policy, str] = {
    "challenger": "this version",
    "running": "what ran",
    "baseline": "baseline",
    "best_single": "best single content",
}

Values = Mapping[Policy, Sequence[Estimate]]
"""Estimates per policy, one per estimator; policies whose value was refused are absent."""


@dataclass(frozen=True)
class Evaluation:
    """What off-policy evaluation found. ``gain``: this version minus what serves; None: refused, for ``reason``.
    ``evidence``: what the gate judges."""

    evidence: Logged | None
    values: Values
    gain: Estimate | None
    reason: str
    unfit: str | None = None
    """Why the log itself cannot be believed; None: it can."""


def figures(
    definition: LoopDefinition,
    training: TrainingSet,
    judged: TrainingSet,
    model: RewardModel,
    later_error: float | None,
    evaluation: Evaluation,
) -> dict[str, float]:
    """Every number that is logged, by its business name."""
    word = reward_words(definition).split(" ")[0]
    found = {
        "decisions_trained": float(len(training)),
        "past_results_trained": float(len(training.history)),
        "decisions_not_mature": float(training.immature),
        "decisions_judged": float(len(judged)),
        "calibration_error_per_1000": THOUSAND * model.calibration.error_after,
        "calibration_error_uncalibrated_per_1000": THOUSAND * model.calibration.error_before,
    }
    if model.aging.half_life is not None:
        found["half_life_days"] = model.aging.half_life
    if later_error is not None:
        found["calibration_error_later_per_1000"] = THOUSAND * later_error
    rows = judged if len(judged) else training
    for name, values in rows.metrics.items():
        if len(values):
            found[f"{name}_per_1000"] = THOUSAND * float(values.mean())
    for policy, estimates in evaluation.values.items():
        for estimate in estimates:
            found |= _figures(f"{word}_per_1000_{policy}", estimate)
    if evaluation.gain is not None:
        found |= _interval("expected_gain_per_1000", evaluation.gain)
        found |= _power(evaluation.gain)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def pictures(
    definition: LoopDefinition, training: TrainingSet, judged: TrainingSet, model: RewardModel, evaluation: Evaluation
) -> dict[str, bytes]:
    """The three plots, as PNG by file name; a plot without data is left out."""
    words = reward_words(definition)
    points = np.array(model.calibration.points).reshape(-1, 3)
    made = {"reliability.png": reliability_diagram(points[:, 0], points[:, 1], points[:, 2], words)}
    if evaluation.values:
        made["policy_values.png"] = value_chart(_value_bars(evaluation.values), words)
    made["top_contents.png"] = content_chart(top_contents(training, judged, model), words)
    return made


def top_contents(training: TrainingSet, judged: TrainingSet, model: RewardModel) -> list[Bar]:
    """The best contents that were shown, by predicted reward over contexts that occurred; interval: two sd's."""
    shown = [training.contents[index] for index in np.unique([*training.content, *training.history.content])]
    contexts, _ = distinct_contexts(judged.contexts or training.contexts or [{}])
    promised = model.grid(contexts[:_CONTEXTS], shown).mean(axis=0)
    spread = model.spread(shown)
    best = np.argsort(-promised, kind="stable")[:TOP]
    return [
        Bar(_copy(shown[index]), *(THOUSAND * (promised[index] + z * spread[index]) for z in (0.0, -1.96, 1.96)))
        for index in best
    ]


def report(
    definition: LoopDefinition,
    training: TrainingSet,
    judged: TrainingSet,
    model: RewardModel,
    metrics: Mapping[str, float],
    evaluation: Evaluation,
    parameters: Mapping[str, str],
    kind: str,
    champion: str | None,
) -> Report:
    """The report that is kept with the bundle."""
    return Report(
        loop_id=definition.loop,
        dataset_digest=training.digest,
        words=reward_words(definition),
        parameters=dict(parameters),
        metrics=dict(metrics),
        changed=_changed(kind, champion, metrics),
        cautions=_cautions(definition, judged, metrics, evaluation),
        top=[bar.label for bar in top_contents(training, judged, model)],
        columns=columns(definition.metrics),
    )


def parameters_of(definition: LoopDefinition, cutoff: str, now: str) -> dict[str, str]:
    """The learning configuration, flat: ``model.rounds``, ``policy.kind`` …"""
    parts = {"model": definition.model, "policy": definition.policy, "gate": definition.gate}
    found = {
        f"{part}.{name}": str(value)
        for part, settings in parts.items()
        for name, value in settings.model_dump(mode="json").items()
    }
    found |= {f"reward.{name}": str(weight) for name, weight in definition.reward.items()}
    return found | {"cutoff": cutoff, "trained_at": now, "default_reward": str(definition.default_reward)}


def _changed(kind: str, champion: str | None, metrics: Mapping[str, float]) -> list[str]:
    learned = (
        f"It learned from {metrics['decisions_trained']:,.0f} decisions and "
        f"{metrics['past_results_trained']:,.0f} past results."
    )
    first = {
        "first": "This is the loop's first model.",
        "refresh": f"The same settings as {champion}, trained on newer data.",
        "change": f"The learning settings differ from those of {champion}.",
    }[kind]
    if (days := metrics.get("half_life_days")) is None:
        return [first, learned]
    return [first, learned, f"What works here changes with time: counts weigh half after {days:.0f} days."]


def _cautions(
    definition: LoopDefinition, judged: TrainingSet, metrics: Mapping[str, float], evaluation: Evaluation
) -> list[str]:
    found = []
    if evaluation.gain is None:
        found.append(f"Its value is unknown: {evaluation.reason}")
    error, usual = (
        metrics.get("calibration_error_later_per_1000"),
        THOUSAND * abs(float(judged.reward.mean())) if len(judged) else 0.0,
    )
    if error is not None and error > 0.25 * usual:
        found.append(
            f"Predictions on later decisions were off by {error:.1f} per 1,000 on average, against {usual:.1f} seen: "
            "trust the ranking more than the numbers."
        )
    if definition.gate.split == "unit":
        found.append("The data has no times: it was judged on other customers, not on later ones.")
    if any(estimate.name == "DM" for estimates in evaluation.values.values() for estimate in estimates):
        found.append("Values marked DM depend on the model itself and decide nothing.")
    return found


def _power(gain: Estimate) -> dict[str, float]:
    """What so many units could have shown, and how many the gate would need for a gain like this one."""
    detectable = smallest_detectable((gain.high - gain.low) / 2.0, gain.level)
    found = {
        "effective_sample_size": float(gain.ess),
        "units_judged": float(gain.clusters),
        "smallest_detectable_per_1000": THOUSAND * detectable,
    }
    return found | ({"units_needed": gain.clusters * (detectable / gain.value) ** 2} if gain.value > 0.0 else {})


def _figures(name: str, estimate: Estimate) -> dict[str, float]:
    if estimate.name.lower() == "dr":
        return _interval(name, estimate)
    estimator = estimate.name.lower().replace("-", "_").replace(" ", "_")
    return {f"{name}_{estimator}": THOUSAND * estimate.value}


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        name: THOUSAND * estimate.value,
        f"{name}_low": THOUSAND * estimate.low,
        f"{name}_high": THOUSAND * estimate.high,
    }


def _value_bars(values: Values) -> list[Bar]:
    return [
        Bar(
            f"{TITLES[policy]}, {each.name}",
            THOUSAND * each.value,
            THOUSAND * each.low,
            THOUSAND * each.high,
            marked=each.name == CHOSEN,
        )
        for policy, estimates in values.items()
        for each in estimates
    ]


def _copy(content: Content) -> str:
    return text_of(content).replace("\n", " / ") or content.content_id
