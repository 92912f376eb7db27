"""Which rows may teach whom: other units always, and earlier decisions only where the log has times (invariant 15).

Under a policy that learns, later decisions were shaped by earlier outcomes: a model fitted on the future of a decision
knows something of its luck. So time is cut into blocks of equally many decisions, and each block is judged by what was
learned on the blocks before it, from other units. The first block teaches and is not judged. Without times (an imported
experiment whose dates are invented) rows teach every other unit's.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCKS = 5
"""Blocks of time: a fifth of the log is spent on teaching only."""


def forward(decided_at: Ints, fold: Ints, blocks: int = BLOCKS) -> Iterator[tuple[Mask, Mask]]:
    """Pairs of rows that teach and rows that are judged, (n,) each. fold: of each row's unit.

    Decisions of one moment are in one block.
    """
    edges = np.quantile(decided_at, np.linspace(0.0, 1.0, blocks + 1)[1:-1], method="higher")
    block = np.searchsorted(np.unique(edges[edges > decided_at.min()]), decided_at, side="right")
    for later in range(1, int(block.max(initial=0)) + 1):
        for each in np.unique(fold):
            judged = (block == later) & (fold == each)
            if judged.any():
                yield (block < later) & (fold != each), judged


def across(fold: Ints) -> Iterator[tuple[Mask, Mask]]:
    """The same without times: every fold is judged by what the others teach."""
    for each in np.unique(fold):
        yield fold != each, fold == each
