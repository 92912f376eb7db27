"""The text of a booster, read strictly: what LightGBM's parser trusts is checked before it sees it.

LightGBM believes the counts and indices in a model file. A damaged one makes it read and write outside its arrays:
it may die, hang, or load today and die tomorrow, whatever another process saw. So every line must be one that
LightGBM writes, every list as long as it says, every index inside what it points into, and the nodes a tree:

    node i has children > i (inner, each once) or ~leaf (each leaf once);    0 ≤ split_feature < columns
    categorical nodes point into cat_boundaries, which rise from 0 to the length of cat_threshold

What is left that damage can change are numbers, and those the golden rows check. The tail that LightGBM writes
(importances, parameters) is cut off by ``trim``: it scores nothing and need not be trusted.

    trim(text) -> str          check_anatomy(text, columns) raises ModelRefused
"""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from infra.errors import ModelRefused

END = "end of trees\n"

_NODES = (
    "split_feature",
    "split_gain",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "internal_value",
    "internal_weight",
    "internal_count",
)
_BEFORE = ("num_leaves", "num_cat", *_NODES[:6], "leaf_value", "leaf_weight", "leaf_count", *_NODES[6:])
_CATEGORICAL = ("cat_boundaries", "cat_threshold")
_AFTER = ("is_linear", "shrinkage")
_FLOAT = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?")
_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,9})")
_RANGE = re.compile(r"none|\[[-+.e\d]+:[-+.e\d]+\]|-?\d+(?::-?\d+)*")


def trim(text: str) -> str:
    """The trees alone, without what LightGBM adds after them."""
    return text[: text.index(END) + len(END)]


def check_anatomy(text: str, columns: int) -> None:
    """Raises :class:`ModelRefused` unless this is the trimmed text of a booster over ``columns`` features."""
    _require(text.isascii() and text.endswith("\n" + END), "it is cut short or holds strange bytes")
    head, _, rest = text.removesuffix(END).partition("\n\n")
    sizes = _check_head(head.split("\n"), columns)
    _require(sum(sizes) == len(rest) and min(sizes, default=0) > 0, "its trees are not as long as it says")
    at = 0
    for number, size in enumerate(sizes):
        _check_tree(rest[at : at + size], number, columns)
        at += size


def _check_head(lines: Sequence[str], columns: int) -> list[int]:
    """Sizes of the trees."""
    expected = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={columns - 1}",
        "feature_names=" + " ".join(f"f{index}" for index in range(columns)),
    ]
    _require(list(lines[:7]) == expected and len(lines) == 9, "its head is not that of a booster over these columns")
    kind, _, ranges = lines[7].partition("=")
    found = ranges.split(" ")
    _require(kind == "feature_infos" and len(found) == columns, "its features are not those of the schema")
    _require(all(_RANGE.fullmatch(part) for part in found), "its features are not those of the schema")
    kind, _, sizes = lines[8].partition("=")
    _require(kind == "tree_sizes", "it does not say how long its trees are")
    return _whole(sizes)


def _check_tree(block: str, number: int, columns: int) -> None:
    _require(block.startswith(f"Tree={number}\n") and block.endswith("\n\n\n"), f"tree {number} is not whole")
    fields = dict(line.split("=", 1) for line in block[:-3].split("\n")[1:] if "=" in line)
    leaves, categories = _one(fields, "num_leaves"), _one(fields, "num_cat")
    names = (*_BEFORE, *(_CATEGORICAL if categories else ()), *_AFTER)
    _require(tuple(fields) == names and block.count("\n") == len(names) + 3, f"tree {number} has other lines")
    _require(1 <= leaves <= 10_000 and fields["is_linear"] == "0", f"tree {number} is of another kind")
    _check_lengths(fields, leaves, number)
    _check_nodes(fields, leaves, number, columns)
    _check_categories(fields, categories, number)


def _check_lengths(fields: dict[str, str], leaves: int, number: int) -> None:
    numbers = {name: _numbers(fields, name) for name in (*_NODES, "leaf_value", "leaf_weight", "leaf_count")}
    fits = all(len(numbers[name]) == leaves - 1 for name in _NODES)
    fits = fits and len(numbers["leaf_value"]) == len(numbers["leaf_count"]) == leaves
    fits = fits and len(numbers["leaf_weight"]) == (leaves if leaves > 1 else 0)
    _require(fits and len(_floats(fields["shrinkage"])) == 1, f"tree {number} has lists of other lengths")
    _whole(fields["leaf_count"])
    _whole(fields["internal_count"])


def _check_nodes(fields: dict[str, str], leaves: int, number: int, columns: int) -> None:
    _require(all(0 <= feature < columns for feature in _whole(fields["split_feature"])), f"tree {number} splits on air")
    _require(all(kind in range(12) for kind in _whole(fields["decision_type"])), f"tree {number} decides on air")
    sides = (_whole(fields["left_child"]), _whole(fields["right_child"]))
    children = sorted(child for side in sides for child in side)
    expected = [*range(-leaves, 0), *range(1, leaves - 1)] if leaves > 1 else []
    below = all(child < 0 or child > node for side in sides for node, child in enumerate(side))
    _require(children == expected and below, f"tree {number} is not a tree")


def _check_categories(fields: dict[str, str], categories: int, number: int) -> None:
    kinds, thresholds = _whole(fields["decision_type"]), _numbers(fields, "threshold")
    wanted = [threshold for kind, threshold in zip(kinds, thresholds, strict=True) if kind & 1]
    _require(sorted(wanted) == list(range(categories)), f"tree {number} has other categories than it uses")
    if categories:
        bounds, words = _whole(fields["cat_boundaries"]), _whole(fields["cat_threshold"])
        rising = all(low < high for low, high in pairwise(bounds))
        fits = len(bounds) == categories + 1 and bounds[0] == 0 and bounds[-1] == len(words)
        _require(rising and fits and all(0 <= word < 1 << 32 for word in words), f"tree {number} has broken categories")


def _one(fields: dict[str, str], name: str) -> int:
    found = _whole(fields.get(name, ""))
    _require(len(found) == 1 and found[0] >= 0, f"a tree has no {name}")
    return found[0]


def _whole(line: str) -> list[int]:
    parts = line.split(" ") if line else []
    _require(all(_WHOLE.fullmatch(part) for part in parts), "a count is not a whole number")
    return [int(part) for part in parts]


def _numbers(fields: dict[str, str], name: str) -> list[float]:
    """Finite, but for the threshold of a node that parts missing values from all others: that is inf."""
    line = fields[name]
    if name != "threshold":
        return _floats(line)
    _floats(" ".join(part for part in line.split(" ") if part != "inf"))
    return [float(part) for part in line.split(" ")] if line else []


def _floats(line: str) -> list[float]:
    parts = line.split(" ") if line else []
    _require(all(_FLOAT.fullmatch(part) for part in parts), "a number cannot be read")
    numbers = [float(part) for part in parts]
    _require(all(math.isfinite(number) for number in numbers), "a number is not finite")
    return numbers


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ModelRefused(f"The trees of the model cannot be parsed: {fault}. Restore the bundle, or retrain")
