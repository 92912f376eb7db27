"""Slopes that contents share and slopes of their own, fitted together: a linear mixed model with K contents.

    y_i = z_i'·(B·f_k + u_k) + ε_i,   ε ~ N(0, σ²)     z: context, f: features of content k, both beginning with 1

B (D × W) is shared, u_k (D) is the content's own. Their coefficients come in groups (a constant, contexts as they
are, bent columns; alone or times features), each group ~ N(0, v_g·σ²/s_g): s_g is the mean squared size of its
regressors, so that v_g is what the group explains a priori, relative to the noise.

1. sums: per content z'z and z'y
2. given v: u_k is eliminated content by content, B is solved from what is left (Schur complement), σ² is integrated out
3. v: each group in turn to where the evidence is largest, by factors of ten (MacKay 1992), down to nothing: what contexts
   do not tell is left out

3 takes some twenty solutions of K·D³ + (D·W)³ steps; the caller bounds them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONSTANT, STRAIGHT, BENT = range(3)
"""Kinds of columns of z."""
_SHARED, _WITH_FEATURES, _OWN = 0, 3, 6
"""First group of each place; the kind is added. Bent columns times features are left out."""
_GROUPS = 9
_FIRST = np.array([0.1, 0.03, 0.03, 0.03, 0.03, 0.0, 0.03, 0.03, 0.03])
"""Where the search begins. The shared constant stays: y has mean 0."""
_SEARCHED = (1, 2, 3, 4, 6, 7, 8)
_STEP = 10.0
_LEAST, _MOST = 1e-5, 10.0
_PSEUDO = 10.0
"""Decisions that the variance of y counts for in what is left of it."""


@dataclass(frozen=True)
class Slopes:
    """Posterior means and covariances: ``shared`` (D, W) and (D, W, D, W); ``own`` (K, D) and, given the shared ones,
    (K, D, D)."""

    shared: Floats
    shared_covariance: Floats
    own: Floats
    own_covariance: Floats


@dataclass(frozen=True)
class _Sums:
    """Of the S contents that were shown."""

    gram: Floats
    """(S, D, D)"""
    pull: Floats
    """(S, D)"""
    f: Floats
    """(S, W)"""
    total: float
    """Σ y²."""
    n: int
    shared_group: Ints
    """(D, W)"""
    own_group: Ints
    """(D,)"""
    size: Floats
    """s of each group."""


@dataclass(frozen=True)
class _Solved:
    evidence: float
    noise: float
    own: Floats
    """Covariance of each u_k given B, over σ², (S, D, D)."""
    live: Ints
    """Shared coefficients that may be other than 0, (s,)."""
    root: Floats
    """Their prior standard deviations over σ, (s,)."""
    inner: Floats
    """Their precision in units of the prior, (s, s)."""
    shared: Floats
    """Their posterior means, (s,)."""


def fit_slopes(z: Floats, kind: Ints, content: Ints, y: Floats, f: Floats) -> Slopes:
    """The posterior from n decisions. z: (n, D), its first column 1; kind: of its columns, (D,); content: index, (n,);
    y: (n,), mean 0; f: (K, W), its first column 1."""
    seen, place = np.unique(content, return_inverse=True)
    sums = _sums(z, kind, place, y, f[seen])
    explained = _most_evident(sums)
    solved = _solve(sums, explained)
    (d, width), k = sums.shared_group.shape, len(f)
    shared, covariance = np.zeros(d * width), np.zeros((d * width, d * width))
    shared[solved.live] = solved.shared
    covariance[np.ix_(solved.live, solved.live)] = (
        solved.noise * np.linalg.inv(solved.inner) * solved.root[:, None] * solved.root
    )
    shared = shared.reshape(d, width)
    left = sums.pull - np.einsum("kij,kj->ki", sums.gram, sums.f @ shared.T)
    own, own_covariance = np.zeros((k, d)), np.zeros((k, d, d))
    own_covariance[:] = np.diag(solved.noise * (explained / sums.size)[sums.own_group])
    own[seen] = np.einsum("kij,kj->ki", solved.own, left)
    own_covariance[seen] = solved.noise * solved.own
    return Slopes(shared, covariance.reshape(d, width, d, width), own, own_covariance)


def _sums(z: Floats, kind: Ints, place: Ints, y: Floats, f: Floats) -> _Sums:
    d, contents = z.shape[1], len(f)
    gram, pull = np.zeros((contents, d, d)), np.zeros((contents, d))
    for k in range(contents):
        mine = z[place == k]
        gram[k], pull[k] = mine.T @ mine, mine.T @ y[place == k]
    group = np.where(np.arange(f.shape[1]) > 0, _WITH_FEATURES, _SHARED) + kind[:, None]
    of_kind = np.array([(z[:, kind == one] ** 2).sum(axis=1).mean() for one in (CONSTANT, STRAIGHT, BENT)])
    of_features = (f[:, 1:] ** 2).sum(axis=1).mean()
    size = np.concatenate([of_kind, of_kind * of_features, of_kind])
    return _Sums(gram, pull, f, float(y @ y), len(y), group, _OWN + kind, np.where(size > 0.0, size, 1.0))


def _most_evident(sums: _Sums) -> Floats:
    """v of the groups, by coordinates."""
    present = np.isin(np.arange(_GROUPS), np.concatenate([sums.shared_group.ravel(), sums.own_group]))
    explained = np.where(present, _FIRST, 0.0)
    best = _solve(sums, explained).evidence
    for group in (one for one in _SEARCHED if explained[one] > 0.0):
        for factor in (_STEP, 1.0 / _STEP):
            before = explained[group]
            while True:
                tried = explained.copy()
                tried[group] = min(max(explained[group] * factor, _LEAST), _MOST)
                evidence = _solve(sums, tried).evidence if tried[group] != explained[group] else -np.inf
                if evidence <= best:
                    break
                explained, best = tried, evidence
            if explained[group] != before:
                break
    return explained


def _solve(sums: _Sums, explained: Floats) -> _Solved:
    prior = explained / sums.size
    own_root, root = np.sqrt(prior[sums.own_group]), np.sqrt(prior[sums.shared_group]).ravel()
    live = np.flatnonzero(root)
    root = root[live]
    inner = np.eye(len(own_root)) + own_root[:, None] * sums.gram * own_root
    own = np.linalg.inv(inner) * own_root[:, None] * own_root
    taken = sums.gram @ own
    gram = (sums.gram - taken @ sums.gram).reshape(len(own), -1)
    pairs = (sums.f[:, :, None] * sums.f[:, None, :]).reshape(len(own), -1)
    (d, width), pull = sums.shared_group.shape, sums.pull - np.einsum("kij,kj->ki", taken, sums.pull)
    between = (gram.T @ pairs).reshape(d, d, width, width).transpose(0, 2, 1, 3).reshape(d * width, d * width)
    outer = np.eye(len(live)) + root[:, None] * between[np.ix_(live, live)] * root
    pulled = root * (pull.T @ sums.f).ravel()[live]
    scaled = np.linalg.solve(outer, pulled)
    fitted = float((np.einsum("kij,kj->ki", own, sums.pull) * sums.pull).sum() + pulled @ scaled)
    noise = (_PSEUDO * sums.total / sums.n + max(sums.total - fitted, 1e-9 * sums.total)) / (_PSEUDO + sums.n)
    logs = np.linalg.slogdet(inner)[1].sum() + np.linalg.slogdet(outer)[1]
    evidence = -0.5 * ((_PSEUDO + sums.n) * np.log(noise) + float(logs))
    return _Solved(evidence, noise, np.asarray(own), live, root, np.asarray(outer), np.asarray(root * scaled))
