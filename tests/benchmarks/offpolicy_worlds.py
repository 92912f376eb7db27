"""Logs whose truth is known: real customers, five mailings, and policies that log them.

Customers are those of the Hillstrom experiment, with their features. Three mailings are the real ones: the chance of a
visit is what a random forest makes of the experiment. Two are invented: each is a blend of two real ones by a random taste
of the customer, drawn from the generator named below. Every customer decides 1 to 4 times in a log, and 30 % of the
customers answer everything alike.

Logging. *fixed*: the worst mailing for the customer by a model that learned elsewhere, with a share e drawn evenly.
*adaptive*: the product's own posterior and policy, updated 30 times in the log, with a share e drawn evenly. The target is
what a model learned elsewhere takes for the best of the mailings but one, with 10 % drawn evenly. So e is the overlap.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from ingestion.loops import ModelSettings, PolicySettings
from reward_models.boosted import fit
from reward_models.logged import Logged
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects
from tests.reward_models.training import copy, real_data, training_set

Floats = np.ndarray
Logging = Literal["fixed", "adaptive"]

WORLD_SEED = 20_261_126
FEATURES = ("recency", "history", "mens", "womens", "newbie", "zip_code", "channel")
ARMS = ("mens", "womens", "none", "blend-1", "blend-2")
K = len(ARMS)
UPDATES = 30
LOYAL = 0.3
LEARNED_ON = 20_000
"""Decisions that the target's model and the logger's learned from."""
RATE = 0.15
"""Size of a usual reward, which the logging posterior starts from."""


@dataclass(frozen=True)
class Log:
    """n decisions. ``behaviour``: what each was drawn from, (n, k); ``ran``: the true value of that, per decision."""

    customer: np.ndarray
    unit: np.ndarray
    chosen: np.ndarray
    reward: Floats
    behaviour: Floats
    ran: float


class World:
    """Customers, their true chances of a visit, and the policies."""

    def __init__(self) -> None:
        self.table = pd.read_csv(real_data() / "hillstrom" / "hillstrom.csv")
        self.contexts: list[dict[str, Any]] = self.table[list(FEATURES)].to_dict("records")
        self.contents = [copy(name, "", mailing=name) for name in ARMS]
        self.truth = self._truth()

    def __len__(self) -> int:
        return len(self.table)

    def _truth(self) -> Floats:
        """Chance of a visit, (customers, k)."""
        numbers = self._numbers()
        arms = self.table.segment.map({"Mens E-Mail": 0, "Womens E-Mail": 1, "No E-Mail": 2}).to_numpy()
        visit = self.table.visit.to_numpy(dtype=np.float64)
        real = []
        for arm in range(3):
            forest = RandomForestRegressor(60, min_samples_leaf=60, max_features=3, random_state=WORLD_SEED, n_jobs=1)
            real.append(forest.fit(numbers[arms == arm], visit[arms == arm]).predict(numbers))
        tastes = np.random.default_rng(WORLD_SEED).normal(size=(numbers.shape[1], 2))
        share = 1.0 / (1.0 + np.exp(-2.0 * self._scaled(numbers) @ tastes / np.sqrt(len(tastes))))
        blends = [
            share[:, 0] * real[0] + (1 - share[:, 0]) * real[2],
            share[:, 1] * real[1] + (1 - share[:, 1]) * real[0],
        ]
        return np.column_stack([*real, *blends])

    def _numbers(self) -> Floats:
        coded = self.table[list(FEATURES)].copy()
        for name in ("zip_code", "channel"):
            coded[name] = coded[name].astype("category").cat.codes
        return np.asarray(coded, dtype=np.float64)

    def _scaled(self, numbers: Floats) -> Floats:
        return np.asarray((numbers - numbers.mean(axis=0)) / numbers.std(axis=0))

    def value(self, policy: Floats) -> float:
        """True reward per decision of a policy, (customers, k) or (k,)."""
        return float((policy * self.truth).sum(axis=1).mean())

    @cached_property
    def learned(self) -> Floats:
        """What models learned elsewhere predict, two of them, (2, customers, k)."""
        generator = np.random.default_rng(WORLD_SEED + 1)
        even = np.full((len(self), K), 1 / K)
        return np.array([self.predictions(self.fixed(LEARNED_ON, even, generator)) for _ in range(2)])

    @cached_property
    def target(self) -> Floats:
        """The policy that is judged, (customers, k)."""
        scores = self.learned[0].copy()
        scores[:, 0] = -np.inf
        return greedy(scores, 0.1)

    @cached_property
    def policies(self) -> list[Floats]:
        """Twenty policies to rank: single mailings, and softmaxes of two models and of their opposites."""
        single = [greedy(np.tile(np.eye(K)[arm], (len(self), 1)), 0.1) for arm in range(K)]
        soft = [
            softmax(sign * scores / temperature)
            for scores in self.learned
            for sign, temperature in ((1, 0.005), (1, 0.01), (1, 0.02), (1, 0.05), (-1, 0.01), (-1, 0.03), (-1, 0.1))
        ]
        return [*single, *soft, np.full((len(self), K), 1 / K)]

    def log(self, logging: Logging, even: float, n: int, generator: np.random.Generator) -> Log:
        """A log of n decisions with a share drawn evenly."""
        if logging == "fixed":
            return self.fixed(n, greedy(-self.learned[1], even), generator)
        return self.adaptive(n, even, generator)

    def fixed(self, n: int, policy: Floats, generator: np.random.Generator) -> Log:
        """A log of a policy that does not change, (customers, k)."""
        customer, unit, luck = self._people(n, generator)
        behaviour = policy[customer]
        chosen = drawn(behaviour, generator)
        reward = (luck < self.truth[customer, chosen]).astype(np.float64)
        return Log(customer, unit, chosen, reward, behaviour, self.value(policy))

    def adaptive(self, n: int, even: float, generator: np.random.Generator) -> Log:
        """A log of the product's policy while it learns."""
        settings = PolicySettings(damping=1.0, floor=even / K, uniform_slice=even)
        customer, unit, luck = self._people(n, generator)
        chosen, reward = np.empty(n, dtype=np.int64), np.empty(n)
        behaviour, counts = np.empty((n, K)), np.zeros((2, K))
        for rows in np.array_split(np.arange(n), UPDATES):
            effects = content_effects(ArmCounts(counts[0], counts[1], counts[1], np.zeros(K)), RATE)
            behaviour[rows] = pmf(settings, effects.effect, effects.sd)
            chosen[rows] = drawn(behaviour[rows], generator)
            reward[rows] = luck[rows] < self.truth[customer[rows], chosen[rows]]
            counts += [np.bincount(chosen[rows], weights, K) for weights in (None, reward[rows])]
        ran = float((behaviour @ self.truth.mean(axis=0)).mean())
        return Log(customer, unit, chosen, reward, behaviour, ran)

    def predictions(self, log: Log) -> Floats:
        """What the product's reward model, fitted on a log, predicts for every customer and mailing."""
        training = training_set(
            self.contents,
            content=log.chosen.tolist(),
            contexts=[self.contexts[row] for row in log.customer],
            reward=log.reward.tolist(),
            unit=[f"u{unit}" for unit in log.unit],
        )
        return fit(training, ModelSettings(text=False)).grid(self.contexts, self.contents)

    def logged(self, log: Log, q: Floats, target: Floats) -> Logged:
        """The log with a policy to value against the one that ran, and predictions from elsewhere."""
        return Logged(
            propensity=log.behaviour[np.arange(len(log.chosen)), log.chosen],
            reward=log.reward,
            chosen=log.chosen,
            target=target[log.customer],
            q=q[log.customer],
            clusters=log.unit,
            reference=log.behaviour,
            behaviour=log.behaviour,
        )

    def _people(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Floats]:
        """Customer and unit of each decision, and the luck that decides its answer."""
        units = int(n / 1.5)
        unit = generator.permutation(np.concatenate([np.arange(units), generator.integers(0, units, n - units)]))
        alike, shared = generator.random(units) < LOYAL, generator.random(units)
        luck = np.where(alike[unit], shared[unit], generator.random(n))
        return generator.integers(0, len(self), units)[unit], unit, luck


def greedy(scores: Floats, even: float) -> Floats:
    """The best score, with a share drawn evenly, (n, k)."""
    return np.asarray((1.0 - even) * np.eye(K)[scores.argmax(axis=1)] + even / K)


def softmax(scores: Floats) -> Floats:
    """Probabilities that grow exponentially with the scores, (n, k)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def drawn(policies: Floats, generator: np.random.Generator) -> np.ndarray:
    """One column per row of (n, k) probabilities."""
    cumulative = policies.cumsum(axis=1)
    return np.asarray((generator.random(len(policies))[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1))
