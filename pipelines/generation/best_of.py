"""The best of N by the reward model, with a guard against believing it too much.

The largest of many predictions is the one with the largest error: the more candidates, the more the choice goes for what
the model is wrong about, and the true reward can turn down while the predicted one rises (Gao, Schulman and Hilton 2023,
"Scaling laws for reward model overoptimization"). Three guards:

1. support: a text further from the known texts than all but one in a hundred of them (``support.py``) is out
2. lower bound: predicted − ``caution`` · sd, with sd = spread · distance, so that a text like the known ones has the
   spread that the model's calibration measured, and one at the edge a wider one
3. unlike: one place in four goes to the text, of the better half, that is least like what is kept and what is known:
   a copy of the best earlier copy teaches nothing

Caution and the growth of sd were chosen on simulated worlds (seeds from 2000 on) that no benchmark reports.
``keep`` is pure: predictions and distances in, places out. ``weigh`` makes them from a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ingestion.copy.guardrails import text_of
from ingestion.copy.near_duplicates import Known
from ingestion.events import Content
from reward_models.boosted import RewardModel
from reward_models.support import Support

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Guard:
    """How much the model is believed. ``UNGUARDED`` believes it all."""

    caution: float = 2.0
    """Standard deviations below the prediction."""
    supported: bool = True
    """Only texts within the support of the known ones."""
    unlike: float = 0.25
    """Share of the places that goes to texts unlike the others; rounded down."""


UNGUARDED = Guard(caution=0.0, supported=False, unlike=0.0)


@dataclass(frozen=True)
class Weighed:
    """What is known of each candidate, shape (k,): predicted reward, lower bound and distance; and the distance beyond
    which a text is outside."""

    texts: Sequence[str]
    expected: Floats
    low: Floats
    distance: Floats
    limit: float


class Kept(NamedTuple):
    """A candidate that is kept, by its place among all, and for what."""

    place: int
    why: Literal["best", "unlike"]


def weigh(
    model: RewardModel,
    support: Support | None,
    contents: Sequence[Content],
    contexts: Sequence[Mapping[str, Any]] = ({},),
    guard: Guard | None = None,
) -> Weighed:
    """Candidates by a model: the mean over ``contexts``, customers of the kind that will be written to. Without support
    (too few known texts) all are taken to be as usual."""
    texts = [text_of(content) for content in contents]
    expected = model.grid(contexts, contents).mean(axis=0)
    distance = np.ones(len(texts)) if support is None or not texts else support.distance(texts)
    sd = model.spread(contents) * distance
    limit = np.inf if support is None else max(1.0, support.limit)
    return Weighed(texts, expected, expected - (guard or Guard()).caution * sd, distance, limit)


def keep(found: Weighed, count: int, known: Sequence[str] = (), guard: Guard | None = None) -> list[Kept]:
    """Which ``count`` candidates are kept, the best first; fewer where fewer are within the support.

    known: texts that nothing kept should merely repeat.
    """
    guard = guard or Guard()
    inside = found.distance <= found.limit if guard.supported else np.ones(len(found.texts), dtype=np.bool_)
    order = [int(index) for index in np.argsort(-found.low, kind="stable") if inside[index]]
    places = min(count, len(order))
    unlike = int(guard.unlike * places)
    best = order[: places - unlike]
    kept = [Kept(index, "best") for index in best]
    others = Known([*enumerate_texts(known), *((f"kept {index}", found.texts[index]) for index in best)])
    left = [index for index in order[: max(places, (len(order) + 1) // 2)] if index not in set(best)]
    for _ in range(unlike):
        strangest = min(left, key=lambda index: _likeness(others, found.texts[index]))
        left.remove(strangest)
        others.add(f"kept {strangest}", found.texts[strangest])
        kept.append(Kept(strangest, "unlike"))
    return kept


def enumerate_texts(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts with names of their own."""
    return [(f"known {place}", text) for place, text in enumerate(texts)]


def _likeness(others: Known, text: str) -> float:
    nearest = others.nearest(text)
    return 0.0 if nearest is None else nearest[1]
