"""A mean from a few contents that earned something and many that were only rated: prediction-powered intervals.

With rewards y and ratings f of n contents, and ratings f' of N others of the same kind (Angelopoulos et al. 2023, PPI;
Angelopoulos, Duchi & Zrnic 2023, PPI++):

    mean = ȳ + λ·(f̄' − f̄)             λ = Cov(y, f) / ((1 + n/N)·Var(f)), at least 0
    variance = Var(y − λ·f)/n + λ²·Var(f')/N     the first part by the jackknife

f may be on any scale, since λ brings it to that of y. A judge that knows nothing, or the contrary, gets a λ of about 0,
and the interval is the usual one of n contents: it covers whatever the judge says, because the rewards correct it. The
two sets must be of one kind (both drawn by chance from the same copy); contents of one campaign count as one
observation (``cluster``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from infra.errors import BadInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST = 5
"""Fewer labelled contents (campaigns) than this have no interval."""
_JACKKNIFE = 300
"""More than this are left out in as many blocks, which must be in no order that means something."""


@dataclass(frozen=True)
class Powered:
    """A mean with its interval, and what it would have been without ratings."""

    mean: float
    interval: tuple[float, float]
    lean: float
    """λ: what a rating counts for, in reward per point; 0 uses the rewards alone."""
    plain: float
    plain_interval: tuple[float, float]

    @property
    def saved(self) -> float:
        """Share of the outcomes that the ratings stand in for: 1 − (width / plain width)²."""
        width, plain = (high - low for low, high in (self.interval, self.plain_interval))
        return 1.0 - (width / plain) ** 2 if plain > 0.0 else 0.0


def powered_mean(
    reward: Floats,
    rating: Floats,
    others: Floats,
    *,
    cluster: Ints | None = None,
    others_cluster: Ints | None = None,
    alpha: float = 0.05,
) -> Powered:
    """Mean reward of the copy that both sets are drawn from, with a 1 − alpha interval.

    reward, rating: shape (n,); others: ratings without rewards, shape (N,). cluster: codes of what belongs together
    (campaigns); their means are then the observations. Raises :class:`BadInput` for fewer than ``LEAST`` of them.
    """
    y, f = _means(reward, cluster), _means(rating, cluster)
    g = _means(others, others_cluster)
    n = len(y)
    if n < LEAST:
        raise BadInput(f"{n} rated contents have outcomes; an interval needs {LEAST}: wait, or rate more")
    believed = 1.0 / (1.0 + n / len(g)) if len(g) else 0.0
    others_mean = float(g.mean()) if len(g) else 0.0
    mean, plain = float(_estimate(y, f, others_mean, believed)), float(y.mean())
    lean = believed * max(0.0, float(_slope(y, f)))
    variance = _jackknife(y, f, others_mean, believed) + (lean**2 * float(g.var()) / len(g) if len(g) else 0.0)
    reach = float(student.ppf(1.0 - alpha / 2.0, n - 1))
    width, plain_width = reach * float(np.sqrt(variance)), reach * float(y.std(ddof=1)) / float(np.sqrt(n))
    return Powered(mean, (mean - width, mean + width), lean, plain, (plain - plain_width, plain + plain_width))


def _estimate(y: Floats, f: Floats, others: float, believed: float) -> Floats:
    """The estimate from each row of rewards and ratings, shape (…, n) to (…)."""
    return np.asarray(y.mean(axis=-1) + believed * np.maximum(_slope(y, f), 0.0) * (others - f.mean(axis=-1)))


def _slope(y: Floats, f: Floats) -> Floats:
    """Reward per point of rating, shape (…); 0 where all ratings are alike."""
    rest = f - f.mean(axis=-1, keepdims=True)
    power = (rest**2).sum(axis=-1)
    return np.asarray(np.divide((rest * y).sum(axis=-1), power, out=np.zeros_like(power), where=power > 1e-12))


def _jackknife(y: Floats, f: Floats, others: float, believed: float) -> float:
    """Variance of the estimate over the labelled contents, λ found anew without each of them: in small sets that λ was
    fitted to the very noise it takes out is most of what the formula forgets."""
    n = len(y)
    left = np.array([np.delete(np.arange(n), out) for out in range(n)]) if n <= _JACKKNIFE else _blocks(n)
    without = _estimate(y[left], f[left], others, believed)
    return float((len(left) - 1) / len(left) * ((without - without.mean()) ** 2).sum())


def _blocks(n: int) -> Ints:
    """Indices that stay when one block of equal size goes; the few that fit no block always stay out."""
    size = n // _JACKKNIFE
    blocks = np.arange(size * _JACKKNIFE).reshape(_JACKKNIFE, size)
    return np.array([np.delete(blocks, out, axis=0).ravel() for out in range(_JACKKNIFE)])


def _means(values: Floats, cluster: Ints | None) -> Floats:
    """The mean of each cluster; the values themselves without any."""
    if cluster is None or not len(values):
        return values
    _, codes = np.unique(cluster, return_inverse=True)
    return np.asarray(np.bincount(codes, values) / np.bincount(codes))
