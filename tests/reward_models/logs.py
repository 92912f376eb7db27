"""Small simulated logs whose truth is known: the oracle of the off-policy and gate tests."""

from dataclasses import dataclass

import numpy as np

from ingestion.loops import PolicySettings
from reward_models.offpolicy import Logged
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects

SEED = 20_261_122


@dataclass(frozen=True)
class Taste:
    """Customers of two kinds, x = 0 or 1 with equal chance. ``rates``: (2, k), chance that kind x answers content a."""

    rates: np.ndarray
    loyalty: float = 0.0
    """Share of units that answer everything they get alike: correlation within a unit."""

    def value(self, policy: np.ndarray) -> float:
        """True reward per decision of a policy, (2, k): its pmf for each kind."""
        return float((self.rates * policy).sum(axis=1).mean())


def draw(policies: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One column per row of (n, k) probabilities."""
    cumulative = policies.cumsum(axis=1)
    return np.asarray((generator.random(len(policies))[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1))


def answers(
    taste: Taste, kind: np.ndarray, chosen: np.ndarray, unit: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """0/1 rewards; a loyal unit uses one random number for all its decisions."""
    units = int(unit.max(initial=-1)) + 1
    alike = generator.random(units) < taste.loyalty
    own, shared = generator.random(len(unit)), generator.random(units)[unit]
    return np.asarray(np.where(alike[unit], shared, own) < taste.rates[kind, chosen], dtype=float)


def fixed_log(
    taste: Taste,
    behaviour: np.ndarray,
    target: np.ndarray,
    reference: np.ndarray,
    q: np.ndarray,
    units: int,
    generator: np.random.Generator,
    per_unit: int = 1,
    told: bool = True,
) -> Logged:
    """A log of a policy that does not change. Policies and q: (2, k) by kind. told: the whole behaviour is known."""
    unit = np.repeat(np.arange(units), per_unit)
    kind = generator.integers(0, 2, size=units)[unit]
    chosen = draw(behaviour[kind], generator)
    return Logged(
        propensity=behaviour[kind, chosen],
        reward=answers(taste, kind, chosen, unit, generator),
        chosen=chosen,
        target=target[kind],
        q=q[kind],
        clusters=unit,
        reference=reference[kind],
        behaviour=behaviour[kind] if told else None,
    )


class Running:
    """The serving policy while it learns: the product's own posterior and pmf, counts updated between the days."""

    def __init__(self, settings: PolicySettings, k: int, scale: float) -> None:
        self.settings = settings
        self.scale = scale
        self.counts = np.zeros((2, k))
        """Exposures and sums."""

    def policy(self) -> np.ndarray:
        """Today's pmf, (k,)."""
        exposures, sums = self.counts
        effects = content_effects(ArmCounts(exposures, sums, sums, np.zeros(len(sums))), self.scale)
        return pmf(self.settings, effects.effect, effects.sd)

    def predictions(self) -> np.ndarray:
        """Smoothed rates so far, (k,)."""
        exposures, sums = self.counts
        return (sums + 50.0 * self.scale) / (exposures + 50.0)

    def log(
        self, taste: Taste, target: np.ndarray, days: int, units: int, per_unit: int, generator: np.random.Generator
    ) -> Logged:
        """Some days of decisions, judged with what was known before them. target: (k,)."""
        q, parts = self.predictions(), []
        unit = np.repeat(np.arange(units), per_unit)
        kind = generator.integers(0, 2, size=units)[unit]
        for rows in np.array_split(generator.permutation(len(unit)), days):
            today = np.tile(self.policy(), (len(rows), 1))
            chosen = draw(today, generator)
            reward = answers(taste, kind[rows], chosen, unit[rows], generator)
            self.counts += [np.bincount(chosen, w, len(q)) for w in (None, reward)]
            parts.append((today, chosen, reward, unit[rows]))
        behaviour, chosen, reward, units_of = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Logged(
            propensity=behaviour[np.arange(len(chosen)), chosen],
            reward=reward,
            chosen=chosen,
            target=np.tile(target, (len(chosen), 1)),
            q=np.tile(q, (len(chosen), 1)),
            clusters=units_of,
            reference=behaviour,
            behaviour=behaviour,
        )
