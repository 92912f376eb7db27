"""Which rows may teach whom: other units always, and earlier decisions only where the log has times (invariant 15).

Under a policy that learns, later decisions were shaped by earlier outcomes: a model fitted on the future of a decision
knows something of its luck. So time is cut into blocks of equally many decisions, and each block is judged by what was
learned on the blocks before it, from other units. The first block teaches and is not judged.

Without times (an imported experiment whose dates are invented) units are put into an order by lot, and what comes later
is judged by what was learned before it, all the same. Folds that teach each other will not do: where no policy is better
than another, a row that is lucky with an arm makes the others' policy like that arm, and they its own, so that lucky
rows are judged to have chosen well. The spread of the scores knows nothing of it: a test at 3 % promotes 8 to 10 % of
worthless policies (1,500 simulated experiments). In order of the lot the scores are martingale differences, and it is
3 % again (Luedtke & van der Laan 2016, the online one-step estimator).
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


def in_turn(fold: Ints) -> Iterator[tuple[Mask, Mask]]:
    """The same without times: the first half of the folds, numbered from 0, teaches; each later one is judged by what all
    before it teach."""
    count = int(fold.max(initial=-1)) + 1
    for each in range((count + 1) // 2, count):
        yield fold < each, fold == each
