"""The trial: which decisions are judged, what the frozen policy is, and where the nuisance predictions come from."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from infra.database import reading
from infra.secrets import Secrets
from ingestion.loops import ContentLimits, LoopDefinition, PolicySettings
from reward_models.boosted import fit
from reward_models.dataset import TrainingSet
from reward_models.loading import load_training_set
from reward_models.trial import (
    Incumbent,
    clusters_of,
    dealt_by_chance,
    decided_by_chance,
    distinct_contexts,
    frozen_pmf,
    hold,
    learnable,
    nuisance,
    unit_folds,
)
from tests.pipelines.worlds import NOW, definition, populate

BASELINES = {"spring": {"content_ids": ["c-bold", "c-plain", "c-warm"], "weights": [0.0, 1.0, 0.0]}}


@pytest.fixture
def rules() -> LoopDefinition:
    return definition()


@pytest.fixture
def halves(engine: Engine, secrets: Secrets, rules: LoopDefinition) -> tuple[TrainingSet, TrainingSet]:
    """Decisions of a small world before and after its cutoff."""
    populate(engine, secrets, decisions=1_500, rules=rules)
    with reading(engine) as connection:
        whole = load_training_set(connection, rules, 1, as_of=99, now=NOW)
    earlier = whole.decided_at < NOW - rules.gate.window - rules.maturity
    return whole.subset(earlier), whole.subset(~earlier)


def test_only_decisions_that_chance_made_are_judged(halves: tuple[TrainingSet, TrainingSet]) -> None:
    """Holdout, apprentice, fallback, lower positions, unknown propensities and the caller's choices are left out."""
    later = halves[1].subset(np.arange(7))
    mixed = replace(
        later,
        group=("treatment", "holdout", *later.group[2:6], "customer_managed"),
        learning_mode=("online", "online", "apprentice", "fallback", *later.learning_mode[4:]),
        position=np.array([1, 1, 1, 1, 2, 1, 1]),
        propensity=np.array([0.3, 0.3, 0.3, 0.3, 0.3, np.nan, 0.3]),
    )

    assert decided_by_chance(mixed).decision_id == later.decision_id[:1]
    assert dealt_by_chance(mixed).decision_id == later.decision_id[:1]


def test_the_holdout_counts_where_chance_dealt_it(halves: tuple[TrainingSet, TrainingSet]) -> None:
    """A held-out decision is judged if its unit was dealt there by a known chance and the policy was asked."""
    later = halves[1].subset(np.arange(4))
    unasked = tuple(msgspec.structs.replace(one, policy_p=None) for one in later.candidates[3])
    mixed = replace(
        later,
        group=("treatment", "holdout", "holdout", "holdout"),
        holdout=np.array([0.5, 0.5, 0.0, 0.5]),
        candidates=(*later.candidates[:3], unasked),
    )

    assert dealt_by_chance(mixed).decision_id == later.decision_id[:2]


def test_a_unit_that_might_have_been_held_out_has_the_marginal_propensity(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """With half the units held out, what is drawn from is half the baseline and half the policy, in either group."""
    earlier, later = halves
    dealt = replace(later, holdout=np.full(len(later), 0.5))
    trial = hold(dealt, BASELINES, fit(earlier, rules.model), rules.policy, [])

    expected = 0.5 * np.array([0.0, 1.0, 0.0]) + 0.5 * trial.pmfs["running"]
    assert trial.behaviour == pytest.approx(expected, abs=1e-12)
    assert trial.propensity == pytest.approx(expected[np.arange(len(trial)), trial.chosen], abs=1e-12)


def test_the_frozen_policy_knows_who_likes_what(halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition) -> None:
    """Its probabilities sum to one, keep the floor, and follow the planted taste."""
    model = fit(halves[0], rules.model)
    contents = halves[1].candidate_contents(0)
    pmf = frozen_pmf(model, rules.policy, [{"segment": "new"}, {"segment": "old"}], contents)

    assert [contents[index].content_id for index in pmf.argmax(axis=1)] == ["c-bold", "c-warm"]
    assert pmf.sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-12)
    assert pmf.min() >= rules.policy.floor - 1e-12


def test_the_frozen_policy_keeps_the_limits(halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition) -> None:
    """What the gate judges is what would be served: limits on shares hold in every context of a trial too."""
    earlier, later = halves
    limits = {"c-warm": ContentLimits(most=0.25), "c-bold": ContentLimits(least=0.5)}
    model = fit(earlier, rules.model)
    trial = hold(later, BASELINES, model, rules.policy, [], limits=limits)
    ids = [content.content_id for content in later.candidate_contents(0)]

    assert trial.pmfs["challenger"][:, ids.index("c-warm")].max() <= 0.25 + 1e-12
    assert trial.pmfs["challenger"][:, ids.index("c-bold")].min() >= 0.5 - 1e-12


def test_every_policy_of_a_trial_is_a_distribution(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """Challenger, running, baseline and best single content sum to one per decision; the baseline is the stated one."""
    earlier, later = halves
    trial = hold(later, BASELINES, fit(earlier, rules.model), rules.policy, nuisance(earlier, later, rules))

    assert {policy: len(pmf) for policy, pmf in trial.pmfs.items()} == dict.fromkeys(
        ("challenger", "running", "baseline", "best_single"), len(later)
    )
    for pmf in trial.pmfs.values():
        assert pmf.sum(axis=1) == pytest.approx(np.ones(len(later)), abs=1e-9)
    assert trial.pmfs["baseline"].tolist() == [[0.0, 1.0, 0.0]] * len(later)


def test_a_campaign_without_a_baseline_has_the_uniform_one(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """Imported campaigns froze none: every candidate is as likely."""
    earlier, later = halves
    trial = hold(later, {"spring": {}}, fit(earlier, rules.model), rules.policy, [])

    assert trial.pmfs["baseline"] == pytest.approx(np.full((len(later), 3), 1 / 3))


def test_what_the_champion_did_not_decide_is_compared_with_the_frozen_champion(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """Its own decisions keep their stored probabilities; for those made before it served, it is asked."""
    earlier, later = halves
    model = fit(earlier, rules.model)
    its_own = np.arange(len(later)) % 2 == 0
    trial = hold(later, BASELINES, model, rules.policy, [], Incumbent(model, rules.policy, its_own))

    assert trial.pmfs["running"][its_own] == pytest.approx(np.full((its_own.sum(), 3), 1 / 3))
    assert (trial.pmfs["running"][~its_own] == trial.pmfs["challenger"][~its_own]).all()


def test_the_champion_is_asked_under_its_own_settings(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """The same model as a challenger under other settings: the champion's probabilities stay those it was gated with."""
    earlier, later = halves
    model, nobody = fit(earlier, rules.model), np.zeros(len(later), dtype=np.bool_)
    served = PolicySettings(kind="epsilon", epsilon=0.3, uniform_slice=0.0, floor=0.01)
    trial = hold(later, BASELINES, model, rules.policy, [], Incumbent(model, served, nobody))

    assert trial.pmfs["running"].max(axis=1) == pytest.approx(np.full(len(later), 0.8 * 0.97 + 0.01), abs=1e-9)
    assert not np.allclose(trial.pmfs["running"], trial.pmfs["challenger"], atol=0.05)


def test_a_trial_points_at_the_content_that_was_shown(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition
) -> None:
    """The stored probability at the chosen index is the stored propensity."""
    earlier, later = halves
    trial = hold(later, BASELINES, fit(earlier, rules.model), rules.policy, [])

    at = np.arange(len(trial))
    assert trial.pmfs["running"][at, trial.chosen] == pytest.approx(trial.propensity, abs=1e-12)


def test_nuisance_models_never_saw_the_units_they_predict(
    halves: tuple[TrainingSet, TrainingSet], rules: LoopDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every model, the units it was fitted on and the units it predicts have nothing in common."""
    earlier, later = halves
    fitted: list[set[str]] = []

    def watched(training: TrainingSet, settings: object) -> object:
        fitted.append(set(clusters_of(training)))
        return object()

    monkeypatch.setattr("reward_models.trial.fit", watched)
    models = nuisance(earlier, later, rules)
    predicted = [{clusters_of(later)[row] for row in np.flatnonzero(mask)} for mask, _ in models]

    assert [seen & units for seen, units in zip(fitted, predicted, strict=True)] == [set(), set()]
    assert sum(int(mask.sum()) for mask, _ in models) == len(later)


def test_folds_go_by_unit(halves: tuple[TrainingSet, TrainingSet]) -> None:
    """All decisions of a unit are in one fold, and every fold has some."""
    folds = unit_folds(halves[0], 3)

    by_unit: dict[str, set[int]] = {}
    for unit, fold in zip(clusters_of(halves[0]), folds.tolist(), strict=True):
        by_unit.setdefault(unit, set()).add(fold)
    assert max(len(found) for found in by_unit.values()) == 1
    assert set(folds.tolist()) == {0, 1, 2}


def test_outcomes_that_never_differ_teach_nothing(halves: tuple[TrainingSet, TrainingSet]) -> None:
    """No rows, or rows of one reward, are not learnable."""
    silent = replace(halves[0], reward=np.zeros(len(halves[0])))

    assert [learnable(part) for part in (halves[0], silent, halves[0].subset(np.arange(0)))] == [True, False, False]


def test_distinct_contexts_lead_back_to_every_row() -> None:
    """Equal contexts share one entry, whatever the order of their keys."""
    contexts = [{"a": 1, "b": 2}, {"a": 2}, {"b": 2, "a": 1}]
    distinct, of_row = distinct_contexts(contexts)

    assert [distinct[index] for index in of_row] == contexts
    assert len(distinct) == 2
