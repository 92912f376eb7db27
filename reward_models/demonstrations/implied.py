"""Inverse reinforcement learning: the reward that marketers' choices imply.

The utility of the conditional logit (``logit.py``) is that reward, but for its scale: how sharply people choose tells
their patience, not the size of rewards. So it is taken to differ as much between contents as true rewards do (``SPREAD``):

    reward / campaign's mean = 1 + κ·(u − ū),      κ = reliability · SPREAD / √(Var u + doubt)

doubt: mean variance of u − ū by the logit's covariance: true utilities differ by both, estimates by the first.
reliability: what u adds to the log likelihood of held-out choices, as a share of what it adds to those it was fitted to; 0
for choices drawn by lot. Outcomes correct κ (``prior.py``). How strongly weights are held to 0 is chosen on held-out
choices, for copy and for copy times customer, of which there are many, apart.

    implied_by(demonstrations) -> Implied
    implied.utility(contexts, contents) -> (n, k)         implied.weights(context) -> what each feature is worth there
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.events import Content
from reward_models.demonstrations.choices import Demonstration
from reward_models.demonstrations.design import Design, Situations, described, design_of, situations_of
from reward_models.demonstrations.logit import Logit, fit_logit, likelihood
from reward_models.folds import deal
from reward_models.posterior import SPREAD

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST = 20
"""Fewer choices than this are not learned from."""
FOLDS = 4
_COPY, _BOTH = (0.3, 3.0, 30.0, 300.0), (10.0, 100.0, 1_000.0)
"""Penalties tried, for copy and for copy times customer."""
_HARDLY = 0.3
_SURE = 1.96


@dataclass(frozen=True)
class Weight:
    """What one unit of a feature is worth, in utility, with its 95 % interval."""

    name: str
    weight: float
    low: float
    high: float


@dataclass(frozen=True)
class Implied:
    """The reward behind the choices."""

    design: Design
    logit: Logit
    """What foretells choices best: held to 0 as strongly as held-out choices ask for."""
    plain: Logit
    """Held to 0 hardly at all, for weights that are shown: intervals about held ones would not cover."""
    penalty: Floats
    choices: int
    people: int
    spread: float
    """Standard deviation of the utility among the candidates of a choice."""
    doubt: float
    """Standard deviation of its error there."""
    fit: float
    """McFadden's pseudo R² on held-out choices: 0 is chance."""
    fitted: float
    """The same on the choices it was fitted to."""

    @property
    def reliability(self) -> float:
        """Share of what was found that is there: 0 to 1."""
        return min(1.0, max(0.0, self.fit) / self.fitted) if self.fitted > 0.0 else 0.0

    @property
    def scale(self) -> float:
        """κ: relative reward per utility, before any outcome."""
        return self.reliability * SPREAD / float(np.hypot(self.spread, self.doubt))

    def utility(self, contexts: Sequence[Mapping[str, Any]], contents: Sequence[Content]) -> Floats:
        """u of every content in every context, shape (n, k)."""
        f = self.design.copy.rows([described(content) for content in contents])
        g = self.design.customer.rows(contexts)
        of_copy = self.logit.weights[: f.shape[1]]
        of_both = self.logit.weights[f.shape[1] :].reshape(f.shape[1], g.shape[1])
        return np.asarray((of_copy + g @ of_both.T) @ f.T)

    def weights(self, context: Mapping[str, Any]) -> list[Weight]:
        """What each feature of copy is worth to such customers, the strongest first."""
        rows = self.design.per_unit(context)
        value = rows @ self.plain.weights
        width = _SURE * np.sqrt(np.einsum("ij,jk,ik->i", rows, self.plain.covariance, rows))
        found = [
            Weight(name, float(one), float(one - reach), float(one + reach))
            for name, one, reach in zip(self.design.names, value, width, strict=False)
        ]
        return sorted(found, key=lambda weight: (-abs(weight.weight), weight.name))


def implied_by(shown: Sequence[Demonstration], seed: int = 7) -> Implied:
    """The reward that these choices imply. Raises :class:`BadInput` for fewer than ``LEAST``, or candidates that differ
    in nothing that is known of them."""
    if len(shown) < LEAST:
        raise BadInput(f"{len(shown)} choices are on record; {LEAST} are the least to learn from: record more")
    design = design_of(shown)
    choices = situations_of(design, shown)
    if not choices.phi.shape[1]:
        raise BadInput("The candidates differ in no feature and no word factor; register contents with features")
    penalty, held_out = _best_penalty(design, choices, seed)
    logit = fit_logit(choices, penalty)
    chance = -float(np.log(np.diff(choices.begin, append=len(choices.phi))).mean())
    return Implied(
        design,
        logit,
        fit_logit(choices, np.full(len(penalty), _HARDLY)),
        penalty,
        len(shown),
        len(set(choices.by)),
        *_spread_within(choices, logit),
        1.0 - held_out / chance,
        1.0 - likelihood(choices, logit.utility(choices.phi)) / chance,
    )


def _best_penalty(design: Design, choices: Situations, seed: int) -> tuple[Floats, float]:
    """The penalties with the most likely held-out choices, and their mean log likelihood."""
    folds = deal(np.arange(len(choices)), FOLDS, seed)
    copy = len(design.copy.columns)
    tried = []
    for of_copy, of_both in product(_COPY, _BOTH if len(design.customer.columns) else _BOTH[:1]):
        penalty = np.where(np.arange(choices.phi.shape[1]) < copy, of_copy, of_both)
        tried.append((_held_out(choices, penalty, folds), penalty))
    best = max(tried, key=lambda one: one[0])
    return best[1], best[0]


def _held_out(choices: Situations, penalty: Floats, folds: Ints) -> float:
    parts = []
    for fold in range(FOLDS):
        learned, judged = choices.subset(folds != fold), choices.subset(folds == fold)
        parts.append(len(judged) * likelihood(judged, fit_logit(learned, penalty).utility(judged.phi)))
    return sum(parts) / len(choices)


def _spread_within(choices: Situations, logit: Logit) -> tuple[float, float]:
    """Standard deviation of the utility about the mean of its choice, and of the error of that."""
    sizes = np.diff(choices.begin, append=len(choices.phi))
    mean = np.add.reduceat(choices.phi, choices.begin, axis=0) / sizes[:, None]
    apart = choices.phi - mean[choices.of_row]
    doubt = np.maximum(((apart @ logit.covariance) * apart).sum(axis=1), 0.0)
    return float(np.sqrt((logit.utility(apart) ** 2).mean())), float(np.sqrt(doubt.mean()))
