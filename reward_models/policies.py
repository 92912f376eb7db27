"""Policies: a score and its uncertainty per candidate become a probability per candidate.

    pmf = λ/n + (1 − λ)·p        λ = min(1, max(uniform_slice, n·floor))

p is the policy's own distribution, λ the share that is always drawn uniformly, so that every candidate has at
least the floor. Limits on shares come last (``limits.py``). A policy computes a pmf and nothing else; ``choose`` and
``draw_slate`` are the only ones that draw. Candidates are sorted by content id by the caller, so that the order of
a request changes nothing.

- uniform: p = 1/n.
- epsilon: ε uniform, the rest on the best mean, ties split equally.
- softmax: p ∝ exp(mean / (temperature · standard deviation of the means)).
- posterior: p_k = P(candidate k is the best) for independent N(mean_k, (damping·sd_k)²). damping 1 is Thompson
  sampling (Thompson 1933); less keeps closer to the means.
- top_two: half the draws of Thompson sampling, half of the best of the others: with b = P(best),
  p_k = b_k/2 + Σ_{j≠k} b_j·b_k/(1 − b_j)/2 (Russo 2016, top-two Thompson sampling with β = 1/2). It looks for the
  best content of a campaign that ends (``best_arm.py``) and pays for it while it looks.
- inverse_gap: p_k = 1/(n + γ·z_k) for all but the best mean, which gets the rest (Abe & Long 1999; SquareCB, Foster
  & Rakhlin 2020). z_k is the gap to the best in standard deviations of the difference, which fall with the
  square root of what was seen: γ·z grows as their learning rate γ_t ∝ √t, without a clock.

P(best) needs no random draws. With Φ_k the distribution functions, F = Π Φ_k is that of the maximum, and

    P(best = k) = ∫ F d(log Φ_k)

is summed over cells between quantiles of F: a cell gives ΔF to the candidates in proportion to Δ log Φ_k, which
is exact where the candidates' hazards are proportional within the cell. It is positive and sums to one by
construction, and the quantiles find a narrow candidate among wide ones by themselves. Its error is of second order
in the cells, so that half as many cells give the leading term to take away (Richardson): within 1e-4 at 128 cells,
and at 64 where there are hundreds of candidates.

With more than a few candidates the trapezoidal rule is tried first, ∫ F·φ_k/Φ_k dx on equally spaced nodes between
where F is nothing and where it is one. The integrand is analytic and vanishes at both ends, so that the error falls
faster than any power of the spacing, in which every second node is about as far from all nodes as these are from the
integral squared. It holds where the spacing is at most half of the narrowest standard deviation, every second node is
within 1e-3, and the sum within 1e-5 of one (a narrow candidate between two nodes would miss there); else the cells.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from infra.database import canonical_json
from infra.errors import BadInput
from ingestion.loops import PolicySettings
from reward_models.limits import Bounds, within

FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REVISION = 3
"""Part of every policy's version: raised whenever the same inputs would give another pmf."""

_REACH = 8.3
"""Standard deviations beyond which a normal has less than 1e-16 of its mass."""
_CELLS = 128
_LEVELS = np.linspace(0.0, 1.0, _CELLS + 1) ** 2
"""Quantiles of the maximum between the cells: closer together where F is small and log Φ steep."""
_FIRST_CUTS = 33
_WIDEST = 2.5
_CONTENDERS = 1_000
"""Of many rows, as many are looked at together: their distribution functions stay in the processor's cache."""
_HALVES = 40
"""2^-40 is less than the least probability that counts."""
_MANY = 256
"""From more candidates on half the cells are as exact: each has less of the whole."""
_NEGLIGIBLE = 1e-9
"""The maximum is never as low as where its distribution function is this; who exceeds that with less is not the best."""
_MOST_ROUNDS = 40
_FEW = 32
"""Up to so many candidates the cells cost as little as anything else."""
_NODES, _MOST_NODES = 32, 128
"""Intervals of the trapezoidal rule."""
_HIGH = 6.5
"""Standard deviations above which the largest of hundreds is next to never."""
_HALF_AS_FINE, _SUM = 1e-3, 1e-5
_NARROWEST = 1e-12
"""Least standard deviation, relative to the spread of the contenders; less is taken as certain."""
_LEAST = 1e-300


def pmf(settings: PolicySettings, mean: npt.ArrayLike, sd: npt.ArrayLike, limits: Bounds | None = None) -> FloatArray:
    """The probability of each candidate, shape (n,): sums to 1, no entry below min(floor, 1/n) but where a limit says.

    mean, sd: shape (n,), reward units, finite, sd ≥ 0, n ≥ 1. The same numbers give the same bytes.
    """
    means, sds = _checked(mean, sd)
    n = len(means)
    share = min(1.0, max(settings.uniform_slice, n * settings.floor))
    mixed = share / n + (1.0 - share) * _own(settings, means, sds)
    if limits is not None:
        return within(mixed / mixed.sum(), limits, settings.floor)
    return np.asarray(mixed / mixed.sum())


def pmfs(settings: PolicySettings, mean: FloatArray, sd: FloatArray, limits: Bounds | None = None) -> FloatArray:
    """``pmf`` of m requests with n candidates each, shape (m, n): the same bytes, in a fraction of the time.

    mean, sd: shape (m, n). limits: of the candidates, in every request.
    """
    if settings.kind != "posterior" or not len(mean):
        rows = [pmf(settings, one, width, limits) for one, width in zip(mean, sd, strict=True)]
        return np.asarray(np.reshape(rows, mean.shape), dtype=np.float64)
    _check_numbers(mean, sd)
    n = mean.shape[1]
    share = min(1.0, max(settings.uniform_slice, n * settings.floor))
    mixed = share / n + (1.0 - share) * p_best_rows(mean, settings.damping * sd)
    mixed = np.asarray(mixed / mixed.sum(axis=1, keepdims=True))
    if limits is not None:
        return np.array([within(row, limits, settings.floor) for row in mixed])
    return mixed


def p_best_rows(mean: FloatArray, sd: FloatArray) -> FloatArray:
    """``p_best`` of each row, shape (m, n): the same bytes. Rows with equally many contenders go together, so that every
    sum has the same terms in the same order; rows with many of them go alone."""
    contend = mean + _REACH * sd >= np.max(mean - _REACH * sd, axis=1, keepdims=True)
    centre = mean - mean.max(axis=1, keepdims=True)
    probability, count = np.zeros(mean.shape), contend.sum(axis=1)
    scale = np.maximum(np.where(contend, sd, 0.0).max(axis=1), -np.where(contend, centre, 0.0).min(axis=1))
    probability[scale == 0.0] = (contend / count[:, None])[scale == 0.0]
    for row in np.flatnonzero((scale > 0.0) & (count > _FEW)):
        probability[row] = p_best(mean[row], sd[row])
    for size in np.unique(count[count <= _FEW]):
        alike = np.flatnonzero((count == size) & (scale > 0.0))
        for rows in np.array_split(alike, 1 + len(alike) * size // _CONTENDERS):
            of = np.nonzero(contend[rows])[1].reshape(len(rows), size)
            unit, at = scale[rows, None], rows[:, None]
            _settle(probability, rows, of, centre[at, of] / unit, np.maximum(sd[at, of] / unit, _NARROWEST))
    return probability


def p_best(mean: FloatArray, sd: FloatArray) -> FloatArray:
    """P(candidate k is the largest) for independent N(mean, sd²), shape (n,); exact ties are split equally."""
    probability = np.zeros(len(mean))
    contenders = np.flatnonzero(mean + _REACH * sd >= np.max(mean - _REACH * sd))
    centre, width = mean[contenders] - mean.max(), sd[contenders]
    scale = max(float(width.max()), float(np.ptp(centre)))
    if scale == 0.0:
        probability[contenders] = 1.0 / len(contenders)
        return probability
    probability[contenders] = _p_best_of_contenders(centre / scale, np.maximum(width / scale, _NARROWEST))
    return probability


def choose(probabilities: FloatArray, u: float) -> int:
    """The index drawn by ``u`` in [0, 1), by the inverse distribution function; never one of probability 0."""
    cumulative = np.cumsum(probabilities)
    index = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return min(index, int(np.flatnonzero(probabilities)[-1]))


def draw_slate(
    probabilities: FloatArray,
    uniforms: Sequence[float],
    slots: int,
    must: Sequence[int] = (),
    order: Sequence[int | None] = (),
) -> list[tuple[int, float]]:
    """Up to ``slots`` different indices, each with its propensity given those above (Plackett-Luce).

    The product is the list's propensity (Plackett 1975). Where all remaining candidates have probability 0, as
    below a named control, they are drawn uniformly. ``must``: of the slate for certain, so from the position on where
    no more places are left than of these, only they are drawn. ``order``: what stands at a position for certain.
    """
    left = np.array(probabilities, dtype=np.float64)
    open_ = np.ones(len(left), dtype=bool)
    waiting, count = set(must), min(slots, len(left))
    slate = []
    for position in range(count):
        allowed = open_ if not waiting or len(waiting) < count - position else open_ & _only(waiting, len(left))
        conditional = _conditional(left, allowed, order[position] if position < len(order) else None)
        index = choose(conditional, uniforms[position])
        slate.append((index, float(conditional[index])))
        left[index], open_[index] = 0.0, False
        waiting.discard(index)
    return slate


def _conditional(left: FloatArray, allowed: npt.NDArray[np.bool_], certain: int | None) -> FloatArray:
    """What the next position is drawn from."""
    if certain is not None and allowed[certain]:
        return _only({certain}, len(left)).astype(np.float64)
    weights = left * allowed
    return np.asarray(weights / weights.sum() if weights.sum() > 0.0 else allowed / allowed.sum())


def _only(indices: set[int], n: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(n, dtype=np.bool_)
    found[list(indices)] = True
    return found


def baseline_pmf(baseline: Mapping[str, Any], content_ids: Sequence[str]) -> FloatArray:
    """The campaign's frozen baseline restricted to these candidates, shape (n,).

    baseline: ``{"content_ids": [...], "weights": [...]}``. Contents added since it was frozen get 0; if none of the
    candidates is in it (all excluded for this unit), it is uniform.
    """
    weight = dict(zip(baseline["content_ids"], baseline["weights"], strict=True))
    weights = np.array([float(weight.get(content_id, 0.0)) for content_id in content_ids])
    if not len(weights):
        raise BadInput("There is no candidate to choose from; approve contents or exclude fewer")
    return weights / weights.sum() if weights.sum() > 0.0 else np.full(len(weights), 1.0 / len(weights))


def in_force(sealed: PolicySettings, own: PolicySettings) -> PolicySettings:
    """The settings a version serves with: those it was judged under. A higher floor of the loop holds at once, because
    it only makes choices more even; every other change waits for a version that passes the gate with it."""
    return sealed.model_copy(update={"floor": max(sealed.floor, own.floor)})


def policy_version(settings: PolicySettings) -> str:
    """``kind@hash``: the same settings under the same code have the same version."""
    foreign = {"gamma"} if settings.kind != "inverse_gap" else set()
    document = settings.model_dump(mode="json", exclude=foreign) | {"revision": REVISION}
    return f"{settings.kind}@{hashlib.sha256(canonical_json(document)).hexdigest()[:8]}"


def _checked(mean: npt.ArrayLike, sd: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    means, sds = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    if means.ndim != 1 or means.shape != sds.shape or not len(means):
        raise BadInput(f"A policy needs one mean and one sd per candidate; got shapes {means.shape} and {sds.shape}")
    _check_numbers(means, sds)
    return means, sds


def _check_numbers(mean: FloatArray, sd: FloatArray) -> None:
    if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd >= 0.0).all()):
        raise BadInput("A policy needs finite means and standard deviations of at least 0")


def _own(settings: PolicySettings, mean: FloatArray, sd: FloatArray) -> FloatArray:
    match settings.kind:
        case "posterior":
            return p_best(mean, settings.damping * sd)
        case "top_two":
            return _top_two(p_best(mean, sd))
        case "inverse_gap":
            return _inverse_gap(mean, sd, settings.gamma)
        case "softmax":
            return _softmax(mean, settings.temperature)
        case "epsilon":
            return settings.epsilon / len(mean) + (1.0 - settings.epsilon) * _greedy(mean)
        case "uniform":
            return np.full(len(mean), 1.0 / len(mean))


def _greedy(mean: FloatArray) -> FloatArray:
    best = mean == mean.max()
    return np.asarray(best / best.sum())


def _top_two(best: FloatArray) -> FloatArray:
    """The challenger is the best of a draw in which the leader j is not: b_k/(1 − b_j), summed over the leaders."""
    if len(best) == 1:
        return best
    padded = np.concatenate([[0.0], best, [0.0]])
    others = np.cumsum(padded)[:-2] + np.cumsum(padded[::-1])[-3::-1]  # 1 − b, without cancellation
    if not (others > 0.0).all():  # one content is the best for certain: all others are as likely to be second
        return 0.5 * best + 0.5 * (1.0 - best) / (len(best) - 1)
    odds = best / others
    return np.asarray(0.5 * best + 0.5 * best * (odds.sum() - odds))


def _inverse_gap(mean: FloatArray, sd: FloatArray, gamma: float) -> FloatArray:
    """Ties for the best mean share what the others leave; the most uncertain of them measures the gaps."""
    best = mean == mean.max()
    gap, width = mean.max() - mean, np.hypot(sd, sd[best].max())
    z = np.divide(gap, width, out=np.full(len(mean), np.inf), where=width > 0.0)
    p = np.where(best, 0.0, 1.0 / (len(mean) + gamma * z))
    p[best] = (1.0 - p.sum()) / best.sum()
    return np.asarray(p)


def _softmax(mean: FloatArray, temperature: float) -> FloatArray:
    below = mean - mean.max()
    reach = float(-below.min())
    if reach == 0.0:
        return np.full(len(mean), 1.0 / len(mean))
    relative = below / reach
    weights = np.exp(relative / (temperature * relative.std()))
    return np.asarray(weights / weights.sum())


def _p_best_of_contenders(mean: FloatArray, sd: FloatArray) -> FloatArray:
    if len(mean) > _FEW:
        found = _by_trapezoids(mean, sd)
        if found is not None:
            return found
    likely, cdf = _cdf_at_quantiles_of_maximum(mean, sd)
    of_maximum, logs = np.multiply.reduce(cdf, axis=0), np.log(np.maximum(cdf, _LEAST))
    coarse, fine = _shares(of_maximum[::2], logs[:, ::2]), _shares(of_maximum, logs)
    better = np.maximum((4.0 * fine - coarse) / 3.0, 0.0)
    probability = np.zeros(len(mean))
    probability[likely] = better / better.sum()
    return probability


def _by_trapezoids(mean: FloatArray, sd: FloatArray) -> FloatArray | None:
    """∫ F·φ_k/Φ_k by equally spaced nodes; null where they would have to be too many."""
    low, high = _where_few_decide(mean, sd), float(np.max(mean + _HIGH * sd))
    likely = np.flatnonzero(mean + _HIGH * sd > low)
    centre, width = mean[likely, None], sd[likely, None]
    intervals = max(_NODES, 2 * int(np.ceil((high - low) / float(width.min()))))
    if intervals > _MOST_NODES:
        return None
    nodes = np.linspace(low, high, intervals + 1)
    z = (nodes - centre) / width
    cdf = np.asarray(ndtr(z))
    of_maximum = np.multiply.reduce(cdf, axis=0) * ((high - low) / intervals / np.sqrt(2.0 * np.pi))
    z *= z
    z *= -0.5
    parts = np.exp(z, out=z)
    parts /= np.maximum(cdf, _LEAST, out=cdf)
    parts *= of_maximum
    fine, coarse = parts.sum(axis=1) / width[:, 0], 2.0 * parts[:, ::2].sum(axis=1) / width[:, 0]
    if abs(fine.sum() - 1.0) > _SUM or np.abs(fine - coarse).max() > _HALF_AS_FINE:
        return None
    probability = np.zeros(len(mean))
    probability[likely] = fine / fine.sum()
    return probability


def _where_few_decide(mean: FloatArray, sd: FloatArray) -> float:
    """A place below which the maximum next to never is: the distribution of a few's maximum is above that of all's."""
    few = np.argpartition(mean + sd, -_FEW)[-_FEW:]
    cuts = np.linspace(np.max(mean - _REACH * sd), np.max(mean + _HIGH * sd), _FIRST_CUTS)
    of_few = np.multiply.reduce(ndtr((cuts - mean[few, None]) / sd[few, None]), axis=0)
    return float(cuts[max(0, int(np.searchsorted(of_few, _NEGLIGIBLE)) - 1)])


def _shares(of_maximum: FloatArray, logs: FloatArray) -> FloatArray:
    mass, hazard = np.diff(of_maximum), np.diff(logs, axis=1)
    total = hazard.sum(axis=0)
    per_hazard = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0.0)
    return np.asarray((hazard * per_hazard).sum(axis=1))  # no BLAS: the same bytes on every machine


def _cdf_at_quantiles_of_maximum(mean: FloatArray, sd: FloatArray) -> tuple[Ints, FloatArray]:
    """Who may be the best, and their distribution functions where F is near the levels, shape (n, cells + 1)."""
    likely = np.arange(len(mean))
    low, high = np.max(mean - _REACH * sd), np.max(mean + _REACH * sd)
    if len(mean) > _HALVES:  # below the means of so many the maximum is next to never
        low = max(low, np.partition(mean, -_HALVES)[-_HALVES])
    cuts = np.linspace(low, high, _FIRST_CUTS)
    for _ in range(_MOST_ROUNDS):
        cdf = np.asarray(ndtr((cuts[None, :] - mean[likely, None]) / sd[likely, None]))
        of_maximum = np.multiply.reduce(cdf, axis=0)
        levels = _LEVELS if len(likely) <= _MANY else _LEVELS[::2]
        if np.diff(of_maximum).max() <= _WIDEST / (len(levels) - 1):
            break
        lowest = max(0, int(np.searchsorted(of_maximum, _NEGLIGIBLE)) - 1)
        likely = likely[cdf[:, lowest] < 1.0 - _NEGLIGIBLE]
        cuts = np.interp(levels, of_maximum, cuts)
    return likely, cdf


def _settle(probability: FloatArray, rows: Ints, of: Ints, mean: FloatArray, sd: FloatArray) -> None:
    """``_p_best_of_contenders`` of rows with equally many contenders, into ``probability``. of: who they are, shape
    (m, contenders), like mean and sd."""
    low, high = np.max(mean - _REACH * sd, axis=1), np.max(mean + _REACH * sd, axis=1)
    waiting = [_Search(rows, of, mean, sd, np.linspace(low, high, _FIRST_CUTS, axis=1))]
    for _ in range(_MOST_ROUNDS):
        waiting = [part for search in waiting for part in _round(probability, search)]
        if not waiting:
            return
    raise ArithmeticError("the quantiles of a maximum were not found")


class _Search(NamedTuple):
    """Rows with equally many contenders, and where their distribution functions are looked at."""

    rows: Ints
    of: Ints
    mean: FloatArray
    sd: FloatArray
    cuts: FloatArray


def _round(probability: FloatArray, search: _Search) -> Iterator[_Search]:
    """Write the probabilities of the rows that are done; the others go on, by how many contenders they have left."""
    rows, of, mean, sd, cuts = search
    cdf = np.asarray(ndtr((cuts[:, None, :] - mean[:, :, None]) / sd[:, :, None]))
    of_maximum = np.multiply.reduce(cdf, axis=1)
    done = np.diff(of_maximum, axis=1).max(axis=1) <= _WIDEST / _CELLS
    if done.any():
        logs = np.log(np.maximum(cdf[done], _LEAST))
        fine, coarse = (_shares_of_rows(of_maximum[done][:, ::step], logs[:, :, ::step]) for step in (1, 2))
        better = np.maximum((4.0 * fine - coarse) / 3.0, 0.0)
        probability[rows[done]] = 0.0
        probability[rows[done][:, None], of[done]] = better / better.sum(axis=1, keepdims=True)
    going = np.flatnonzero(~done)
    lowest = np.array([max(0, int(np.searchsorted(of_maximum[row], _NEGLIGIBLE)) - 1) for row in going], dtype=np.int64)
    likely = cdf[going, :, lowest] < 1.0 - _NEGLIGIBLE
    count = likely.sum(axis=1)
    for size in np.unique(count):
        alike = count == size
        some, keep = going[alike], likely[alike]
        at = some[:, None], np.nonzero(keep)[1].reshape(len(some), size)
        cuts_of = np.array([np.interp(_LEVELS, of_maximum[row], cuts[row]) for row in some])
        yield _Search(rows[some], of[at], mean[at], sd[at], cuts_of)


def _shares_of_rows(of_maximum: FloatArray, logs: FloatArray) -> FloatArray:
    mass, hazard = np.diff(of_maximum, axis=1), np.diff(logs, axis=2)
    total = hazard.sum(axis=1)
    per_hazard = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0.0)
    return np.asarray((hazard * per_hazard[:, None, :]).sum(axis=2))
