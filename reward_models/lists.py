"""What past lists say: what the loop's policy would earn with lists, under a named model of the reader.

1. keep the lists that chance drew: treatment, online, every position's propensity known; with the candidates and the
   length that most of them share
2. who teaches whom, as for single decisions (``evaluation.py``): the first lists teach and are not judged
3. per metric and part: a reward model of that metric from other units that came before, and the pmf that the loop's
   policy draws lists from with it
4. reward per judged list of what ran, and of that policy (``slates.py``)

Who reads how is not in the data: the reader is named by who asks.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from infra.errors import EstimateRefused
from ingestion.loops import LoopDefinition
from reward_models.boosted import fit
from reward_models.choices import Choices
from reward_models.dataset import TrainingSet
from reward_models.evaluation import lessons
from reward_models.offpolicy import Estimate
from reward_models.slates import Reader, Slates, slate_value
from reward_models.trial import clusters_of, frozen_pmf

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OnStep = Callable[[int, int], None]

RAN, LEARNED = "what ran", "the loop's policy"


@dataclass(frozen=True)
class Lists:
    """n lists of l positions, each a decision. ``rows``: of the training set, (n, l), in order of position."""

    training: TrainingSet
    rows: Ints
    left_out: int
    """Lists with other candidates, another length, or without known propensities."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def positions(self) -> int:
        """How long the lists are."""
        return int(self.rows.shape[1])


@dataclass(frozen=True)
class ListReport:
    """One metric, per list. ``values``: by policy; ``refused``: why a value is missing."""

    metric: str
    values: dict[str, Estimate]
    refused: dict[str, str]


@dataclass(frozen=True)
class ListEvaluation:
    """Past lists, evaluated."""

    reader: Reader
    lists: int
    positions: int
    left_out: int
    metrics: tuple[ListReport, ...]


def evaluate_lists(
    training: TrainingSet,
    definition: LoopDefinition,
    metrics: list[str],
    reader: Reader,
    on_step: OnStep = lambda *_: None,
) -> ListEvaluation:
    """All steps of the module docstring. Raises :class:`EstimateRefused` when chance drew no list."""
    lists = lists_by_chance(training)
    reports = []
    for done, metric in enumerate(metrics, 1):
        reports.append(_report(lists, metric, definition, reader))
        on_step(done, len(metrics))
    return ListEvaluation(reader, len(lists), lists.positions, lists.left_out, tuple(reports))


def has_lists(training: TrainingSet) -> bool:
    """Whether any decision showed more than one content."""
    return bool((training.position > 1).any())


def lists_by_chance(training: TrainingSet) -> Lists:
    """Step 1. Raises :class:`EstimateRefused` when there are none."""
    found = _by_decision(training)
    drawn = {first: rows for first, rows in found.items() if len(rows) > 1 and _by_chance(training, rows)}
    if not drawn:
        raise EstimateRefused(
            f"Loop {training.loop_id!r} has no mature list of several contents with known propensities; rank with "
            "`slots` of 2 or more, or evaluate without a reader"
        )
    of_row, _ = Choices.of(training.candidates).sets()
    kinds = {first: (training.campaign_id[first], int(of_row[first]), len(rows)) for first, rows in drawn.items()}
    common = Counter(kinds.values()).most_common(1)[0][0]
    kept = [rows for first, rows in drawn.items() if kinds[first] == common]
    lists = sum(len(rows) > 1 for rows in found.values())
    return Lists(training, np.array(kept, dtype=np.int64), lists - len(kept))


def _by_decision(training: TrainingSet) -> dict[int, list[int]]:
    """Rows of each decision in order of position, by the row of its first."""
    found: dict[str, list[int]] = {}
    for row in np.argsort(training.position, kind="stable").tolist():
        found.setdefault(training.decision_id[row], []).append(row)
    return {rows[0]: rows for rows in sorted(found.values())}


def _by_chance(training: TrainingSet, rows: list[int]) -> bool:
    first = rows[0]
    drawn = training.group[first] == "treatment" and training.learning_mode[first] == "online"
    whole = training.position[rows].tolist() == list(range(1, len(rows) + 1))
    return drawn and whole and bool(np.isfinite(training.propensity[rows]).all())


def _report(lists: Lists, metric: str, definition: LoopDefinition, reader: Reader) -> ListReport:
    policy = _policy(lists, metric, definition)
    judged = np.asarray(policy.any(axis=1))
    values, refused = {}, {}
    for name, target in ((RAN, None), (LEARNED, policy)):
        try:
            if not judged.any():
                raise EstimateRefused(f"{metric} is the same for all lists that could teach others")
            values[name] = slate_value(_slates(lists, metric, judged, target), reader)
        except EstimateRefused as error:
            refused[name] = str(error)
    return ListReport(metric, values, refused)


def _slates(lists: Lists, metric: str, judged: npt.NDArray[np.bool_], target: Floats | None) -> Slates:
    """The judged lists; target: (n, k), None for what ran."""
    rows = lists.rows[judged]
    first = lists.training.subset(rows[:, 0])
    behaviour = Choices.of(first.candidates).table("behaviour_p")
    return Slates(
        chosen=_columns(lists)[judged],
        reward=lists.training.metrics[metric][rows],
        behaviour=behaviour,
        target=behaviour if target is None else target[judged],
        clusters=clusters_of(first),
    )


def _columns(lists: Lists) -> Ints:
    """Column of what stood at each position, (n, l)."""
    training = lists.training
    candidates = training.candidates[int(lists.rows[0, 0])]
    column = {candidate.content_id: place for place, candidate in enumerate(candidates)}
    shown = [column[training.contents[index].content_id] for index in training.content[lists.rows].ravel()]
    return np.array(shown, dtype=np.int64).reshape(lists.rows.shape)


def _policy(lists: Lists, metric: str, definition: LoopDefinition) -> Floats:
    """Steps 2 and 3: (n, k), zeros where there was nothing to learn from."""
    training = lists.training
    first = training.subset(lists.rows[:, 0])
    contents = first.candidate_contents(0)
    measured = replace(training, reward=training.metrics[metric])
    no_history = np.zeros(len(training.history), dtype=np.bool_)
    pmf = np.zeros((len(lists), len(contents)))
    for teaching, judged in lessons(first, definition):
        taught = lists.rows[teaching].ravel()
        if not len(taught) or np.ptp(measured.reward[taught]) == 0.0:
            continue
        model = fit(measured.subset(np.sort(taught), no_history), definition.model)
        contexts = [first.contexts[row] for row in np.flatnonzero(judged).tolist()]
        pmf[judged] = frozen_pmf(model, definition.policy, contexts, contents, definition.limits)
    return pmf
