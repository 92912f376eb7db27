"""What a new model may know of its contents from the start: the counts of the decisions it was judged on.

A model is trained on decisions before its cutoff and judged on later ones. Those it has not seen, so that holding them
against its predictions uses no outcome twice. Without them every new model would start from its predictions alone,
and what a week of clicks said about each content would be lost with every retrain. The gate does not look at them:
they are to the frozen policy what it would have counted itself, had it served.

    remember(judged, promised, weights) -> Memory        memory.counts(campaign_id, content_ids, aged) -> ArmCounts

As in the live counts (``statistics.py``), the default reward of silent decisions is left out.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from reward_models.aging import Aged
from reward_models.dataset import TrainingSet
from reward_models.folds import codes_of
from reward_models.posterior import ArmCounts

Floats = npt.NDArray[np.float64]


class Day(msgspec.Struct, frozen=True, array_like=True):
    """Sums of one content over the decisions of one day, in reward units."""

    content_id: str
    day: int
    """Since 1970."""
    exposures: float
    sum: float
    sum_squares: float
    expected: float


class Memory(msgspec.Struct, frozen=True):
    """Days by campaign. The default: nothing."""

    campaigns: dict[str, tuple[Day, ...]] = {}

    def counts(self, campaign_id: str, content_ids: Sequence[str], aged: Aged) -> ArmCounts:
        """Counts aligned with ``content_ids``, shape (k,); all of them have come in, some may be forgotten."""
        index = {content_id: position for position, content_id in enumerate(content_ids)}
        table = np.zeros((4, len(index)))
        for one in self.campaigns.get(campaign_id, ()):
            if one.content_id in index:
                sums = np.array((one.exposures, one.sum, one.sum_squares, one.expected))
                table[:, index[one.content_id]] += aged.kept(one.day, 1) * sums
        return ArmCounts(*table)


NOTHING = Memory()


def remember(judged: TrainingSet, promised: Floats, weights: Mapping[str, float]) -> Memory:
    """The memory of a model from decisions it was not trained on, and what it promised for each, shape (n,)."""
    if not len(judged):
        return NOTHING
    reward = sum((weight * judged.metrics[name] for name, weight in weights.items()), np.zeros(len(judged)))
    days = judged.decided_at // DAY
    cell = codes_of(list(zip(judged.content.tolist(), days.tolist(), strict=True)))
    sums = [np.bincount(cell, values) for values in (np.ones(len(judged)), reward, reward**2, promised)]
    campaigns: dict[str, list[Day]] = {}
    for number, row in enumerate(np.unique(cell, return_index=True)[1]):
        content = judged.contents[judged.content[row]]
        numbers = (float(f"{values[number]:.9g}") for values in sums)
        campaigns.setdefault(content.campaign_id, []).append(Day(content.content_id, int(days[row]), *numbers))
    return Memory({name: tuple(sorted(found, key=_order)) for name, found in sorted(campaigns.items())})


def _order(one: Day) -> tuple[str, int]:
    return one.content_id, one.day
