"""Columns that take noise out of a lift: what was known about a unit before its first decision.

They need not be right, only from before: the lift is unbiased whatever they predict (``sequences.py``). Numbers and
yes/no stand as they are, what is missing stands at the mean; a text gives one column for each of its commonest values.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_COLUMNS = 20
"""Columns in all: the commonest names and values first."""
LEAST_SHARE = 0.01
"""Values of a text that fewer units have get no column."""


def context_columns(contexts: Sequence[Mapping[str, Any]]) -> Floats:
    """Contexts of n units as a table, shape (n, p), p ≤ MOST_COLUMNS."""
    counted: Counter[tuple[str, str | None]] = Counter()
    for context in contexts:
        counted.update((name, value if isinstance(value, str) else None) for name, value in context.items())
    common = [key for key, count in counted.most_common(MOST_COLUMNS) if count >= LEAST_SHARE * len(contexts)]
    columns = [_column(contexts, name, value) for name, value in sorted(common, key=str)]
    return np.column_stack(columns) if columns else np.empty((len(contexts), 0))


def varying(table: Floats) -> Floats:
    """Only the columns that differ between units."""
    return table[:, np.ptp(table, axis=0) > 0.0] if len(table) else table


def _column(contexts: Sequence[Mapping[str, Any]], name: str, value: str | None) -> Floats:
    if value is not None:
        return np.array([context.get(name) == value for context in contexts], dtype=np.float64)
    found = np.array([_number(context.get(name)) for context in contexts], dtype=np.float64)
    known = np.isfinite(found)
    return np.where(known, found, found[known].mean() if known.any() else 0.0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
