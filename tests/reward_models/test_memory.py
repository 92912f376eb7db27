"""What a new model may know of its contents from the start."""

from dataclasses import replace

import numpy as np
import pytest

from infra.clock import DAY
from reward_models.aging import AGELESS, Aging
from reward_models.boosted import fit
from reward_models.bundle import pack, unpack
from reward_models.memory import NOTHING, remember
from reward_models.priors import prior_of
from tests.reward_models.training import SMALL, copy, targeted, training_set, worded


def test_days_are_added_up_by_content() -> None:
    """Exposures, rewards and promises of each content are those of its decisions, in the order asked for."""
    judged = training_set((copy("a", "A"), copy("b", "B")), content=[0, 1, 0, 0], reward=[1, 0, 0, 1])
    memory = remember(judged, np.array([0.2, 0.3, 0.2, 0.4]), {"click": 2.0})
    found = memory.counts("c", ["b", "new", "a"], AGELESS.at(2 * DAY))

    assert found.exposures.tolist() == [1, 0, 3]
    assert found.sums.tolist() == [0, 0, 4]
    assert found.sum_squares.tolist() == [0, 0, 8]
    np.testing.assert_allclose(found.expected, [0.3, 0.0, 0.8])


def test_what_is_remembered_is_forgotten_too() -> None:
    """With a half-life earlier days count less; other campaigns know nothing of it."""
    judged = training_set((copy("a", "A"),), content=[0, 0], reward=[1, 0])
    days = replace(judged, decided_at=np.array([10 * DAY, 14 * DAY]))
    memory = remember(days, np.zeros(2), {"click": 1.0})
    aged = Aging(half_life=4.0).at(14 * DAY + DAY // 2)

    np.testing.assert_allclose(memory.counts("c", ["a"], aged).exposures, [1.5])
    assert memory.counts("other", ["a"], aged).exposures.tolist() == [0.0]


def test_nothing_judged_is_nothing_remembered() -> None:
    """A model that was judged on nothing starts from its predictions."""
    empty = targeted(10).subset(np.zeros(10, dtype=bool))

    assert remember(empty, np.zeros(0), {"click": 1.0}) == NOTHING


def test_a_bundle_keeps_the_memory() -> None:
    """What is packed is read back to the same numbers."""
    training = targeted(600)
    model = fit(training, SMALL)
    memory = remember(training, model.rows(training.contexts, training.contents[:1] * 600), {"click": 1.0})

    assert unpack(pack(replace(model, memory=memory), cutoff=5)).memory == memory


def test_a_new_campaign_starts_from_the_loop_and_a_known_one_from_its_own_level() -> None:
    """The level of a campaign never seen is the loop's, as unsure as campaigns lie apart; its spread is what the model's
    held-out errors say."""
    model = fit(worded(), SMALL)
    new, known = prior_of(model, "never seen"), prior_of(model, "c3")

    assert new.level == pytest.approx(model.levels.mean)
    assert new.level_sd == pytest.approx(float(np.std(list(model.levels.campaigns.values()))))
    assert known.level == pytest.approx(model.levels.campaigns["c3"])
    assert new.proportional
    assert new.spread == pytest.approx(max(0.05, model.calibration.spread))


def test_few_campaigns_do_not_make_a_model_sure_of_new_contents() -> None:
    """Held out by customers, a model's errors are those about contents it knows: the usual spread stays the least."""
    assert prior_of(fit(targeted(2_000), SMALL), "c").spread >= 0.23
