"""Choices as a prior: they rule where outcomes are few, are overruled where these are many, and are found out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ingestion.events import Content
from ingestion.loops import ModelSettings
from pipelines.simulator import draw_customers, true_values
from reward_models.boosted import fit
from reward_models.dataset import TrainingSet
from reward_models.demonstrations.choices import Demonstration
from reward_models.demonstrations.implied import Implied, implied_by
from reward_models.demonstrations.prior import believe, judged
from reward_models.demonstrations.teaching import learned_too
from tests.reward_models.demonstrations.worlds import WORLD, by_worth, copy_of
from tests.reward_models.training import training_set

CONTENTS = copy_of(np.random.default_rng(0), 8)


def log_of(count: int, seed: int) -> TrainingSet:
    """Decisions by lot, with clicks of the simulator's customers."""
    rng = np.random.default_rng(seed)
    customers = draw_customers(WORLD, rng, count)
    content = rng.integers(0, len(CONTENTS), count)
    click = true_values(WORLD, customers, [one.features for one in CONTENTS]).click[np.arange(count), content]
    return replace(
        training_set(
            CONTENTS,
            content=content.tolist(),
            contexts=[customer.context for customer in customers],
            reward=(rng.random(count) < click).astype(float).tolist(),
        ),
        propensity=np.full(count, 1 / len(CONTENTS)),
    )


def implied_from(sharpness: float, seed: int = 5) -> tuple[Implied, Sequence[Demonstration]]:
    """What marketers imply who know what copy is worth, or, with a negative sharpness, believe the contrary."""
    rng = np.random.default_rng(seed)
    shown = by_worth(rng, copy_of(rng, 20), 400, sharpness)
    return implied_by(shown), shown


def closed(training: TrainingSet) -> float:
    """Share of the gap between a random content and the best one for each customer that a model of the set closes."""
    customers = draw_customers(WORLD, np.random.default_rng(99), 400)
    truth = true_values(WORLD, customers, [one.features for one in CONTENTS]).click
    picked = fit(training, ModelSettings()).grid([one.context for one in customers], CONTENTS).argmax(axis=1)
    gained = truth[np.arange(400), picked] - truth.mean(axis=1)
    return float(gained.sum() / (truth.max(axis=1) - truth.mean(axis=1)).sum())


def test_choices_alone_make_a_model() -> None:
    """A loop without any outcome gets a model from choices about other copy; it closes most of the gap at once."""
    implied, shown = implied_from(1.5)
    believed = believe(training_set(()), implied, CONTENTS, [one.context for one in shown])

    assert believed.share == 1.0
    assert closed(believed.training) > 0.75


def test_few_outcomes_and_choices_teach_more_than_either() -> None:
    """With 200 decisions the model with choices is well above the one without, on the mean of three logs."""
    implied, _ = implied_from(1.5)
    logs = [log_of(200, seed) for seed in (1, 2, 3)]
    gained = [closed(believe(few, implied, CONTENTS, few.contexts).training) - closed(few) for few in logs]

    assert float(np.mean(gained)) > 0.1


def test_many_outcomes_overrule_choices() -> None:
    """Believed decisions stay as many as they were, so that their share falls with the outcomes."""
    implied, _ = implied_from(1.5)
    shares = [believe(log, implied, CONTENTS, log.contexts).share for log in (log_of(400, 2), log_of(40_000, 2))]

    assert shares[0] > 0.5
    assert shares[1] < 0.1


def test_outcomes_judge_choices() -> None:
    """Good taste is confirmed by outcomes; the contrary is called misleading and not believed at all; without outcomes
    nothing is said."""
    log = log_of(6_000, seed=3)
    good, bad = judged(log, implied_from(1.5)[0]), judged(log, implied_from(-1.5)[0])
    nothing = judged(training_set(()), implied_from(1.5)[0])

    assert (good.state, bad.state, nothing.state) == ("confirmed", "misleading", "unjudged")
    assert good.scale > nothing.scale > bad.scale == 0.0
    assert believe(log, implied_from(-1.5)[0], CONTENTS, log.contexts).training is log


def test_what_is_believed_is_no_decision() -> None:
    """Believed rows have no probability, are of no customer, keep the set's arrays aligned, and change its digest."""
    implied, shown = implied_from(1.5)
    log = log_of(50, seed=4)
    found = believe(log, implied, [*CONTENTS, _new()], [one.context for one in shown]).training
    added = np.arange(50, len(found))

    assert len(found.contexts) == len(found.candidates) == len(found.reward) == len(found)
    assert np.isnan(found.propensity[added]).all()
    assert {found.group[row] for row in added} == {"demonstration"}
    assert found.contents[-1] == _new()
    assert found.subset(added[:5]).digest != found.subset(added[5:10]).digest


def _new() -> Content:
    return Content(content_id="fresh", campaign_id="june", slots={}, features={"question": True})


def test_a_retrain_goes_on_without_choices_that_teach_nothing() -> None:
    """Too few choices, or candidates that are all alike to the model, leave the training set as it was."""
    log = log_of(50, seed=4)
    shown = implied_from(1.5)[1]
    alike = [replace(one, candidates=(_new(), _new()), chosen=0) for one in shown]

    assert learned_too(log, shown[:19], CONTENTS).training is log
    assert learned_too(log, alike, CONTENTS).training is log
    assert len(learned_too(log, shown, CONTENTS).training) > len(log)
