"""Means with intervals when rows come in groups that are not independent of each other.

    mean_of(values, groups) -> Measured      Σ value / n, 95 % percentile bootstrap over groups, a fixed seed

A group is drawn whole, so a question asked five times counts as one question asked five times. For a paired comparison give the
differences.
"""

import numpy as np
import numpy.typing as npt

from reward_models.ranking import Measured

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS = 2_000
_SEED = 2027


def mean_of(values: Floats, groups: Ints) -> Measured:
    """The mean of values, shape (n,), and its interval over the groups of code ``groups``, shape (n,); n above 0."""
    _, code = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(code, values), np.bincount(code).astype(np.float64)
    random = np.random.default_rng(_SEED)
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        picked = np.bincount(random.integers(0, len(sums), len(sums)), minlength=len(sums))
        drawn[draw] = (picked @ sums) / (picked @ sizes)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(float(values.mean()), float(low), float(high))


def standard_error(values: Floats, groups: Ints) -> float:
    """Of the mean, from the groups' sums: √(Σ_g (Σ_{i∈g} (v_i − v̄))²) / n."""
    _, code = np.unique(groups, return_inverse=True)
    rest = np.bincount(code, values - values.mean())
    return float(np.sqrt(rest @ rest)) / len(values)
