"""The product serving one campaign of a made-up world, decision for decision, as the API does.

Customers come in blocks of a second: all of a block are chosen for from one snapshot, whose counts know everybody before
them, as a server's do that is renewed every second; contexts are looked at every five blocks, as every five seconds there. What a
model expects of copy and customer does not change while it serves, so it is computed once.

    regrets(world, rules, model, seed, said) -> (T,)      what the best content was worth to each customer, less the chosen one
    ratio_of(top, bottom) -> ratio and its interval       of two ways to begin, over the same worlds
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from ingestion.loops import LoopDefinition
from reward_models.boosted import RewardModel
from reward_models.contextual import WINDOW, Contextual, fit_contextual
from reward_models.opinions import Opinions
from reward_models.policies import pmfs
from reward_models.serving.campaigns import Campaign
from reward_models.serving.hearing import Heard
from reward_models.serving.recent import Layer, most_moved
from reward_models.serving.snapshot import Loop, Served, Snapshot
from reward_models.statistics import Counts, StatRow
from tests.benchmarks.bandit_worlds import CAMPAIGN, Rounds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK, LOOKS = 25, 5
"""Customers per snapshot, and snapshots per look at contexts."""


def regrets(
    world: Rounds,
    rules: LoopDefinition,
    model: RewardModel | None,
    seed: int,
    said: Mapping[str, float] | None = None,
) -> Floats:
    """Regret of each decision, shape (T,). ``said``: where contents start by what people and judges think."""
    serving = _Serving(world, rules, model, said or {})
    drawn = np.random.default_rng(seed).random(len(world))
    chosen = np.zeros(len(world), dtype=np.int64)
    for begin in range(0, len(world), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(world)))
        chosen[rows] = serving.choose(rows, drawn[rows])
        serving.learn(chosen[: rows[-1] + 1], looks=(begin // BLOCK) % LOOKS == LOOKS - 1)
    return np.asarray(world.value.max(axis=1) - world.value[np.arange(len(world)), chosen])


def ratio_of(top: Floats, bottom: Floats) -> tuple[float, float, float]:
    """Σ top / Σ bottom with its 95 % interval: the ratios r for which the mean of top − r·bottom may be 0 (Fieller 1954).

    Shape (w,) each; w ≥ 2 worlds for an interval, whose ends are infinite where the worlds do not tell."""
    ratio, n = float(top.sum() / bottom.sum()), len(top)
    if n < 2:
        return ratio, ratio, ratio
    squared = float(student.ppf(0.975, n - 1)) ** 2 / n
    (a, b), (_, c) = np.cov(top, bottom).tolist()
    x, y = float(top.mean()), float(bottom.mean())
    lead = y**2 - squared * c
    middle, rest = x * y - squared * b, x**2 - squared * a
    root = middle**2 - lead * rest
    if lead <= 0.0 or root < 0.0:
        return -math.inf, ratio, math.inf
    return (middle - math.sqrt(root)) / lead, ratio, (middle + math.sqrt(root)) / lead


class _Serving:
    """A campaign of the world as it is served, with a model or without."""

    def __init__(
        self, world: Rounds, rules: LoopDefinition, model: RewardModel | None, said: Mapping[str, float]
    ) -> None:
        self.world, self.ids = world, [content.content_id for content in world.contents]
        self.version = "" if model is None else f"{rules.loop}-1"
        served = None if model is None else Served(self.version, model, rules)
        self.loop = Loop(rules, 1, champion=self.version or None, served=served)
        self.campaign = Campaign(CAMPAIGN, rules.loop, "running", {}, {one.content_id: one for one in world.contents})
        self.heard = {rules.loop: Heard((0, 0), {}, (), Opinions(said={CAMPAIGN: said}))}
        self.snapshot = Snapshot(heard=self.heard)
        self.expected = np.zeros((len(world), len(self.ids)))
        if served is not None:
            self.expected = served.model.scores(world.contexts, served.encode(world.contents))

    def choose(self, rows: Ints, drawn: Floats) -> Ints:
        """A content for each of these customers, by their share of the probability, shape (b,)."""
        standing = self.snapshot.standing(self.loop, self.campaign)
        effects, at = standing.effects, [standing.index[name] for name in self.ids]
        mean = effects.scale * self.expected[rows] + effects.shift + effects.effect[at]
        sd = np.tile(effects.sd[at], (len(rows), 1))
        if standing.contextual is not None:
            told = [standing.contextual.at(self.world.contexts[row], self.ids) for row in rows.tolist()]
            mean = mean + np.array([added for added, _ in told])
            sd = np.sqrt(sd**2 + np.array([variance for _, variance in told]))
        reached = np.cumsum(pmfs(self.loop.policy, mean, sd), axis=1)
        return np.asarray(np.minimum((reached <= drawn[:, None]).sum(axis=1), len(self.ids) - 1), dtype=np.int64)

    def learn(self, chosen: Ints, looks: bool) -> None:
        """The next snapshot, from all decisions so far."""
        rows = np.arange(len(chosen))
        reward, expected = self.world.reward[rows, chosen], self.expected[rows, chosen]
        shown, total, said = (
            np.bincount(chosen, weights, len(self.ids)) for weights in (np.ones(len(rows)), reward, expected)
        )
        counts = [
            StatRow(name, "click", int(n), int(clicks * 1e6), clicks * 1e8, int(promised * 1e6))
            for name, n, clicks, promised in zip(self.ids, shown, total, said, strict=True)
            if n
        ]
        statistics, layers = {CAMPAIGN: {self.version: counts}}, self.snapshot.layers
        if looks and most_moved(statistics, {CAMPAIGN: self.version}, layers) is not None:
            layers = {CAMPAIGN: Layer(self.version, len(rows), self._look(chosen, reward - expected))}
        self.snapshot = Snapshot(counts=Counts(statistics, {}, 0), layers=layers, heard=self.heard)

    def _look(self, chosen: Ints, rest: Floats) -> Contextual | None:
        newest = slice(max(0, len(chosen) - WINDOW), len(chosen))
        features = [one.features for one in self.world.contents]
        return fit_contextual(self.world.contexts[newest], chosen[newest], rest[newest], self.ids, features)
