"""Inverse reinforcement learning: the reward behind choices is recovered, for each kind of customer."""

import numpy as np
import pytest

from infra.errors import BadInput
from pipelines.simulator import TIERS, draw_customers, true_values
from pipelines.templates import FACTORS
from reward_models.demonstrations.design import design_of, situations_of
from reward_models.demonstrations.implied import implied_by
from reward_models.demonstrations.logit import fit_logit
from reward_models.posterior import SPREAD
from tests.reward_models.demonstrations.worlds import WORLD, by_worth, chosen, copy_of

SEEDS = 5


def test_planted_weights_are_recovered() -> None:
    """Marketers whose taste differs by tier choose 500 times: the 95 % intervals hold about 95 in 100 of the weights
    that made them choose, and the weights themselves are found."""
    held, planted, found = [], [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        contents, customers = copy_of(rng, 24), draw_customers(WORLD, rng, 500)
        taste = {tier: rng.normal(0.0, 0.7, len(FACTORS)) for tier in TIERS}
        f = np.array([[float(content.features[name]) for name in FACTORS] for content in contents])
        utility = np.array([taste[customer.tier] for customer in customers]) @ f.T
        implied = implied_by(chosen(rng, customers, contents, utility))
        for tier in TIERS:
            context = {"tier": tier, "device": "mobile", "days_since_order": 30}
            for weight in implied.weights(context):
                truth = taste[tier][FACTORS.index(weight.name)]
                held.append(weight.low <= truth <= weight.high)
                planted.append(truth)
                found.append(weight.weight)

    assert 0.9 <= float(np.mean(held)) <= 0.99
    assert np.corrcoef(planted, found)[0, 1] > 0.9


def test_implied_rewards_rank_copy_for_customers_nobody_chose_for() -> None:
    """300 noisy choices say which content is worth most to other customers: most of the gap between a random content
    and the best one for each is closed."""
    rng = np.random.default_rng(1)
    contents, customers = copy_of(rng, 20), draw_customers(WORLD, rng, 400)
    implied = implied_by(by_worth(rng, contents, 300, sharpness=1.5))
    truth = true_values(WORLD, customers, [content.features for content in contents]).click
    picked = implied.utility([customer.context for customer in customers], contents).argmax(axis=1)
    closed = (truth[np.arange(400), picked] - truth.mean(axis=1)).sum() / (truth.max(axis=1) - truth.mean(axis=1)).sum()

    assert closed > 0.8


def test_drawing_lots_implies_nothing() -> None:
    """Choices at random foretell no choice, and imply next to no difference in reward."""
    rng = np.random.default_rng(2)
    contents, customers = copy_of(rng, 12), draw_customers(WORLD, rng, 300)
    implied = implied_by(chosen(rng, customers, contents, np.zeros((300, 12))))

    assert implied.fit < 0.02
    assert implied.scale * implied.spread < 0.1 * SPREAD


def test_people_who_differ_widen_the_intervals() -> None:
    """Twenty people with tastes of their own tell less of the common taste than one person choosing as often: standard
    errors are clustered by person."""
    rng = np.random.default_rng(3)
    contents, customers = copy_of(rng, 16), draw_customers(WORLD, rng, 600)
    own = rng.normal(0.0, 1.0, (20, len(FACTORS)))
    f = np.array([[float(content.features[name]) for name in FACTORS] for content in contents])
    shown = chosen(rng, customers, contents, own[np.arange(600) % 20] @ f.T, people=20)
    design = design_of(shown)
    choices = situations_of(design, shown)
    penalty = np.ones(choices.phi.shape[1])
    crowd = fit_logit(choices, penalty).covariance
    alone = fit_logit(type(choices)(choices.phi, choices.begin, choices.chosen, ("one",) * 600), penalty).covariance

    assert np.trace(crowd[:6, :6]) > 2 * np.trace(alone[:6, :6])


def test_too_few_choices_are_refused() -> None:
    """Fewer than twenty choices, or candidates without any difference that is known, are refused in a sentence."""
    rng = np.random.default_rng(4)
    shown = by_worth(rng, copy_of(rng, 8), 30)
    blank = [type(one)(one.demonstration_id, "", {}, shown[0].candidates[:1] * 2, 0, 0) for one in shown]

    with pytest.raises(BadInput, match="20 are the least"):
        implied_by(shown[:19])
    with pytest.raises(BadInput, match="differ in no feature"):
        implied_by(blank)
