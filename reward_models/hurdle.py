"""What each decision's reward will be, given what has come of it so far: what the reward model is trained on.

    E(value) = P(click) · P(purchase | click) · E(value | purchase)

The reward model learns the first factor together with the product of the others: once somebody has clicked, their
purchase is replaced by what a click of theirs is worth, so that rare purchases of uneven size stop adding noise, and
a click counts before its purchase can have come. An outcome that comes late is divided by the share of its kind that
has come in by the age of the decision, and the row counts that much less (inverse probability of censoring: Robins &
Rotnitzky 1992); at maturity that share is 1. Steps of ``foresee``, per metric m with weight w in the reward:

1. its hurdle: the ``any`` metric without which m hardly happens; most have none
2. value of a cleared hurdle: P(m | cleared) · E(value | m), each a reward model of its own over the rows that
   cleared it, by folds of units, so that no row values itself; its own delays count from the hurdle
3. row's part of the reward: w · value of the hurdle / F_hurdle(age) if cleared, else w · value so far / F_m(age)
4. exposures of the row: e = Σ_m σ_m / Σ_m σ_m / F_m(age), σ_m being the second moment of m's part: the precision of
   the sum relative to that of a mature row; rows with almost none are left out
5. what is unsure about F is the same for all young rows of a content, and more of them do not help: e / (1 + v·c)
   with v the variance of log F and c the outcomes its young rows have shown so far

    foresee(training, delays, definition) -> TrainingSet        hurdle_of(training, metric, definition) -> metric | None
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.loops import LoopDefinition
from reward_models.boosted import RewardModel, fit
from reward_models.dataset import Arrivals, Timing, TrainingSet
from reward_models.delays import Delays, fit_law
from reward_models.folds import codes_of, deal

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
LEAST_EXPOSURE = 0.01
"""A row of which less than this has come in is left out: it weighs nothing, and 1/F would be a guess."""
LEAST_CLEARED = 200
"""Rows that cleared a hurdle, below which what lies behind it is not modelled."""
LEAST_AFTER = 50
"""Rows among them with an outcome behind the hurdle."""
MOSTLY = 0.5
"""Share of a metric's outcomes that must lie behind its hurdle."""


def foresee(training: TrainingSet, delays: Delays, definition: LoopDefinition) -> TrainingSet:
    """The set to train on. One that is mature, and whose reward has no hurdles, is returned as it is."""
    hurdles = {name: hurdle_of(training, name, definition) for name, weight in definition.reward.items() if weight}
    if training.mature.all() and not any(hurdles.values()):
        return training
    values, shares, doubts, moments = np.zeros(len(training)), [], [], []
    for name, hurdle in hurdles.items():
        share, doubt = _share(training, delays, name)
        part = definition.reward[name] * training.metrics[name] / np.maximum(share, LEAST_EXPOSURE)
        if hurdle is not None:
            share, doubt = _share(training, delays, hurdle)
            cleared = np.flatnonzero(training.metrics[hurdle])
            worth = definition.reward[name] * _worth(training, cleared, name, hurdle, definition)
            part[cleared] = worth / np.maximum(share[cleared], LEAST_EXPOSURE)
        values += part
        shares.append(share)
        doubts.append(doubt)
        moments.append(float((share * part) @ part))
    happened = np.logical_or.reduce([value != 0.0 for value in training.metrics.values()])
    silent = 1.0 - happened / np.maximum(np.maximum.reduce(shares), LEAST_EXPOSURE)
    exposures = _exposures(np.array(shares), np.array(moments))
    known = exposures >= LEAST_EXPOSURE
    foreseen = replace(
        training,
        reward=values + definition.default_reward * silent,
        exposures=_doubted(training, exposures, np.maximum.reduce(doubts), values != 0.0),
    )
    return foreseen if known.all() else foreseen.subset(known)


def hurdle_of(training: TrainingSet, name: str, definition: LoopDefinition) -> str | None:
    """Which other metric comes before this one, if any: of type ``any``, in most rows where this one is not 0, and
    the rarest such, because it tells most."""
    after = training.metrics[name] != 0.0
    found = []
    for metric in definition.metrics:
        before = training.metrics[metric.name] != 0.0
        both = int((before & after).sum())
        enough = before.sum() >= LEAST_CLEARED and both >= max(LEAST_AFTER, MOSTLY * after.sum())
        rarer = after.sum() < before.sum() < len(before)
        if metric.aggregate == "any" and metric.name != name and enough and rarer:
            found.append((int(before.sum()), metric.name))
    return min(found)[1] if found else None


def _share(training: TrainingSet, delays: Delays, name: str) -> tuple[Floats, Floats]:
    """F_m of each row and the variance of its logarithm, shape (n,) each."""
    known = training.timing is not None and name in delays.laws
    return delays.of_rows(name, training) if known else (np.ones(len(training)), np.zeros(len(training)))


def _exposures(shares: Floats, moments: Floats) -> Floats:
    """Step 4, from shape (metrics, n). A reward of nothing so far has the share of its slowest metric."""
    if moments.sum() == 0.0:
        return np.asarray(shares.min(axis=0))
    weights = moments / moments.sum()
    return np.asarray(1.0 / (weights[:, None] / np.maximum(shares, 1e-9)).sum(axis=0))


def _doubted(training: TrainingSet, exposures: Floats, doubt: Floats, shows: npt.NDArray[np.bool_]) -> Floats:
    """Step 5. ``shows``: rows with an outcome of the reward."""
    doubt = np.where(training.mature, 0.0, doubt)
    shown = np.bincount(training.content, shows & (doubt > 0.0), len(training.contents))
    return exposures / (1.0 + doubt * shown[training.content])


def _worth(training: TrainingSet, cleared: Ints, name: str, hurdle: str, definition: LoopDefinition) -> Floats:
    """Step 2: expected value of the metric for each cleared row, by models that saw other units."""
    behind = _behind(training, cleared, name, hurdle, definition)
    folds = deal(codes_of([unit or one for unit, one in zip(behind.unit, behind.decision_id, strict=True)]), FOLDS, 0)
    worth = np.zeros(len(behind))
    for fold in range(FOLDS):
        inside, others = np.flatnonzero(folds == fold), behind.subset(folds != fold)
        worth[inside] = _happens(others, behind, inside, definition) * _size(others, behind, inside, definition)
    return np.maximum(worth, 0.0)


def _behind(training: TrainingSet, cleared: Ints, name: str, hurdle: str, definition: LoopDefinition) -> TrainingSet:
    """The rows that cleared a hurdle, with their time counted from there, and the metric as their reward."""
    rows = training.subset(cleared, np.zeros(len(training.history), dtype=np.bool_))
    values = rows.metrics[name]
    plain = replace(rows, reward=values, metrics={name: values}, timing=None, exposures=None)
    if rows.timing is None:
        return plain
    passed = np.zeros(len(rows))
    passed[rows.timing.arrivals[hurdle].row] = rows.timing.arrivals[hurdle].delay
    came = rows.timing.arrivals[name]
    age = np.where(rows.mature, rows.timing.maturity, rows.timing.age - passed)
    waited = Arrivals(came.row, np.maximum(came.delay - passed[came.row], 0.0))
    names = [rows.contents[index].content_id for index in rows.content[came.row]]
    law = fit_law(
        waited.delay, age[came.row], names, definition.metric(name).window, rows.timing.lags.get(name, (0.0,))
    )
    timing = Timing(age, rows.timing.maturity, {name: waited}, {})
    share = np.maximum(Delays({name: law}).of_rows(name, replace(plain, timing=timing))[0], LEAST_EXPOSURE)
    return replace(plain, exposures=share)


def _happens(others: TrainingSet, behind: TrainingSet, inside: Ints, definition: LoopDefinition) -> Floats:
    """P(m | cleared) of the rows of a fold."""
    happened = (others.reward != 0.0).astype(np.float64)
    share = np.ones(len(others)) if others.exposures is None else others.exposures
    return _predicted(replace(others, reward=happened / share), behind, inside, definition)


def _size(others: TrainingSet, behind: TrainingSet, inside: Ints, definition: LoopDefinition) -> Floats:
    """E(value | m) of the rows of a fold; how large an outcome is does not depend on whether others are still to come."""
    return _predicted(replace(others.subset(np.flatnonzero(others.reward)), exposures=None), behind, inside, definition)


def _predicted(seen: TrainingSet, behind: TrainingSet, inside: Ints, definition: LoopDefinition) -> Floats:
    """Predictions for the rows of a fold from the others; their mean where there is nothing to tell them apart."""
    try:
        model: RewardModel = fit(seen, definition.model)
    except BadInput:
        exposures = np.ones(len(seen)) if seen.exposures is None else seen.exposures
        return np.full(len(inside), float(np.average(seen.reward, weights=exposures)) if len(seen) else 0.0)
    contents = [behind.contents[index] for index in behind.content[inside]]
    return model.rows([behind.contexts[row] for row in inside], contents, behind.position[inside])
