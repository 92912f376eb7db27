"""Results per content for what works: all customers, and each segment, from mature decisions and past results.

A content is compared with others that went to customers of the same segment in the same week (``effects_within``), so
that neither who was targeted nor when counts as what the copy did. Segments are the values of the context features with
few values, each with a fair share of the decisions.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from pipelines.reporting.facts import Effect
from pipelines.reporting.league import effects_within
from pipelines.reporting.works import Results, what_works
from reward_models.dataset import TrainingSet
from reward_models.features import text_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_DECISIONS = 100_000
"""The newest are looked at."""
MOST_SEGMENTS = 6
MOST_VALUES = 6
"""A feature with more values is no segment."""
LEAST_SHARE = 0.1
PER_SEGMENT = 4
"""Effects that are told of a segment."""
_WEEK = 7 * DAY


def effects_of(training: TrainingSet) -> tuple[Effect, ...]:
    """What works for all customers, then for each segment."""
    rows = np.argsort(training.decided_at, kind="stable")[-MOST_DECISIONS:]
    said = segments(training, rows)
    found = list(what_works(_everybody(training, rows, said)))
    for label, member in said:
        inside = rows[member]
        found += what_works(_results(training, inside, np.zeros(len(inside), np.int64)), label, PER_SEGMENT)
    return tuple(found)


def segments(training: TrainingSet, rows: Ints) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """``feature: value`` and which of the rows it holds for, by feature, the largest first."""
    values: dict[str, list[str | None]] = {}
    for place, row in enumerate(rows.tolist()):
        for name, value in training.contexts[row].items():
            if isinstance(value, str | bool):
                values.setdefault(name, [None] * len(rows))[place] = str(value)
    found = []
    for name in sorted(values):
        counts = Counter(value for value in values[name] if value is not None)
        large = [value for value, count in counts.most_common() if count >= LEAST_SHARE * len(rows)]
        if 2 <= len(counts) <= MOST_VALUES:
            found += [(f"{name}: {value}", np.array([each == value for each in values[name]])) for value in large]
    return found[:MOST_SEGMENTS]


def _everybody(training: TrainingSet, rows: Ints, said: list[tuple[str, npt.NDArray[np.bool_]]]) -> Results:
    """All rows, in cells of week and segments, with past results."""
    strata = np.zeros(len(rows), dtype=np.int64)
    for _, member in said:
        strata = 2 * strata + member
    return _results(training, rows, strata, with_past=True)


def _results(training: TrainingSet, rows: Ints, strata: Ints, with_past: bool = False) -> Results:
    """Cells are campaign, week and stratum. Nobody knows which segment past results are of."""
    contents, campaigns = training.contents, _codes([content.campaign_id for content in training.contents])
    content = training.content[rows]
    week = training.decided_at[rows] // _WEEK
    parts = [campaigns[content], week, strata, content]
    entries, of_entry = np.unique(np.array(parts), axis=1, return_inverse=True)
    of_entry = of_entry.reshape(-1)
    n = np.bincount(of_entry).astype(np.float64)
    rate = np.bincount(of_entry, training.reward[rows]) / n if len(n) else n
    cell = np.unique(entries[:3], axis=1, return_inverse=True)[1].reshape(-1)
    total, shown = (np.bincount(content, weights, len(contents)) for weights in (training.reward[rows], None))
    squares = np.bincount(content, training.reward[rows] ** 2, len(contents))
    apart = effects_within(cell, entries[3], n, rate, len(contents)) if len(n) else np.zeros(len(contents))
    decided = np.flatnonzero(shown)
    made = [_of_decisions(decided, campaigns, apart, *(each.astype(np.float64) for each in (total, squares, shown)))]
    past = list(_of_past(training, campaigns)) if with_past else []
    return _joined(made + past, [text_of(each) for each in contents])


def _of_decisions(
    decided: Ints, campaigns: Ints, apart: Floats, total: Floats, squares: Floats, shown: Floats
) -> tuple[Ints, Ints, Floats, Floats, Floats]:
    """Campaign, content, mean, sampling variance and level of the contents that were decided for."""
    group, n = campaigns[decided], shown[decided]
    weight = np.bincount(group, n)
    level = (np.bincount(group, total[decided]) / np.where(weight, weight, 1.0))[group]
    middle = (np.bincount(group, n * apart[decided]) / np.where(weight, weight, 1.0))[group]
    within = np.bincount(group, squares[decided] - total[decided] ** 2 / n)
    freedom = np.maximum(np.bincount(group, n) - np.bincount(group), 1.0)
    return group, decided, level + apart[decided] - middle, (within / freedom)[group] / n, level


def _of_past(training: TrainingSet, campaigns: Ints) -> Iterator[tuple[Ints, Ints, Floats, Floats, Floats]]:
    """Past results that are trusted and whose noise is known, as campaigns of their own."""
    past = training.history
    rows = np.flatnonzero(past.trusted & np.isfinite(past.noise)) if len(past) else np.zeros(0, np.int64)
    if not len(rows):
        return
    group, n = campaigns[past.content[rows]], past.exposures[rows]
    weight = np.bincount(group, n)
    level = np.bincount(group, n * past.reward[rows])[group] / weight[group]
    yield group + len(training.contents), past.content[rows], past.reward[rows], level / n, level


def _joined(parts: list[tuple[Ints, Ints, Floats, Floats, Floats]], texts: list[str]) -> Results:
    group, content, mean, variance, level = (np.concatenate(column) for column in zip(*parts, strict=True))
    usable = (
        (level > 0.0) & (variance > 0.0) & np.array([bool(texts[each].strip()) for each in content], dtype=np.bool_)
    )
    codes = np.unique(group[usable], return_inverse=True)[1].reshape(-1).astype(np.int64)
    chosen = tuple(texts[each] for each in content[usable])
    return Results(codes, chosen, mean[usable], variance[usable], level[usable])


def _codes(names: list[str]) -> Ints:
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].reshape(-1).astype(np.int64)
