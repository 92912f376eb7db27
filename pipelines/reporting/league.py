"""How the contents of a campaign stand: what each earns, how sure that is, and which may be the best.

Rates as they came mislead: the shares of contents move from day to day, and so does what customers do. So a content is
compared with the others of the same day and model, and with what the model predicts of the customers who saw it:

    r_tk = a_k + b_t + noise,   r = (observed − predicted) / decisions,  weighted by the decisions n_tk

a is found by fitting contents and days in turn (least squares), at the level that was observed. Its posterior within the campaign is the one that
chooses (``reward_models/posterior.py``): means lean towards the campaign's as far as their counts are small.

    standing(days) -> Standing: mean, sd and probability to be the best, shape (K,)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reward_models.policies import p_best
from reward_models.posterior import ArmCounts, Prior, content_effects

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROUNDS = 60
"""Most turns of fitting; each halves what is left at least where days share contents."""
_SETTLED = 1e-7
"""Change of the effects, relative to their size, at which fitting ends."""


@dataclass(frozen=True)
class Standing:
    """K contents: reward per decision, its posterior sd, probability to be the best of those that were shown, decisions.
    All 0 of a content that was never shown: nothing is known of it."""

    mean: Floats
    sd: Floats
    best: Floats
    shown: Floats


def standing(days: Sequence[ArmCounts]) -> Standing | None:
    """From counts of shape (K,) per day and model; None where nothing was shown, or nobody did anything."""
    if not days:
        return None
    whole = np.sum([day.exposures for day in days], axis=0)
    seen = whole > 0.0
    n, sums, squares, expected = (
        np.array([getattr(day, name)[seen] for day in days])
        for name in ("exposures", "sums", "sum_squares", "expected")
    )
    if not seen.any() or not sums.any():
        return None
    shown = n.sum(axis=0)
    cell, content = np.nonzero(n)
    rate = _rates(sums - expected, n)
    apart = effects_within(cell, content, n[cell, content], rate[cell, content], n.shape[1])
    adjusted = shown * apart + shown * (sums.sum() - (shown * apart).sum()) / shown.sum()
    raw = sums.sum(axis=0)
    within = squares.sum(axis=0) - raw * _rates(raw, shown)
    counts = ArmCounts(shown, adjusted, within + adjusted * _rates(adjusted, shown), np.zeros_like(shown))
    effects = content_effects(counts, Prior(0.0))  # the level is what the counts say
    mean = effects.mean(np.zeros_like(shown))
    found = np.zeros((3, len(seen)))
    found[:, seen] = mean, effects.sd, p_best(mean, effects.sd)
    mean, sd, best = found
    return Standing(mean, sd, best, whole)


def effects_within(cell: Ints, content: Ints, n: Floats, rate: Floats, contents: int) -> Floats:
    """a_k from entries of a cell (a day, a week and segment …) and a content with n decisions and their mean ``rate``.

    Contents that share no cell, however indirectly, cannot be compared: their levels are arbitrary. Never shown: 0.
    """
    of_cell, of_content = np.bincount(cell, n), np.bincount(content, n, contents)
    effect = np.zeros(contents)
    for _ in range(_ROUNDS):
        level = _rates(np.bincount(cell, n * (rate - effect[content])), of_cell)
        moved = _rates(np.bincount(content, n * (rate - level[cell]), contents), of_content)
        change, effect = float(np.abs(moved - effect).max()), moved
        if change <= _SETTLED * float(np.abs(effect).max()):
            break
    return np.asarray(effect)


def _rates(total: npt.NDArray[Any], n: npt.NDArray[Any]) -> Floats:
    return np.asarray(np.divide(total, n, out=np.zeros(np.shape(total)), where=n > 0.0))
