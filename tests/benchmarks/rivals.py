"""Other people's bandits, each as they publish it, behind one face: ``choose`` a content, ``learn`` its reward."""

from typing import Any, Protocol

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from tests.benchmarks.bandit_worlds import Rounds

Floats = npt.NDArray[np.float64]


class Learner(Protocol):
    """Something that chooses and learns. Rewards come in the order of their rounds, as soon as they are heard of."""

    def choose(self, t: int) -> int:
        """Index of the content for round ``t``."""

    def learn(self, t: int, chosen: int, reward: float) -> None:
        """What came of round ``t``."""


class Linear:
    """LinUCB (Li et al. 2010) and LinTS (Agrawal & Goyal 2013): ridge regression with an inverse kept by rank-one updates.

    Contents without features have a regression each (disjoint); with features all share one on x ⊗ f.
    """

    def __init__(self, world: Rounds, seed: int, sampled: bool, width: float) -> None:
        self.world, self.rng, self.sampled, self.width = world, np.random.default_rng(seed), sampled, width
        self.one = world.f is not None
        self.x = np.hstack([np.ones((len(world), 1)), world.x])
        self.f = None if world.f is None else np.hstack([np.ones((len(world.f), 1)), world.f])
        models = 1 if self.one else len(world.contents)
        d = self.x.shape[1] * (1 if self.f is None else self.f.shape[1])
        self.inverse = np.tile(np.eye(d), (models, 1, 1))
        self.b = np.zeros((models, d))

    def choose(self, t: int) -> int:
        """The largest upper bound, or the largest of one posterior draw."""
        if self.f is not None:
            rows = (self.x[t][None, :, None] * self.f[:, None, :]).reshape(len(self.f), -1)
            theta, z = self.inverse[0] @ self.b[0], rows @ self.inverse[0]
            if self.sampled:
                root = np.linalg.cholesky((self.inverse[0] + self.inverse[0].T) / 2)
                return int(np.argmax(rows @ (theta + self.width * root @ self.rng.normal(size=len(theta)))))
            return int(np.argmax(rows @ theta + self.width * np.sqrt(np.maximum((z * rows).sum(axis=1), 0.0))))
        z = self.inverse @ self.x[t]
        mean, deviation = (z * self.b).sum(axis=1), np.sqrt(np.maximum(z @ self.x[t], 0.0))
        noise = self.rng.normal(size=len(mean)) if self.sampled else 1.0
        return int(np.argmax(mean + self.width * deviation * noise))

    def learn(self, t: int, chosen: int, reward: float) -> None:
        """Sherman-Morrison."""
        row = self.x[t] if self.f is None else np.outer(self.x[t], self.f[chosen]).ravel()
        at = 0 if self.one else chosen
        z = self.inverse[at] @ row
        self.inverse[at] -= np.outer(z, z) / (1.0 + row @ z)
        self.b[at] += reward * row


class BootstrappedTrees:
    """Thompson sampling by the bootstrap (Eckles & Kaptein 2014): LightGBM on ten resamples, one drawn per round."""

    def __init__(self, world: Rounds, seed: int, schedule: frozenset[int]) -> None:
        self.world, self.rng, self.schedule = world, np.random.default_rng(seed), schedule
        self.arms = np.eye(len(world.contents)) if world.f is None else world.f
        self.rows: list[Floats] = []
        self.rewards: list[float] = []
        self.models: list[Any] = []

    def choose(self, t: int) -> int:
        """The best content for one of the models; before there are any, one at random."""
        if not self.models:
            return int(self.rng.integers(len(self.arms)))
        rows = np.hstack([np.tile(self.world.x[t], (len(self.arms), 1)), self.arms])
        values = self.models[self.rng.integers(len(self.models))].predict(rows, num_threads=1)
        best = np.flatnonzero(values == values.max())
        return int(self.rng.choice(best))

    def learn(self, t: int, chosen: int, reward: float) -> None:
        """Keep it; fit again when it is time."""
        self.rows.append(np.concatenate([self.world.x[t], self.arms[chosen]]))
        self.rewards.append(reward)
        if len(self.rows) in self.schedule:
            x, y = np.array(self.rows), np.array(self.rewards)
            draws = [self.rng.integers(0, len(x), len(x)) for _ in range(10)]
            self.models = [_trees(x[rows], y[rows]) for rows in draws if np.ptp(y[rows]) > 0]


def _trees(x: Floats, y: Floats) -> Any:
    settings = {"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return lgb.train(settings, lgb.Dataset(x, label=y), num_boost_round=50)


class VowpalWabbit:
    """Vowpal Wabbit's contextual bandits with action-dependent features; costs are rewards with the sign turned."""

    def __init__(self, world: Rounds, seed: int, options: str) -> None:
        from vowpalwabbit import Workspace

        self.world, self.rng = world, np.random.default_rng(seed)
        self.vw = Workspace(
            f"--cb_explore_adf {options} -q ca --cb_type mtr --cb_min_cost -1 --cb_max_cost 0 --quiet --random_seed {seed}"
        )
        self.shared = ["shared |c " + " ".join(f"{i}:{v:.5g}" for i, v in enumerate(row)) for row in world.x]
        self.actions = [f"|a {_words(world, k)}" for k in range(len(world.contents))]
        self.probability: dict[int, float] = {}

    def choose(self, t: int) -> int:
        """A draw from VW's own distribution."""
        pmf = np.array(self.vw.predict([self.shared[t], *self.actions]))
        pmf /= pmf.sum()
        chosen = int(self.rng.choice(len(pmf), p=pmf))
        self.probability[t] = float(pmf[chosen])
        return chosen

    def learn(self, t: int, chosen: int, reward: float) -> None:
        """One example."""
        actions = self.actions.copy()
        actions[chosen] = f"0:{-reward}:{self.probability.pop(t)} {actions[chosen]}"
        self.vw.learn([self.shared[t], *actions])


def _words(world: Rounds, k: int) -> str:
    if world.f is None:
        return f"id{k}"
    return " ".join(["one", f"id{k}", *(f"f{i}" for i, on in enumerate(world.f[k]) if on)])
