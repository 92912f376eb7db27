"""Past lists are valued for a named reader: what ran is the plain mean, what is left out is counted."""

from dataclasses import replace

import numpy as np
import pytest

from infra.errors import EstimateRefused
from ingestion.events import Candidate
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.dataset import TrainingSet
from reward_models.evaluation import lessons
from reward_models.lists import LEARNED, RAN, evaluate_lists, has_lists, lists_by_chance
from tests.reward_models.training import copy, training_set

RATES = np.array([0.5, 0.1, 0.1])
THIRDS = tuple(Candidate(content_id=name, policy_p=1 / 3, behaviour_p=1 / 3) for name in "abc")


def definition() -> LoopDefinition:
    return parse_definition(
        {
            "loop": "emails",
            "metrics": [{"name": "click", "event": "click"}],
            "reward": {"click": 1},
            "model": {"rounds": 20, "min_leaf": 20},
            "gate": {"split": "unit"},
        }
    )


def drawn(count: int = 600, seed: int = 5) -> TrainingSet:
    """Lists of two of three contents, drawn evenly; each position is clicked for its content alone."""
    rng = np.random.default_rng(seed)
    shown = np.array([rng.permutation(3)[:2] for _ in range(count)]).ravel()
    rows = training_set(
        [copy(name, f"Line {name}", line=name) for name in "abc"],
        content=shown.tolist(),
        reward=(rng.random(2 * count) < RATES[shown]).astype(float).tolist(),
        unit=[f"u{row // 4}" for row in range(2 * count)],
        position=[1, 2] * count,
    )
    return replace(
        rows,
        decision_id=tuple(f"d{row // 2:04}" for row in range(2 * count)),
        propensity=np.tile([1 / 3, 1 / 2], count),
        candidates=(THIRDS,) * (2 * count),
    )


def test_lists_are_valued_under_the_named_reader() -> None:
    """What ran is the plain mean of the lists that are judged, and a policy that prefers the best content is worth more."""
    rows = drawn()
    found = evaluate_lists(rows, definition(), ["click"], "independent")
    (report,) = found.metrics
    judged = np.any([part for _, part in lessons(rows.subset(rows.position == 1), definition())], axis=0)

    assert (found.lists, found.positions, found.left_out, found.reader) == (600, 2, 0, "independent")
    assert report.values[RAN].value == pytest.approx(rows.reward.reshape(-1, 2).sum(axis=1)[judged].mean())
    assert report.values[RAN].value < report.values[LEARNED].low < RATES[0] + RATES[1]
    assert "what stands there alone" in report.values[LEARNED].note


def test_the_order_of_rows_does_not_matter() -> None:
    """Positions are read, not assumed: shuffled rows are the same lists."""
    rows = drawn(200)
    shuffled = rows.subset(np.random.default_rng(1).permutation(len(rows)))
    wanted = {row["decision"]: row["shown"] for row in listed(rows)}

    assert {row["decision"]: row["shown"] for row in listed(shuffled)} == wanted


def listed(rows: TrainingSet) -> list[dict[str, object]]:
    """Every list with its contents in order."""
    lists = lists_by_chance(rows)
    return [
        {"decision": rows.decision_id[places[0]], "shown": [rows.chosen[place] for place in places]}
        for places in lists.rows.tolist()
    ]


def test_lists_that_chance_did_not_draw_are_left_out() -> None:
    """Held-out lists, unknown propensities, other candidates and other lengths are left out and counted."""
    rows = drawn(50)
    group = ("holdout",) * 2 + rows.group[2:]
    propensity = rows.propensity.copy()
    propensity[3] = np.nan
    candidates = (*rows.candidates[:-2], *(THIRDS[::-1],) * 2)
    mixed = replace(rows, group=group, propensity=propensity, candidates=candidates).subset(
        np.delete(np.arange(100), 11)
    )
    found = lists_by_chance(mixed)

    assert (len(found), found.left_out) == (46, 3)


def test_without_lists_a_reader_is_refused() -> None:
    """Where every decision showed one content there is no list to value, and the reason says what makes one."""
    single = drawn(50).subset(np.arange(0, 100, 2))

    assert (has_lists(single), has_lists(drawn(5))) == (False, True)
    with pytest.raises(EstimateRefused, match="`slots` of 2 or more"):
        evaluate_lists(single, definition(), ["click"], "cascade")


def test_outcomes_that_never_differ_are_refused() -> None:
    """Without any click nothing is learned: no value, but the reason, for each policy."""
    rows = drawn(100)
    found = evaluate_lists(replace(rows, metrics={"click": np.zeros(200)}), definition(), ["click"], "cascade")

    assert found.metrics[0].values == {}
    assert set(found.metrics[0].refused) == {RAN, LEARNED}
