"""Novelty decay: does copy lose its lift as it ages?

Age is the time since a content was first shown. For content c and age bin b, at decisions t:

    lift(c, b) = mean reward of treatment rows that showed c at that age
               − mean reward of holdout rows, each weighted by the probability with which the policy would have shown c

Both are the same customers at the same times, because holdout rows keep what the policy would have drawn with. The lift
at an age averages the cells of that age. What is tested is the slope *within* contents, over doublings of age:

    slope = Σ n·(x − x̄_c)·lift(c, b) / Σ n·(x − x̄_c)²        x = log2 of age, n = 1/(1/n_treatment + 1/n_holdout)

Comparing ages across contents would not do: copy that is still shown when old has survived the policy's selection.
Variances add influences by unit; intervals are those of a confidence sequence (``sequences.py``), so that the alarm may be
looked at daily. The alarm sounds when the upper end of the slope is below 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from infra.errors import EstimateRefused
from ingestion.fields import DOCUMENTED
from ingestion.loops import LiftSettings
from reward_models.dataset import TrainingSet
from reward_models.sequences import reaches
from reward_models.trial import clusters_of, dealt_by_chance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EDGES = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
"""Days at which the age bins begin."""
LEAST_ROWS = 30
"""Treatment rows that a cell needs, and expected rows of the holdout a third of that."""


@dataclass(frozen=True)
class AgeLift:
    """Lift per decision of copy of one age, with the interval of a confidence sequence."""

    __pydantic_config__ = DOCUMENTED

    from_day: float
    """Age of the copy in days, from."""
    to_day: float | None
    """Up to, not including; None: open."""
    lift: float
    """Treatment minus holdout, per decision."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    decisions: int
    """Decisions behind it."""


@dataclass(frozen=True)
class Fading:
    """Whether the lift fades with the age of the copy."""

    __pydantic_config__ = DOCUMENTED

    ages: tuple[AgeLift, ...]
    """The lift by age."""
    slope: float
    """Change of the lift per doubling of age."""
    slope_high: float
    """Upper end of its one-sided interval."""
    alarm: bool
    """Whether it fades."""
    sentence: str
    """The finding in words."""


class _Entries(NamedTuple):
    """Which rows speak for which cells, with what weight."""

    row: Ints
    cell: Ints
    weight: Floats


@dataclass(frozen=True)
class _Cells:
    """m cells of content and age bin. ``shown``: entries of treatment rows; ``held``: of holdout rows."""

    content: Ints
    age: Ints
    shown: _Entries
    held: _Entries
    reward: Floats
    codes: Ints
    """Number of each row's unit."""


def fading(training: TrainingSet, settings: LiftSettings) -> Fading:
    """Lift by age and whether it fades. Raises :class:`EstimateRefused` without two ages of one content."""
    rows = dealt_by_chance(training)
    cells = _enough(_cells(rows, _born(training)))
    size = _sizes(cells)
    age = cells.age.astype(np.float64)
    inside = age - _mean_by(cells.content, age, size)
    spread = float((size * inside**2).sum())
    if spread == 0.0:
        raise EstimateRefused(
            f"No content has been shown at two ages to {LEAST_ROWS:,} customers each, beside a holdout: it is too early "
            "to say whether lift fades"
        )
    units = int(cells.codes.max()) + 1
    slope, error = _contrast(cells, size * inside / spread)
    slope_high = slope + float(reaches(units, settings.alpha, settings.tuned_units, sides=1)) * error
    ages = tuple(_at_age(cells, size, bin_, units, settings) for bin_ in np.unique(cells.age))
    return Fading(ages, slope, slope_high, slope_high < 0.0, _sentence(ages, slope, slope_high))


def _born(training: TrainingSet) -> dict[int, int]:
    """When each content was first shown, in whatever group."""
    born: dict[int, int] = {}
    for content, at in zip(training.content.tolist(), training.decided_at.tolist(), strict=True):
        born[content] = min(at, born.get(content, at))
    return born


def _cells(rows: TrainingSet, born: Mapping[int, int]) -> _Cells:
    """Every content at every age."""
    entries: dict[bool, list[tuple[int, int, int, float]]] = {True: [], False: []}
    for row, at in enumerate(rows.decided_at.tolist()):
        if rows.group[row] == "treatment":
            content = int(rows.content[row])
            entries[True].append((row, content, _bin(at, born[content]), 1.0))
            continue
        campaign = rows.contents[rows.content[row]].campaign_id
        for candidate in rows.candidates[row]:
            content = rows.index[campaign, candidate.content_id]
            if candidate.policy_p and content in born:
                entries[False].append((row, content, _bin(at, born[content]), candidate.policy_p))
    keys = sorted({(content, age) for part in entries.values() for _, content, age, _ in part})
    place = {key: index for index, key in enumerate(keys)}
    shown, held = (
        _Entries(
            np.array([row for row, *_ in part], dtype=np.int64),
            np.array([place[content, age] for _, content, age, _ in part], dtype=np.int64),
            np.array([weight for *_, weight in part], dtype=np.float64),
        )
        for part in (entries[True], entries[False])
    )
    codes = np.unique(np.array(clusters_of(rows)), return_inverse=True)[1].reshape(-1)
    table = np.array(keys, dtype=np.int64).reshape(-1, 2)
    return _Cells(table[:, 0], table[:, 1], shown, held, rows.reward, codes)


def _enough(cells: _Cells) -> _Cells:
    """Only cells that both groups speak for."""
    treated, held = (np.bincount(part.cell, part.weight, len(cells.content)) for part in (cells.shown, cells.held))
    kept = (treated >= LEAST_ROWS) & (held >= LEAST_ROWS / 3)
    if not kept.any():
        raise EstimateRefused(
            f"No content has {LEAST_ROWS:,} treatment decisions of one age beside {LEAST_ROWS / 3:.0f} of the holdout"
        )
    place = np.cumsum(kept) - 1
    shown, held_out = (
        _Entries(part.row[inside], place[part.cell[inside]], part.weight[inside])
        for part, inside in ((part, kept[part.cell]) for part in (cells.shown, cells.held))
    )
    return _Cells(cells.content[kept], cells.age[kept], shown, held_out, cells.reward, cells.codes)


def _sizes(cells: _Cells) -> Floats:
    treated, held = (np.bincount(part.cell, part.weight, len(cells.content)) for part in (cells.shown, cells.held))
    squares = np.bincount(cells.held.cell, cells.held.weight**2, len(cells.content))
    return np.asarray(1.0 / (1.0 / treated + squares / held**2))


def _contrast(cells: _Cells, coefficients: Floats) -> tuple[float, float]:
    """Σ coefficient · lift over the cells, and its standard error by unit. Rows are centred at their content's mean."""
    value = 0.0
    influence = np.zeros(int(cells.codes.max()) + 1)
    for part, sign in ((cells.shown, 1.0), (cells.held, -1.0)):
        reward = cells.reward[part.row]
        total = np.bincount(part.cell, part.weight, len(coefficients))
        mean = np.bincount(part.cell, part.weight * reward, len(coefficients)) / total
        value += sign * float((coefficients * mean).sum())
        centre = _mean_by(cells.content, mean, total.astype(np.float64))
        share = sign * (coefficients / total)[part.cell] * part.weight * (reward - centre[part.cell])
        influence += np.bincount(cells.codes[part.row], share, len(influence))
    return value, float(np.sqrt((influence**2).sum()))


def _at_age(cells: _Cells, size: Floats, bin_: int, units: int, settings: LiftSettings) -> AgeLift:
    here = cells.age == bin_
    lift, error = _contrast(cells, np.where(here, size, 0.0) / size[here].sum())
    reach = float(reaches(units, settings.alpha, settings.tuned_units)) * error
    return AgeLift(
        from_day=float(EDGES[bin_]),
        to_day=float(EDGES[bin_ + 1]) if bin_ + 1 < len(EDGES) else None,
        lift=lift,
        low=lift - reach,
        high=lift + reach,
        decisions=int(here[cells.shown.cell].sum()),
    )


def _mean_by(group: Ints, values: Floats, weight: Floats) -> Floats:
    """Each group's weighted mean, repeated for its members."""
    total = np.bincount(group, weight)
    mean = np.bincount(group, weight * values) / np.where(total > 0.0, total, 1.0)
    return np.asarray(mean[group])


def _bin(at: int, born: int) -> int:
    return int(np.searchsorted(EDGES, (at - born) / DAY, side="right")) - 1


def _sentence(ages: tuple[AgeLift, ...], slope: float, slope_high: float) -> str:
    young, old = ages[0], ages[-1]
    seen = (
        f"{1000.0 * young.lift:+,.3g} per 1,000 decisions when {young.from_day:g} days old, "
        f"{1000.0 * old.lift:+,.3g} from day {old.from_day:g} on"
    )
    if slope_high < 0.0:
        return (
            f"The lift fades as copy ages ({seen}): each doubling of age costs {-1000.0 * slope:,.3g}. Write new copy."
        )
    return f"No fading shown ({seen})."
