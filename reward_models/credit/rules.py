"""Rules that share a purchase among the sends before it by place and time alone: nothing is learned.

    last touch       all to the last
    linear           the same to each
    time decay       2^(−age / half-life), age from the send to the purchase
    position based   40 % to the first, 40 % to the last, 20 % among those between; two share evenly

Each takes the touches of one path, oldest first, and the time of the purchase, and answers shares, shape (n,), that sum to 1.
They say how a habit of reporting would see it, not what a send caused: for that there is the holdout (``lift.py``).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reward_models.credit.paths import Touch

Floats = npt.NDArray[np.float64]

ENDS = 0.4
"""Share of the first and of the last under the position-based rule."""


def last_touch(touches: Sequence[Touch], bought_at: int) -> Floats:  # noqa: ARG001 (every rule is asked alike)
    """All to the last."""
    shares = np.zeros(len(touches))
    shares[-1] = 1.0
    return shares


def linear(touches: Sequence[Touch], bought_at: int) -> Floats:  # noqa: ARG001 (every rule is asked alike)
    """The same to each."""
    return np.full(len(touches), 1.0 / len(touches))


def time_decay(touches: Sequence[Touch], bought_at: int, half_life: int) -> Floats:
    """Half as much for each half-life (microseconds) that a send lies further back."""
    back = np.array([bought_at - touch.at for touch in touches], dtype=np.float64) / half_life
    weights = np.exp2(back.min() - back)
    return np.asarray(weights / weights.sum())


def position_based(touches: Sequence[Touch], bought_at: int) -> Floats:  # noqa: ARG001 (every rule is asked alike)
    """Most to the first and the last."""
    n = len(touches)
    if n <= 2:
        return np.full(n, 1.0 / n)
    shares = np.full(n, (1.0 - 2.0 * ENDS) / (n - 2))
    shares[[0, -1]] = ENDS
    return shares
