"""A row for every leaf: what a tree asks on the way to a leaf, and values that answer it.

Training rows need not reach every leaf of the trees that are served (the pool is a sample, and the text score that
trees are grown on is not the one they are asked with), and what no golden row reaches, no golden row checks. The
questions on the way to a leaf are asked of single features, so that a row is put together feature by feature: among
the value that is there, missing, zero, every threshold, the numbers next to it and every category, the first that
answers all questions the way the leaf needs.

    rows_beyond(booster, leaves, near) -> (n, columns)

Decisions are LightGBM 4's (``include/LightGBM/tree.h``: NumericalDecision, CategoricalDecision).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Leaf = tuple[int, int]
"""Tree and leaf."""

_ZERO = float(np.float32(1e-35))
"""LightGBM takes numbers this near to 0 as 0, when it reads a row."""
_INFINITE = 1e300
"""What LightGBM writes for an infinite threshold: a node that parts missing values from all others."""


class Question(NamedTuple):
    """A node, and the way it must send a row. ``categories``: what goes left; null for a node of numbers."""

    feature: int
    threshold: float
    categories: frozenset[int] | None
    missing: str
    default_left: bool
    left: bool

    def answered(self, value: float) -> bool:
        """Whether the node sends this value the way it must."""
        return self._goes_left(value) == self.left

    def _goes_left(self, value: float) -> bool:
        if self.categories is not None:
            return -1.0 < value < 2**31 and int(value) in self.categories  # nan is neither
        if abs(value) <= _ZERO or (math.isnan(value) and self.missing != "NaN"):
            value = 0.0
        absent = math.isnan(value) if self.missing == "NaN" else self.missing == "Zero" and value == 0.0
        if absent:
            return self.default_left
        return value <= (math.inf if self.threshold >= _INFINITE else self.threshold)


def rows_beyond(booster: lgb.Booster, leaves: Ints, near: Floats) -> Floats:
    """A row for every leaf of every tree that is not among ``leaves``, shape (n, columns).

    leaves: shape (rows, trees), as ``pred_leaf`` gives them. near: shape (columns,), what each row is like where no
    question says otherwise. A leaf that no row can reach (its questions contradict each other) has none: it scores
    nothing.
    """
    reached = [set(column.tolist()) for column in leaves.T]
    made = [_row(path, near) for (tree, leaf), path in _leaves(booster) if leaf not in reached[tree]]
    found = [row for row in made if row is not None]
    return np.array(found).reshape(len(found), len(near))


def _row(path: Sequence[Question], near: Floats) -> Floats | None:
    row = near.copy()
    for feature in {question.feature for question in path}:
        asked = [question for question in path if question.feature == feature]
        fitting = (value for value in _values(asked, near[feature]) if all(one.answered(value) for one in asked))
        value = next(fitting, None)
        if value is None:
            return None
        row[feature] = value
    return row


def _values(asked: Sequence[Question], usual: float) -> Iterator[float]:
    yield from (float(usual), math.nan, 0.0)
    for question in asked:
        if question.categories is None:
            yield question.threshold
            yield math.nextafter(question.threshold, math.inf)
            yield math.nextafter(question.threshold, -math.inf)
        else:
            yield from map(float, sorted(question.categories))
            yield float(max(question.categories, default=-1) + 1)


def _leaves(booster: lgb.Booster) -> Iterator[tuple[Leaf, list[Question]]]:
    """Every leaf with the questions on the way to it."""
    for tree in booster.dump_model(num_iteration=-1)["tree_info"]:
        waiting: list[tuple[dict[str, Any], list[Question]]] = [(tree["tree_structure"], [])]
        while waiting:
            node, path = waiting.pop()
            if "split_feature" not in node:
                yield (tree["tree_index"], node.get("leaf_index", 0)), path
                continue
            waiting.append((node["left_child"], [*path, _question(node, left=True)]))
            waiting.append((node["right_child"], [*path, _question(node, left=False)]))


def _question(node: dict[str, Any], left: bool) -> Question:
    by_category = node["decision_type"] == "=="
    return Question(
        feature=node["split_feature"],
        threshold=0.0 if by_category else float(node["threshold"]),
        categories=frozenset(map(int, node["threshold"].split("||"))) if by_category else None,
        missing=node["missing_type"],
        default_left=node["default_left"],
        left=left,
    )
