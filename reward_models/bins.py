"""What a value of one feature rules out, looked up instead of compared with every node.

The nodes of masked trees that look at one feature have a few hundred thresholds at most, because LightGBM grows trees on
binned values. Between two neighbouring thresholds every value fails the same nodes: so the AND of their masks is made
once per feature and bin, for all trees, and a row is the AND of one line per feature.

    bins = read_bins(nodes, trees)      None: too large to keep
    bins.row(row) -> (trees,)           one row
    bins.rows(rows) -> (n, trees)       the same of many

A group is a feature with one way of being missing; its last line is for what is missing. Categories have a line per code.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[Any]

MOST_BYTES = 64 << 20
"""Largest table that is kept."""
ZERO = 1e-35
"""LightGBM takes numbers this near to 0 as 0."""

Kind = Literal["number", "zero", "category"]
"""What is missing: nan; nan and 0; a code that no node knows."""


class Nodes(Protocol):
    """Inner nodes, shape (n,) each; see ``masks.py``."""

    @property
    def tree(self) -> Ints: ...
    @property
    def threshold(self) -> Floats: ...
    @property
    def mask(self) -> Bits: ...


class Group(NamedTuple):
    """Nodes of one feature: their thresholds, or (categories) for each node the codes that go left."""

    feature: int
    kind: Kind
    nodes: Ints
    fails_missing: npt.NDArray[np.bool_]
    """Whether each node fails where the value is missing."""
    known: tuple[frozenset[int], ...] = ()


class _Lines(NamedTuple):
    """Where a group's lines are. ``cuts``: its different thresholds, in order; categories: none."""

    feature: int
    kind: Kind
    cuts: list[float]
    first: int
    missing: int


@dataclass(frozen=True)
class Bins:
    """All lines, one below the other: shape (lines, trees)."""

    table: Bits
    lines: tuple[_Lines, ...]

    def row(self, row: Floats) -> Bits:
        """Masks of one row, shape (trees,)."""
        values = row.tolist()
        at = [_line(lines, values[lines.feature]) for lines in self.lines]
        found: Bits = np.bitwise_and.reduce(self.table[at], axis=0)
        return found

    def rows(self, rows: Floats) -> Bits:
        """Masks of many rows, shape (n, trees)."""
        found = np.full((len(rows), self.table.shape[1]), ~self.table.dtype.type(0))
        for lines in self.lines:
            found &= self.table[_lines_of(lines, rows[:, lines.feature])]
        return found


def read_bins(nodes: Nodes, groups: list[Group], trees: int) -> Bins | None:
    """The lines of all groups; null where they are too many."""
    made = [_cuts(nodes, group) for group in groups]
    count = sum(lines for _, lines in made)
    if count * trees * nodes.mask.itemsize > MOST_BYTES or not groups:
        return None
    table = np.full((count, trees), ~nodes.mask.dtype.type(0))
    lines, first = [], 0
    for group, (cuts, size) in zip(groups, made, strict=True):
        _fill(table[first : first + size], nodes, group, cuts)
        lines.append(_Lines(group.feature, group.kind, cuts.tolist(), first, first + size - 1))
        first += size
    return Bins(table, tuple(lines))


def _cuts(nodes: Nodes, group: Group) -> tuple[Floats, int]:
    """Thresholds of a group, and how many lines it has."""
    if group.kind == "category":
        return np.zeros(0), max((code for known in group.known for code in known), default=-1) + 2
    cuts = np.unique(nodes.threshold[group.nodes])
    return cuts, len(cuts) + 2


def _fill(table: Bits, nodes: Nodes, group: Group, cuts: Floats) -> None:
    trees, masks = nodes.tree[group.nodes], nodes.mask[group.nodes]
    if group.kind == "category":
        for known, tree, mask in zip(group.known, trees, masks, strict=True):
            fails = np.ones(len(table), dtype=bool)
            fails[list(known)] = False
            table[fails, tree] &= mask
        return
    passed = np.searchsorted(cuts, nodes.threshold[group.nodes]) + 1
    np.bitwise_and.at(table, (passed, trees), masks)
    np.bitwise_and.accumulate(table[:-1], axis=0, out=table[:-1])
    gone = group.fails_missing
    np.bitwise_and.at(table[-1], trees[gone], masks[gone])


def _line(lines: _Lines, value: float) -> int:
    if lines.kind == "category":
        code = int(value) if -1.0 < value < 2**31 else -1
        return lines.first + code if 0 <= code < lines.missing - lines.first else lines.missing
    if value != value or (lines.kind == "zero" and abs(value) <= ZERO):
        return lines.missing
    return lines.first + bisect_left(lines.cuts, value)


def _lines_of(lines: _Lines, values: Floats) -> Ints:
    count = lines.missing - lines.first
    if lines.kind == "category":
        known = (values > -1.0) & (values < count)
        return np.where(known, np.where(known, values, 0.0).astype(np.int64), count) + lines.first
    missing = np.isnan(values)
    if lines.kind == "zero":
        missing |= np.abs(values) <= ZERO
    return np.where(missing, lines.missing, lines.first + np.searchsorted(lines.cuts, values))
