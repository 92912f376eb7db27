"""Behaviour cloning: the apprentice chooses as marketers do."""

import numpy as np
import pytest

from pipelines.simulator import draw_customers, true_values
from reward_models.demonstrations.cloning import clone_of
from reward_models.demonstrations.implied import implied_by
from tests.reward_models.demonstrations.worlds import WORLD, by_worth, chosen, copy_of


def test_the_apprentice_copies_probabilities() -> None:
    """Its probabilities are near those with which marketers chose, and sum to one."""
    rng = np.random.default_rng(0)
    contents = copy_of(rng, 12)
    shown = by_worth(rng, contents, 600, sharpness=2.0)
    clone = clone_of(shown, implied_by(shown))
    off = []
    for customer in draw_customers(WORLD, rng, 100):
        click = true_values(WORLD, [customer], [content.features for content in contents[:5]]).click[0]
        own = clone.probabilities(customer.context, contents[:5])
        off.append(float(np.abs(own - click**2 / (click**2).sum()).sum()) / 2)

        assert own.sum() == pytest.approx(1.0)

    assert float(np.mean(off)) < 0.1


def test_agreement_is_held_out() -> None:
    """The share of choices it foretells is told on choices it has not seen: for lots that is chance, although it could
    have learned them by heart."""
    rng = np.random.default_rng(1)
    contents, customers = copy_of(rng, 30), draw_customers(WORLD, rng, 300)
    lots = chosen(rng, customers, contents, np.zeros((300, 30)))
    taste = by_worth(rng, contents, 300)

    assert clone_of(lots, implied_by(lots)).agreement == pytest.approx(0.2, abs=0.07)
    assert clone_of(taste, implied_by(taste)).agreement > 0.4


def test_trees_copy_what_no_sum_can() -> None:
    """Marketers who like exactly one of question and number, but not both, are copied by the trees."""
    rng = np.random.default_rng(2)
    contents, customers = copy_of(rng, 40), draw_customers(WORLD, rng, 500)
    either = np.array([float(content.features["question"] != content.features["number"]) for content in contents])
    shown = chosen(rng, customers, contents, np.tile(4.0 * either, (500, 1)))
    implied = implied_by(shown)
    clone = clone_of(shown, implied)

    assert clone.rounds > 0
    assert clone.fit > implied.fit + 0.15
