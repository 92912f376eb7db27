"""How well a preference is predicted for groups of texts that were not learned from.

1. pairs that share a text or a name are a group; groups are dealt to ``FOLDS`` folds
2. per fold, on the same pairs: the stack (``texts.py``), TF-IDF logistic regression alone, and "the longer one wins"
3. accuracy (a tie counts one half) with 95 % bootstrap intervals over groups; differences are paired
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from infra.errors import EstimateRefused
from reward_models.clusters import mean_of
from reward_models.folds import codes_of, deal
from reward_models.preferences.pairs import Pairs, longer_wins
from reward_models.preferences.texts import LEAST_GROUPS, MEMBERS, Seen, fit_pairs, words_alone
from reward_models.ranking import Measured

Floats = npt.NDArray[np.float64]

FOLDS = 5
OURS, WORDS, LONGER = "Rewardloop", "TF-IDF logistic regression", "the longer one wins"
OnFold = Callable[[int, int], None]


@dataclass(frozen=True)
class Judged:
    """One way of judging. ``ahead``: the accuracy of ours less that of this one, paired; None for ours."""

    accuracy: Measured
    auc: float
    log_loss: float | None
    ahead: Measured | None


@dataclass(frozen=True)
class PairReport:
    """What an evaluation found. ``weights``: mean weight of each member of the stack."""

    pairs: int
    groups: int
    undecided: int
    judged: Mapping[str, Judged]
    weights: Mapping[str, float]

    @property
    def sentence(self) -> str:
        """The finding in words."""
        ours, ahead = self.judged[OURS], self.judged[LONGER].ahead
        word = "beats" if ahead is not None and ahead.low > 0 else "is not proven to beat"
        return (
            f"On groups it has not seen the model names the preferred text in {ours.accuracy.value:.1%} of pairs "
            f"[{ours.accuracy.low:.1%}, {ours.accuracy.high:.1%}]; it {word} choosing the longer one."
        )


def evaluate(pairs: Pairs, seed: int, on_fold: OnFold = lambda *_: None) -> PairReport:
    """Steps 1 to 3. Raises :class:`EstimateRefused` with too few groups."""
    groups = len(np.unique(pairs.group))
    if groups < 2 * LEAST_GROUPS:
        raise EstimateRefused(
            f"{groups} groups of pairs that share no text; judging a model on unseen ones takes {2 * LEAST_GROUPS} at least"
        )
    folds = deal(codes_of(pairs.group.tolist()), FOLDS, seed)
    seen = Seen.of(pairs)
    margins = {OURS: np.zeros(len(pairs)), WORDS: np.zeros(len(pairs)), LONGER: longer_wins(pairs)}
    weights = np.zeros((FOLDS, len(MEMBERS)))
    for fold in range(FOLDS):
        inside = folds == fold
        known, won, asked = seen.part(~inside), pairs.first_won[~inside], seen.part(inside)
        model = fit_pairs(known, won, pairs.group[~inside], seed)
        margins[OURS][inside], weights[fold] = model.margins(asked), model.weights
        margins[WORDS][inside] = words_alone(known, won)(asked)
        on_fold(fold + 1, FOLDS)
    right = {name: _right(margin, pairs) for name, margin in margins.items()}
    judged = {
        name: Judged(
            mean_of(right[name], pairs.group),
            float(roc_auc_score(pairs.first_won, margin)) if 0 < pairs.first_won.mean() < 1 else float("nan"),
            None if name == LONGER else float(np.logaddexp(0.0, np.where(pairs.first_won, -margin, margin)).mean()),
            None if name == OURS else mean_of(right[OURS] - right[name], pairs.group),
        )
        for name, margin in margins.items()
    }
    return PairReport(
        len(pairs), groups, pairs.undecided, judged, dict(zip(MEMBERS, weights.mean(axis=0).tolist(), strict=True))
    )


def _right(margin: Floats, pairs: Pairs) -> Floats:
    return np.where(margin == 0, 0.5, ((margin > 0) == pairs.first_won).astype(np.float64))
