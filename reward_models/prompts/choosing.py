"""The prompt for a query: another than the best fixed one only where that is clearly better, and only if doing so is proven.

1. per query: the prompt with the highest expected reward among those that are better than the best fixed one with a probability of at
   least ``CLEAR``
2. for the log: what step 1 gains over the best fixed prompt on groups of queries that it has not seen, with an interval. Unless the
   whole interval lies above 0, the best fixed prompt is recommended for everything, and the reason says so

So a log in which the text of a query says nothing about prompts leads to the best fixed prompt, not to noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.prompts.evaluation import CLEAR, Gain, cross_fit, picks
from reward_models.prompts.logs import PromptLog
from reward_models.prompts.model import PromptModel, fit_prompts, view_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recommendation:
    """A prompt for a query. ``advantage``: expected reward above that of the best fixed prompt, with its 95 % interval."""

    query: str
    prompt: str
    fixed: str
    advantage: float
    low: float
    high: float
    probability: float
    """That the prompt named is better than the best fixed one; ½ where it is that one."""
    reason: str


@dataclass(frozen=True)
class Recommender:
    """A model, and what choosing by it was worth on queries it had not seen."""

    model: PromptModel
    gain: Gain
    clear: float = CLEAR

    @property
    def proven(self) -> bool:
        """Whether choosing per query gains, its whole interval."""
        return self.gain.measured.low > 0

    def recommend(self, queries: Sequence[str]) -> list[Recommendation]:
        """One for each query."""
        advantage = self.model.advantage(queries)
        fixed = self.model.fixed
        wanted = picks(advantage, fixed, self.clear)
        chosen = wanted if self.proven else np.full(len(queries), fixed)
        rows = np.arange(len(queries))
        mean, sd = advantage.mean[rows, chosen], advantage.sd[rows, chosen]
        sure = advantage.probability[rows, chosen]
        return [
            Recommendation(
                query,
                self.model.prompts[chosen[row]],
                self.model.prompts[fixed],
                float(mean[row]),
                float(mean[row] - 1.96 * sd[row]),
                float(mean[row] + 1.96 * sd[row]),
                float(sure[row]),
                self._reason(int(wanted[row]), int(chosen[row])),
            )
            for row, query in enumerate(queries)
        ]

    def _reason(self, wanted: int, chosen: int) -> str:
        if chosen != self.model.fixed:
            return "clearly better for this query, and choosing so is proven"
        if wanted != self.model.fixed:
            return "the best fixed prompt: that choosing per query gains is not proven by this log"
        return "the best fixed prompt: none is clearly better for this query"


def learn(log: PromptLog, clear: float = CLEAR, seed: int = 0) -> Recommender:
    """Both steps. Raises :class:`EstimateRefused` for a log that is too small."""
    view = view_of(log)
    return Recommender(fit_prompts(log, view), cross_fit(log, seed, clear, view), clear)
