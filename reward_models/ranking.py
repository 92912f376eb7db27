"""How well held-out campaigns are ranked, from aggregated past results.

1. leave out rows that are not trusted
2. pool rows that share a text within a campaign: they are one content, shown in two ways
3. keep campaigns with at least two contents
4. folds of connected components of campaign and text: a headline used in two campaigns never bridges a split
5. per fold, train on all other folds, predict the fold
6. pick-best rate against chance, accuracy over all pairs, reward of the picks against picking at random

    pick-best  = share of campaigns whose predicted best content is the observed best (ties share the credit)
    chance     = the same for a pick at random
    pairs      = share of pairs within a campaign that are ordered as observed (a predicted tie counts one half)
    gain       = reward of the predicted best / mean reward of the campaign's contents − 1, over all campaigns

Observed rates are noisy, so none of these can reach 1. Intervals: percentile bootstrap over components (2,000
draws, a fixed seed), because campaigns of one component are not independent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import EstimateRefused
from ingestion.loops import LoopDefinition
from reward_models.boosted import fit
from reward_models.dataset import TrainingSet
from reward_models.features import plain, text_of
from reward_models.folds import codes_of, components, deal

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
DRAWS = 2_000
LEAST_COMPONENTS = 10
"""Fewer components than this are refused: folds and bootstrap need something to draw from."""

OnFold = Callable[[int, int], None]
"""Told after every fold: done, of how many."""


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How held-out campaigns were ranked. ``above_chance``: pick-best rate less that of a random pick."""

    rows: int
    untrusted: int
    contents: int
    campaigns: int
    components: int
    pick_best: Measured
    chance: float
    above_chance: Measured
    pairs: Measured
    gain: Measured

    @property
    def better_than_chance(self) -> bool:
        """Whether both intervals lie above chance."""
        return self.above_chance.low > 0 and self.pairs.low > 0.5

    @property
    def sentence(self) -> str:
        """The finding in words."""
        word = "clearly better than chance" if self.better_than_chance else "not clearly better than chance"
        return (
            f"Held-out campaigns are ranked {word}: the best content is picked in {self.pick_best.value:.1%} of "
            f"{self.campaigns:,} campaigns [{self.pick_best.low:.1%}, {self.pick_best.high:.1%}], chance {self.chance:.1%}."
        )


@dataclass(frozen=True)
class Pooled:
    """Contents of campaigns with a choice, k of them. ``content``: index of one that stands for the pool."""

    content: Ints
    campaign: Ints
    component: Ints
    reward: Floats
    rows: Ints
    """Pool of each trusted row of the history, shape (m,); -1 where the campaign has no choice."""


def rank_held_out(training: TrainingSet, definition: LoopDefinition, on_fold: OnFold = lambda *_: None) -> Ranking:
    """Evaluate by the steps of the module docstring.

    Raises :class:`EstimateRefused` when there are too few independent campaigns with a choice.
    """
    trusted = training.subset(rows=np.zeros(len(training), dtype=np.bool_), history=training.history.trusted)
    pooled, component = pool(trusted)
    folds = deal(component, FOLDS, definition.model.seed)
    predicted = np.empty(len(pooled.content))
    for fold in range(FOLDS):
        inside = deal_of(pooled, folds) == fold
        model = fit(trusted.subset(history=folds != fold), definition.model)
        contents = [trusted.contents[index] for index in pooled.content[inside]]
        predicted[inside] = model.rows([{}] * len(contents), contents)
        on_fold(fold + 1, FOLDS)
    return measure(pooled, predicted, len(training.history), len(training.history) - len(trusted.history))


def pool(trusted: TrainingSet) -> tuple[Pooled, Ints]:
    """The pooled contents, and the component of each row of the history.

    Raises :class:`EstimateRefused` when there are too few components.
    """
    past = trusted.history
    contents = [trusted.contents[index] for index in past.content]
    campaigns = [content.campaign_id for content in contents]
    texts = [plain(text_of(content)) for content in contents]
    component = components(campaigns, texts)
    code = codes_of(list(zip(campaigns, texts, strict=True)))
    first = np.unique(code, return_index=True)[1]
    campaign = codes_of(campaigns)
    exposures = np.bincount(code, past.exposures)
    reward = np.bincount(code, past.exposures * past.reward) / exposures
    has_choice = np.bincount(campaign[first])[campaign[first]] > 1
    kept = first[has_choice]
    if (found := len(np.unique(component[kept]))) < LEAST_COMPONENTS:
        raise EstimateRefused(
            f"Loop {trusted.loop_id!r} has {found} independent campaigns with at least two contents and trusted "
            f"results; ranking needs {LEAST_COMPONENTS}. Import more past results"
        )
    place = np.where(has_choice, np.cumsum(has_choice) - 1, -1)
    return Pooled(past.content[kept], campaign[kept], component[kept], reward[has_choice], place[code]), component


def deal_of(pooled: Pooled, folds: Ints) -> Ints:
    """Fold of each pool, from the folds of the rows."""
    fold = np.empty(len(pooled.content), dtype=np.int64)
    shown = pooled.rows >= 0
    fold[pooled.rows[shown]] = folds[shown]
    return fold


def measure(pooled: Pooled, predicted: Floats, rows: int, untrusted: int) -> Ranking:
    """Rates and intervals from predictions of the pools, shape (k,)."""
    sums, count = _sums(pooled, predicted)
    hits, chance, right, pairs, picked, mean = sums.T
    return Ranking(
        rows=rows,
        untrusted=untrusted,
        contents=len(pooled.content),
        campaigns=int(count.sum()),
        components=len(count),
        pick_best=_bootstrap(hits, count),
        chance=float(chance.sum() / count.sum()),
        above_chance=_bootstrap(hits - chance, count),
        pairs=_bootstrap(right, pairs),
        gain=_bootstrap(picked - mean, mean),
    )


def difference(pooled: Pooled, first: Floats, second: Floats) -> tuple[Measured, Measured]:
    """By how much the first predictions do better than the second, paired: pick-best rate, share of pairs."""
    (one, count), (other, _) = _sums(pooled, first), _sums(pooled, second)
    return _bootstrap(one[:, 0] - other[:, 0], count), _bootstrap(one[:, 2] - other[:, 2], one[:, 3])


def _sums(pooled: Pooled, predicted: Floats) -> tuple[Floats, Floats]:
    """What :func:`_campaign` tells, summed by component, shape (c, 6), and the campaigns of each."""
    order = np.argsort(pooled.campaign, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(pooled.campaign[order])) + 1)
    sums = np.array([_campaign(pooled.reward[group], predicted[group]) for group in groups])
    clusters = codes_of(pooled.component[[group[0] for group in groups]].tolist())
    by_cluster = np.stack([np.bincount(clusters, column) for column in sums.T], axis=1).astype(np.float64)
    return by_cluster, np.bincount(clusters).astype(np.float64)


def _campaign(reward: Floats, predicted: Floats) -> tuple[float, ...]:
    """Of one campaign: hit, chance of a hit, pairs right, pairs, reward of the pick, mean reward."""
    best, pick = reward == reward.max(), predicted == predicted.max()
    upper = np.triu_indices(len(reward), 1)
    seen = np.sign(reward[:, None] - reward[None, :])[upper]
    said = np.sign(predicted[:, None] - predicted[None, :])[upper]
    right = np.where(said == 0, 0.5, said == seen)[seen != 0]
    return (
        float((best & pick).sum() / pick.sum()),
        float(best.mean()),
        float(right.sum()),
        float(len(right)),
        float(reward[pick].mean()),
        float(reward.mean()),
    )


def _bootstrap(numerator: Floats, denominator: Floats) -> Measured:
    """Σ numerator / Σ denominator over components, with a percentile interval."""
    random = np.random.default_rng(2013)
    size = len(numerator)
    sums = np.empty((DRAWS, 2))
    for draw in range(DRAWS):
        weights = np.bincount(random.integers(0, size, size), minlength=size)
        sums[draw] = weights @ numerator, weights @ denominator
    drawn = sums[sums[:, 1] > 0]
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return Measured(float(numerator.sum() / denominator.sum()), float(low), float(high))
