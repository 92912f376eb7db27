"""Removal effect: how many purchases would be lost if a campaign had never been sent, in a Markov chain of sends.

States are the start, each campaign, a purchase and the end without one; a step's probability is how often it was taken.
With P(j → k) of campaigns and P(j → bought),

    x_j = P(j → bought) + Σ_k P(j → k)·x_k                 chance of a purchase from j on
    RE_j = 1 − x_start(without j) / x_start                without j: every step into j ends without a purchase

Source: Anderl, Becker, von Wangenheim & Schumann 2016, first order. It takes the paths for causes: a campaign that is sent to
those who buy anyway looks as if it made them.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from reward_models.credit.paths import Path

Floats = npt.NDArray[np.float64]


def removal_effects(paths: Iterable[Path]) -> dict[str, float]:
    """RE of each campaign, in [0, 1]; 0 for all where nobody bought."""
    names, steps, bought = _counted(paths)
    total = steps.sum(axis=1) + bought
    # steps: from each state to each campaign; what is missing to the total ended without a purchase
    to = steps[:, :-1] / np.maximum(total, 1.0)[:, None]
    sold = bought[:, None] / np.maximum(total, 1.0)[:, None]
    whole = _chance(to, sold[:, 0], ())
    return {
        name: 1.0 - _chance(to, sold[:, 0], (place,)) / whole if whole > 0.0 else 0.0
        for place, name in enumerate(names)
    }


def _chance(to: Floats, sold: Floats, removed: tuple[int, ...]) -> float:
    """x of the start, the last state, when steps into the removed campaigns lead nowhere."""
    kept = to.copy()
    kept[:, list(removed)] = 0.0
    n = kept.shape[1]
    inside = np.linalg.solve(np.eye(n) - kept[:n], sold[:n])
    return float(sold[n] + kept[n] @ inside)


def _counted(paths: Iterable[Path]) -> tuple[list[str], Floats, Floats]:
    """Names; steps from each campaign, and last from the start, to each campaign and, last, to the end, (n + 1, n + 1);
    steps to a purchase, (n + 1,)."""
    counts: dict[tuple[str | None, str | None], int] = {}
    bought: dict[str | None, int] = {}
    for path in paths:
        before: str | None = None
        for key in path.keys:
            counts[before, key] = counts.get((before, key), 0) + 1
            before = key
        if path.bought:
            bought[before] = bought.get(before, 0) + 1
        else:
            counts[before, None] = counts.get((before, None), 0) + 1
    names = sorted({key for _, key in counts if key is not None})
    place: Mapping[str | None, int] = {**{name: at for at, name in enumerate(names)}, None: len(names)}
    steps, sold = np.zeros((len(names) + 1, len(names) + 1)), np.zeros(len(names) + 1)
    for (first, then), count in counts.items():
        steps[place[first], place[then]] += count
    for last, count in bought.items():
        sold[place[last]] += count
    return names, steps, sold
