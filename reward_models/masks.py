"""Fast exact scores: a tree's exit leaf is the lowest set bit of an AND, and the AND splits.

Number the leaves of a tree from left to right. An inner node whose test fails rules out the leaves of its left subtree;
the AND of one bit mask per failing node leaves the exit leaf as its lowest set bit (QuickScorer: Lucchese et al., SIGIR
2015). A row is a context part, known per request, and a content part, known before (``features.assemble``), and a node
looks at one feature: so the AND of the content's nodes is made once per content, that of the context's nodes once per
request, and one AND per content and tree joins them.

Steps of ``read_masks``: 1 parse the trees, 2 number the leaves, 3 one mask per node, 4 sort the trees: those that look
at contents only are a number per content, those that look at the context only a number per request; the others are
*mixed*. The context's half is looked up by the bins of its values (``bins.py``).

    read_masks(text, context) -> MaskedTrees | None       None: a kind of tree that this cannot represent
    trees.contents(rows) -> ContentMasks                   once per content, keep it
    trees.score(row, masks) -> (k,)                        one context with k contents

Scores equal ``Booster.predict`` up to the order of a sum of doubles. Missing values, zero as missing and categories
decide as in LightGBM 4 (``include/LightGBM/tree.h``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from reward_models.bins import ZERO, Bins, Group, Kind, read_bins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[Any]
"""Masks: 32 bits, or 64 where a tree has more leaves."""

MOST_LEAVES = 64
"""A mask is one machine word."""

_MASKS = 40_000
"""Of many contexts, as many masks are looked at together: they stay in the processor's cache."""

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_ZERO_IS_MISSING = 1


@dataclass(frozen=True)
class ContentMasks:
    """k contents: ``bits`` of their mixed trees, shape (k, m), and ``base``, the sum of their own trees, shape (k,)."""

    bits: Bits
    base: Floats

    def take(self, index: Sequence[int] | Ints) -> "ContentMasks":
        """Some of the contents, in this order."""
        return ContentMasks(self.bits[index], self.base[index])


def join_masks(parts: Sequence[ContentMasks]) -> ContentMasks:
    """The contents of all parts, one after the other."""
    return ContentMasks(np.concatenate([part.bits for part in parts]), np.concatenate([part.base for part in parts]))


@dataclass(frozen=True)
class _Nodes:
    """Inner nodes, sorted by tree; shape (n,) each. ``mask``: what is left when the test fails."""

    tree: Ints
    feature: Ints
    threshold: Floats
    kind: Ints
    mask: Bits
    categories: Sequence[frozenset[int]]
    """What goes left, per categorical node, by its number in ``category``."""
    category: Ints

    def of(self, chosen: Bools, feature: int) -> "_Nodes":
        """Some of the nodes, their features counted from ``feature``."""
        return replace(
            self,
            tree=self.tree[chosen],
            feature=self.feature[chosen] - feature,
            threshold=self.threshold[chosen],
            kind=self.kind[chosen],
            mask=self.mask[chosen],
            category=self.category[chosen],
        )


class _Half:
    """The nodes of either part, and the AND of those that fail, per tree."""

    def __init__(self, nodes: _Nodes, trees: int) -> None:
        self._nodes, self._trees = nodes, trees
        self._present, self._starts = np.unique(nodes.tree, return_index=True)
        self._categorical = np.flatnonzero(nodes.kind & _CATEGORICAL)
        missing = nodes.kind >> 2
        absent = np.where(nodes.kind & _DEFAULT_LEFT, -np.inf, np.nan)  # nan is below no threshold, not even inf
        self._instead_of_nan = np.where(missing == 0, 0.0, absent)
        self._zero_missing = np.flatnonzero(missing == _ZERO_IS_MISSING)
        self._instead_of_zero = absent[self._zero_missing]
        self._ones = nodes.mask.dtype.type(~nodes.mask.dtype.type(0))

    def bits(self, rows: Floats) -> Bits:
        """Shape (k, trees) for rows of shape (k, features)."""
        found = np.full((len(rows), self._trees), self._ones)
        if len(self._starts):
            left = np.where(self._goes_left(rows), self._ones, self._nodes.mask)
            found[:, self._present] = np.bitwise_and.reduceat(left, self._starts, axis=1)
        return found

    def bits_of(self, row: Floats) -> Bits:
        """:meth:`bits` of one row, shape (trees,)."""
        return self.bits(row[None, :])[0] if self._bins is None else self._bins.row(row)

    def bits_of_many(self, rows: Floats) -> Bits:
        """:meth:`bits` of many rows, looked up."""
        return self.bits(rows) if self._bins is None else self._bins.rows(rows)

    @cached_property
    def _bins(self) -> Bins | None:
        """Made when it is asked for first: it pays for rows that come again and again."""
        nodes, missing = self._nodes, self._nodes.kind >> 2
        categorical = (nodes.kind & _CATEGORICAL) > 0
        absent = np.where(nodes.kind & _DEFAULT_LEFT, -np.inf, np.nan)
        fails = ~(np.where(missing == _ZERO_IS_MISSING, absent, self._instead_of_nan) <= nodes.threshold)
        groups = []
        for feature in np.unique(nodes.feature):
            mine = nodes.feature == feature
            zero = mine & ~categorical & (missing == _ZERO_IS_MISSING)
            number, coded = mine & ~categorical & ~zero, np.flatnonzero(mine & categorical)
            kinds: tuple[tuple[Kind, Bools], ...] = (("number", number), ("zero", zero))
            for kind, those in kinds:
                if those.any():
                    groups.append(Group(int(feature), kind, np.flatnonzero(those), fails[those]))
            if len(coded):
                known = tuple(nodes.categories[number] for number in nodes.category[coded])
                groups.append(Group(int(feature), "category", coded, fails[coded], known))
        return read_bins(nodes, groups, self._trees)

    def _goes_left(self, rows: Floats) -> Bools:
        values = rows[:, self._nodes.feature]
        left = np.asarray(np.where(np.isnan(values), self._instead_of_nan, values) <= self._nodes.threshold)
        if len(self._zero_missing):
            some = values[:, self._zero_missing]
            put = np.where(np.isnan(some) | (np.abs(some) <= ZERO), self._instead_of_zero, some)
            left[:, self._zero_missing] = put <= self._nodes.threshold[self._zero_missing]
        for node in self._categorical:
            known = self._nodes.categories[self._nodes.category[node]]
            left[:, node] = [_code(value) in known for value in values[:, node]]
        return left


@dataclass(frozen=True)
class MaskedTrees:
    """A booster whose first ``context`` features belong to the context, the others to the content."""

    context: int
    _content_half: _Half
    _context_half: _Half
    _content_only: Ints
    _context_only: Ints
    _mixed: Ints
    _leaves: Floats
    """Values of the leaves, tree after tree."""
    _first: Ints
    """Where each tree's leaves begin."""

    def contents(self, rows: Floats) -> ContentMasks:
        """What can be known of contents before the request. rows: shape (k, c)."""
        bits = self._content_half.bits(rows)
        return ContentMasks(
            np.ascontiguousarray(bits[:, self._mixed]),
            self._values(bits[:, self._content_only], self._content_only).sum(axis=1),
        )

    def score(self, row: Floats, contents: ContentMasks) -> Floats:
        """Raw score of each content in one context, shape (k,). row: shape (d,)."""
        bits = self._context_half.bits_of(row)
        own = self._values(bits[self._context_only], self._context_only).sum()
        mixed = self._values(contents.bits & bits[self._mixed], self._mixed)
        return np.asarray(mixed.sum(axis=1) + contents.base + own)

    def scores(self, rows: Floats, contents: ContentMasks) -> Floats:
        """:meth:`score` of each context, shape (n, k): the same bytes. rows: shape (n, d)."""
        found = np.empty((len(rows), len(contents.base)))
        size = max(1, _MASKS // max(1, contents.bits.size))
        for start in range(0, len(rows), size):
            bits = self._context_half.bits_of_many(rows[start : start + size])
            own = self._values(bits[:, self._context_only], self._context_only).sum(axis=1)
            mixed = self._values(contents.bits & bits[:, None, self._mixed], self._mixed)
            found[start : start + size] = mixed.sum(axis=2) + contents.base + own[:, None]
        return found

    def predict(self, matrix: Floats) -> Floats:
        """Raw score of assembled rows, shape (n,), for comparison with ``Booster.predict``."""
        left = self._context_half.bits(matrix[:, : self.context])
        bits = left & self._content_half.bits(matrix[:, self.context :])
        return np.asarray(self._values(bits, np.arange(len(self._first))).sum(axis=1))

    def _values(self, bits: Bits, trees: Ints) -> Floats:
        """Values of the exit leaves; the number of the lowest set bit is how many lie below it."""
        leaf = np.bitwise_count(bits ^ (bits - bits.dtype.type(1))) + (self._first[trees] - 1)
        return np.asarray(self._leaves.take(leaf))


def read_masks(text: str, context: int) -> MaskedTrees | None:
    """The trees of a booster's text that was checked (``anatomy``). ``context``: how many features come first.

    None for trees with more than 64 leaves, and for linear ones: score those with ``Booster.predict``.
    """
    trees = [_fields(block) for block in text.split("\nTree=")[1:]]
    counts = np.array([int(fields["num_leaves"]) for fields in trees], dtype=np.int64)
    if not len(trees) or counts.max() > MOST_LEAVES or any(fields["is_linear"] != "0" for fields in trees):
        return None
    nodes = _nodes(trees, np.uint32 if counts.max() <= 32 else np.uint64)
    of_context = nodes.feature < context
    by_context = np.isin(np.arange(len(trees)), nodes.tree[of_context])
    by_content = np.isin(np.arange(len(trees)), nodes.tree[~of_context])
    return MaskedTrees(
        context=context,
        _content_half=_Half(nodes.of(~of_context, context), len(trees)),
        _context_half=_Half(nodes.of(of_context, 0), len(trees)),
        _content_only=np.flatnonzero(~by_context),
        _context_only=np.flatnonzero(by_context & ~by_content),
        _mixed=np.flatnonzero(by_context & by_content),
        _leaves=np.concatenate([_leaf_values(fields) for fields in trees]),
        _first=np.concatenate([[0], np.cumsum(counts)[:-1]]),
    )


def _fields(block: str) -> dict[str, Any]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _nodes(trees: Sequence[dict[str, Any]], word: type[np.uint32] | type[np.uint64]) -> _Nodes:
    categories: list[frozenset[int]] = []
    of_node: list[int] = []
    for fields in trees:
        own = _categories(fields)
        for threshold, kind in zip(_floats(fields["threshold"]), _whole(fields["decision_type"]), strict=True):
            of_node.append(len(categories) + int(threshold) if kind & _CATEGORICAL else 0)
        categories += own
    sizes = [int(fields["num_leaves"]) - 1 for fields in trees]
    return _Nodes(
        tree=np.repeat(np.arange(len(trees)), sizes),
        feature=np.array([n for fields in trees for n in _whole(fields["split_feature"])], dtype=np.int64),
        threshold=np.array([n for fields in trees for n in _floats(fields["threshold"])], dtype=np.float64),
        kind=np.array([n for fields in trees for n in _whole(fields["decision_type"])], dtype=np.int64),
        mask=np.array([n for fields in trees for n in _failing(fields)], dtype=np.uint64).astype(word),
        categories=categories,
        category=np.array(of_node, dtype=np.int64),
    )


def _failing(fields: dict[str, Any]) -> list[int]:
    """Per node: all ones but for the leaves of its left subtree."""
    left, right = _whole(fields["left_child"]), _whole(fields["right_child"])
    spans = _spans(left, right)
    ones = (1 << MOST_LEAVES) - 1
    return [ones ^ ((1 << end) - (1 << begin)) for begin, end in (spans[node][0] for node in range(len(left)))]


def _spans(left: Sequence[int], right: Sequence[int]) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """Per node the leaves of its left and its right subtree, as ranges of positions from left to right."""
    sizes: dict[int, int] = {}
    for node in reversed(range(len(left))):
        sizes[node] = sum(1 if child < 0 else sizes[child] for child in (left[node], right[node]))
    found = {}
    begins = {0: 0}
    for node in range(len(left)):
        begin = begins[node]
        middle = begin + (1 if left[node] < 0 else sizes[left[node]])
        found[node] = ((begin, middle), (middle, begin + sizes[node]))
        begins[left[node]], begins[right[node]] = begin, middle
    return found


def _leaf_values(fields: dict[str, Any]) -> Floats:
    """Values of the leaves from left to right."""
    values = _floats(fields["leaf_value"])
    left, right = _whole(fields["left_child"]), _whole(fields["right_child"])
    ordered = np.array(values)
    for node, (to_left, to_right) in _spans(left, right).items():
        for child, (begin, _) in ((left[node], to_left), (right[node], to_right)):
            if child < 0:
                ordered[begin] = values[~child]
    return ordered


def _categories(fields: dict[str, Any]) -> list[frozenset[int]]:
    """What goes left, per categorical split."""
    if fields["num_cat"] == "0":
        return []
    words = _whole(fields["cat_threshold"])
    return [
        frozenset(
            place * 32 + bit for place, word in enumerate(words[low:high]) for bit in range(32) if word >> bit & 1
        )
        for low, high in pairwise(_whole(fields["cat_boundaries"]))
    ]


def _code(value: float) -> int:
    """A category's code; a missing value, and what is no code of 31 bits, is none that was seen."""
    return int(value) if -1.0 < value < 2**31 else -1


def _whole(line: str) -> list[int]:
    return list(map(int, line.split()))


def _floats(line: str) -> list[float]:
    return list(map(float, line.split()))
