"""Folds that keep together what belongs together, so that nothing is judged by what it was fitted on.

Rows that share a campaign *or* a text are one component: a headline reused in a second campaign would leak its
outcome otherwise. Components are dealt to folds, largest first, each to the fold that holds least.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]


def codes_of(values: Sequence[Hashable]) -> Ints:
    """0, 1, 2 … for the distinct values in order of first appearance, shape (n,)."""
    distinct = dict.fromkeys(values)
    place = dict(zip(distinct, range(len(distinct)), strict=True))
    return np.fromiter(map(place.__getitem__, values), dtype=np.int64, count=len(values))


def codes_of_texts(values: Sequence[str]) -> Ints:
    """:func:`codes_of` of a million texts in a tenth of the time."""
    return np.asarray(pa.array(values, pa.string()).dictionary_encode().indices.to_numpy(), dtype=np.int64)


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
    ends = np.flatnonzero(np.diff(sizes[order], append=-1)) + 1
    for alike in np.split(order, ends[:-1]):
        size = int(sizes[alike[0]])
        fold_of[alike] = _least_loaded(load, size, len(alike))
        load += size * np.bincount(fold_of[alike], minlength=folds)
    return fold_of[groups]


def _least_loaded(load: Ints, size: int, count: int) -> Ints:
    """Folds that ``count`` groups of one size go to, each to the fold that holds least by then, shape (count,).

    A fold takes its k-th when it holds ``load + k · size``: the first ``count`` of these levels, in order.
    """
    if size == 0:
        return np.zeros(count, dtype=np.int64)
    level = (int(load.sum()) + count * size) / len(load)
    turns = np.maximum(np.ceil((level - load) / size), 0).astype(np.int64) + 1
    fold = np.repeat(np.arange(len(load)), turns)
    turn = np.arange(len(fold)) - np.repeat(np.cumsum(turns) - turns, turns)
    return fold[np.lexsort((fold, load[fold] + turn * size))[:count]]
