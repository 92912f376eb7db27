"""Folds that keep together what belongs together, so that nothing is judged by what it was fitted on.

Rows that share a campaign *or* a text are one component: a headline reused in a second campaign would leak its
outcome otherwise. Components are dealt to folds, largest first, each to the fold that holds least; after the largest
``ONE_BY_ONE``, whose rest is small, folds are filled up one after the other.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]

ONE_BY_ONE = 50_000
"""Groups that are dealt one at a time."""


def codes_of(values: Sequence[Hashable]) -> Ints:
    """0, 1, 2 … for the distinct values in order of first appearance, shape (n,)."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), dtype=np.int64, count=len(values))


def components(first: Sequence[Hashable], second: Sequence[Hashable]) -> Ints:
    """Component of each row, shape (n,): rows are linked by an equal ``first`` or an equal ``second``."""
    if not len(first):
        return np.zeros(0, dtype=np.int64)
    left, right = codes_of(first), codes_of(second)
    offset = int(left.max()) + 1
    nodes = offset + int(right.max()) + 1
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right + offset)), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    return codes_of(labels[left].tolist())


def deal(groups: Ints, folds: int, seed: int) -> Ints:
    """Fold of each row, shape (n,); a group is never split. Equal sizes are dealt in an order set by ``seed``."""
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    sizes = np.bincount(groups)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    load = np.zeros(folds, dtype=np.int64)
    fold_of = np.zeros(len(sizes), dtype=np.int64)
    for group in order[:ONE_BY_ONE]:
        fold_of[group] = int(np.argmin(load))
        load[fold_of[group]] += sizes[group]
    rest = order[ONE_BY_ONE:]
    room = np.cumsum(np.maximum(sizes.sum() / folds - load, 0.0))
    fold_of[rest] = np.minimum(np.searchsorted(room, np.cumsum(sizes[rest]) - sizes[rest] / 2), folds - 1)
    return fold_of[groups]
