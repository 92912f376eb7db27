"""What past decisions with known probabilities say: every single arm, and one learned policy per metric.

1. keep the decisions that chance decided, with the candidates most of them share
2. means of every arm, plain: n and mean of the rows that got it
3. blocks of time and folds by unit, or where the log has no times units in an order by lot (``forward.py``); per metric
   and part: a reward model of that metric from other units that came before
4. learned policy on the part: the arm with the largest prediction; reference: the arm with the largest mean among those
   that taught. Both are fixed before the part is looked at
5. value of the learned policy by every estimator, with intervals and effective sample sizes
6. the gate on the paired difference to the reference, as for any change

The predictions of step 4 are the nuisance of DM and DR too: they come from other units (invariant 15).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from infra.errors import EstimateRefused
from ingestion.loops import LoopDefinition
from reward_models.automatic import CHOSEN, ESTIMATORS
from reward_models.boosted import PLENTY, fit
from reward_models.choices import Choices
from reward_models.contexts import Contexts
from reward_models.dataset import TrainingSet
from reward_models.folds import codes_of, deal
from reward_models.forward import forward, in_turn
from reward_models.gate import Verdict, judge, per_1000
from reward_models.logged import Logged
from reward_models.offpolicy import Estimate
from reward_models.trial import clusters_of, decided_by_chance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TURNS = 10
"""Parts of a log without times."""
FORWARD_FOLDS = 2
"""Folds by unit within each block of time."""

OnStep = Callable[[int, int], None]
"""Told after every model: done, of how many."""


@dataclass(frozen=True)
class Arm:
    """One content sent to everybody who got it. ``means``: plain mean of each metric."""

    content_id: str
    n: int
    means: dict[str, float]


@dataclass(frozen=True)
class CrossFitted:
    """Learned policy and reference on rows neither has seen, n rows with k arms. Both are one-hot pmfs (n, k).

    Rows that are not judged, for want of something to learn from, are zeros."""

    target: Floats
    reference: Floats
    q: Floats
    """Predicted reward of every arm, (n, k), from other units."""
    judged: npt.NDArray[np.bool_]
    """Rows that were valued, (n,)."""


@dataclass(frozen=True)
class MetricReport:
    """One metric. ``reference``: the best single arm, chosen out of fold. ``refused``: why a value is missing.
    ``chosen``: the estimate to believe, among ``values``."""

    metric: str
    reference: str
    values: tuple[Estimate, ...]
    refused: dict[str, str]
    verdict: Verdict
    sentence: str
    chosen: str = CHOSEN


@dataclass(frozen=True)
class Evaluation:
    """Past decisions, evaluated. ``left_out``: without a known propensity, or with other candidates."""

    rows: int
    left_out: int
    units: int
    arms: tuple[Arm, ...]
    metrics: tuple[MetricReport, ...]


def evaluate(
    training: TrainingSet, definition: LoopDefinition, metrics: list[str], on_step: OnStep = lambda *_: None
) -> Evaluation:
    """All steps of the module docstring, for these metrics of the loop.

    Raises :class:`EstimateRefused` when no decision was made by chance.
    """
    rows = by_chance(training)
    reports = []
    for place, metric in enumerate(metrics):
        fitted = cross_fit(rows, metric, definition, _after(on_step, place, len(metrics)))
        reports.append(report(rows, metric, fitted, definition))
    return Evaluation(
        rows=len(rows),
        left_out=len(training) - len(rows),
        units=len(set(clusters_of(rows))),
        arms=tuple(arms(rows)),
        metrics=tuple(reports),
    )


def by_chance(training: TrainingSet) -> TrainingSet:
    """Step 1. Raises :class:`EstimateRefused` when there are none."""
    kept = decided_by_chance(training)
    of_row, _ = Choices.of(kept.candidates).sets()
    offered = list(zip(kept.campaign_id, of_row.tolist(), strict=True))
    if not offered:
        raise EstimateRefused(
            f"Loop {training.loop_id!r} has no mature decision with a known propensity: nothing can be valued. "
            "Import decisions with their propensities, or evaluate past results"
        )
    common = Counter(offered).most_common(1)[0][0]
    if len(kept.candidates[offered.index(common)]) < 2:
        raise EstimateRefused(f"The decisions of loop {training.loop_id!r} had one candidate each: nothing was chosen")
    return kept.subset(np.array([each == common for each in offered], dtype=np.bool_))


def arms(rows: TrainingSet) -> list[Arm]:
    """Step 2, in the order of the candidates."""
    found = []
    chosen = np.array(rows.chosen)
    for candidate in rows.candidates[0]:
        got = chosen == candidate.content_id
        means = {name: float(values[got].mean()) if got.any() else 0.0 for name, values in rows.metrics.items()}
        found.append(Arm(candidate.content_id, int(got.sum()), means))
    return found


def chosen_arm(rows: TrainingSet) -> Ints:
    """Index of the arm each row got, shape (n,)."""
    place = {candidate.content_id: index for index, candidate in enumerate(rows.candidates[0])}
    return np.array([place[content_id] for content_id in rows.chosen], dtype=np.int64)


def cross_fit(
    rows: TrainingSet,
    metric: str,
    definition: LoopDefinition,
    on_step: OnStep = lambda *_: None,
    *,
    plenty: int = PLENTY,
) -> CrossFitted:
    """Steps 3 and 4 for one metric. ``plenty``: see ``boosted.fit``.

    Raises :class:`EstimateRefused` when no fold has anything to learn from.
    """
    reward = rows.metrics[metric]
    contents = rows.candidate_contents(0)
    chosen, contexts = chosen_arm(rows), Contexts.of(rows.contexts)
    q = np.zeros((len(rows), len(contents)))
    target, reference = np.zeros_like(q), np.zeros_like(q)
    measured, parts = replace(rows, reward=reward), lessons(rows, definition)
    for done, (teaching, judged) in enumerate(parts, 1):
        inside = np.flatnonzero(judged)
        if np.ptp(reward[teaching]) > 0.0:
            model = fit(measured.subset(rows=teaching, history=_none(rows)), definition.model, plenty=plenty)
            q[inside] = model.grid(contexts.take(inside), contents)
            target[inside, np.argmax(q[inside], axis=1)] = 1.0
            reference[inside, _best(chosen[teaching], reward[teaching], len(contents))] = 1.0
        on_step(done, len(parts))
    if not target.any():
        raise EstimateRefused(
            f"{metric} is the same for all decisions that could teach others: no policy can be learned"
        )
    return CrossFitted(target, reference, q, np.asarray(target.any(axis=1)))


def report(rows: TrainingSet, metric: str, fitted: CrossFitted, definition: LoopDefinition) -> MetricReport:
    """Steps 5 and 6 for one metric."""
    seen = fitted.judged
    valued = rows.subset(seen)
    logged = Logged(
        propensity=valued.propensity,
        reward=valued.metrics[metric],
        chosen=chosen_arm(valued),
        target=fitted.target[seen],
        q=fitted.q[seen],
        clusters=clusters_of(valued),
        reference=fitted.reference[seen],
        behaviour=_behaviour(valued),
    )
    values, refused = [], {}
    for name, estimator in ESTIMATORS.items():
        try:
            values.append(estimator(logged))
        except EstimateRefused as error:
            refused[name] = str(error)
    verdict = judge(logged, definition.gate, "change")
    reference = _reference_name(rows, fitted)
    return MetricReport(metric, reference, tuple(values), refused, verdict, _sentence(metric, reference, verdict))


def lessons(rows: TrainingSet, definition: LoopDefinition) -> list[tuple[Mask, Mask]]:
    """Step 3: rows that teach and rows that are judged by it, (n,) each."""
    codes = codes_of(clusters_of(rows))
    if definition.gate.split == "unit":
        return list(in_turn(deal(codes, TURNS, definition.model.seed)))
    return list(forward(rows.decided_at, deal(codes, FORWARD_FOLDS, definition.model.seed)))


def _after(on_step: OnStep, before: int, total: int) -> OnStep:
    return lambda done, parts: on_step(before * parts + done, total * parts)


def _sentence(metric: str, reference: str, verdict: Verdict) -> str:
    """The gate's verdict, for people."""
    if verdict.estimate is None:
        return f"{metric}: refused. {verdict.sentence}"
    low, high = verdict.estimate.low, verdict.estimate.high
    difference = (
        f"per 1,000 decisions the difference is between {per_1000(low)} and {per_1000(high)} "
        f"({verdict.estimate.level:.1%} interval, {verdict.estimate.clusters:,} units)"
    )
    if verdict.state == "passed":
        return f"{metric}: passed. Choosing by customer beats {reference} for everybody: {difference}."
    worse = "is clearly worse than" if high < 0 else "does not beat"
    return f"{metric}: not promoted. Choosing by customer {worse} {reference} for everybody: {difference}."


def _reference_name(rows: TrainingSet, fitted: CrossFitted) -> str:
    shares = fitted.reference.mean(axis=0)
    return " or ".join(
        candidate.content_id for candidate, share in zip(rows.candidates[0], shares, strict=True) if share > 0
    )


def _behaviour(rows: TrainingSet) -> Floats | None:
    """The stored probabilities of all candidates, shape (n, k); None where only the shown one's is known."""
    table = Choices.of(rows.candidates).table("behaviour_p")
    return None if np.isnan(table).any() else table


def _best(chosen: Ints, reward: Floats, arms: int) -> int:
    shown = np.bincount(chosen, minlength=arms)
    sums = np.bincount(chosen, reward, minlength=arms)
    return int(np.argmax(np.where(shown > 0, sums / np.maximum(shown, 1), -np.inf)))


def _none(training: TrainingSet) -> npt.NDArray[np.bool_]:
    return np.zeros(len(training.history), dtype=np.bool_)
