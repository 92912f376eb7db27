"""A send of N e-mails planned ahead of time: how many go out as a test, in which shares, before the rest follows.

1. the shares of a test by the policy, apportioned to whole e-mails (largest remainders, Hamilton's method)
2. the size T of the test that earns most in the whole send
3. after the wait the rest goes by the policy again, which by then knows what the test has taught

    value(T) = T·Σ_k p_k·m_k + (N − T)·E[max_k M_k],    M_k ~ N(m_k, s_k⁴ / (s_k² + σ²/(T·p_k)))

m and s are posterior mean and standard deviation of a content's reward, σ² the variance of one decision's reward, p
the shares. M_k is what its posterior mean will be after the test: nobody knows it now, its spread is known (Raiffa &
Schlaifer 1961). This is Test & Roll (Feit & Berman 2019, eq. 6) with any number of contents, what is known already, and
unequal shares. Some of the rest is explored again, which is left out: the value of a plan is slightly optimistic.

E[max] = b − ∫_a^b Π_k Φ_k(x) dx over a range that holds the mass, by the trapezoid rule.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from infra.errors import BadInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SIZES = 200
"""Sizes of the test that are tried, evenly spaced in their square root: small tests differ most."""
_POINTS = 801
_REACH = 8.0
"""Standard deviations beyond which there is no mass to speak of."""


@dataclass(frozen=True)
class Plan:
    """``test``: e-mails of each content in the test, shape (K,); ``rest``: e-mails after it. Values are per e-mail.

    ``value``: of this plan; ``at_once``: of sending all to the content that leads now; ``even``: of an even split.
    """

    test: Ints
    rest: int
    value: float
    at_once: float
    even: float


def plan(mean: Floats, sd: Floats, shares: Floats, noise: float, emails: int) -> Plan:
    """The test that earns most in a send of ``emails``; without anything to learn there is none.

    mean, sd, shares: shape (K,), reward units; noise: σ² > 0. Raises :class:`BadInput` for a send without e-mails.
    """
    if emails < 1 or not len(mean):
        raise BadInput("A plan needs at least one e-mail and one content")
    sizes = np.unique(np.rint(emails * np.linspace(0.0, 1.0, _SIZES) ** 2).astype(np.int64))
    values = [value_of(mean, sd, shares, noise, emails, int(size)) for size in sizes]
    size = int(sizes[int(np.argmax(values))])
    at_once = float(mean.max())
    return Plan(apportion(shares, size), emails - size, max(values), at_once, float(mean.mean()))


def value_of(mean: Floats, sd: Floats, shares: Floats, noise: float, emails: int, size: int) -> float:
    """Expected reward per e-mail when ``size`` of them go out as a test in these shares, the rest to its winner."""
    variance = sd**2
    seen = size * shares / noise
    spread = np.sqrt(variance * variance * seen / (1.0 + variance * seen))
    return float((size * (shares @ mean) + (emails - size) * expected_maximum(mean, spread)) / emails)


def expected_maximum(mean: Floats, sd: Floats) -> float:
    """E[max] of independent N(mean, sd²), shape (K,) each; sd may be 0."""
    low, high = float((mean - _REACH * sd).max()), float((mean + _REACH * sd).max())
    if high <= low:
        return float(mean.max())
    x = np.linspace(low, high, _POINTS)
    width = np.maximum(sd, 1e-12 * (high - low))
    below = ndtr((x - mean[:, None]) / width[:, None]).prod(axis=0)
    return high - float(np.trapezoid(below, x))


def apportion(shares: Floats, emails: int) -> Ints:
    """Whole numbers that sum to ``emails``, each within one of its share; ties go to the first."""
    exact = shares / shares.sum() * emails
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: emails - int(whole.sum())]] += 1
    return np.asarray(whole)
