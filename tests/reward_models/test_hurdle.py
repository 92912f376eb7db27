"""What training makes of outcomes that are still to come, and of purchases behind clicks."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from infra.clock import DAY, HOUR
from ingestion.loops import LoopDefinition
from reward_models.boosted import fit
from reward_models.dataset import Arrivals, Timing, TrainingSet
from reward_models.delays import Delays, Law, fit_delays
from reward_models.hurdle import foresee, hurdle_of
from tests.reward_models.training import SMALL, copy, definition, timed, training_set

Floats = npt.NDArray[np.float64]
MODEL = SMALL.model_dump(mode="json")
CLICKS = definition(model=MODEL)
MONEY = definition(reward={"revenue": 1.0}, model=MODEL)
SLOW = {"click": lambda u: DAY * u, "revenue": lambda u: 0 * u}


def shop(count: int, *, mature: bool, seed: int = 3) -> tuple[TrainingSet, Floats]:
    """A click in ten; of those who clicked on ``a`` 60 % buy, on ``b`` 20 %, for 10 or 30; and what a click is worth.

    Clicks come at once, purchases within a day and a half, decisions are up to two days old.
    """
    rng = np.random.default_rng(seed)
    content, clicked = rng.integers(0, 2, count), rng.random(count) < 0.1
    delay = rng.uniform(0, 1.5 * DAY, count)
    age = np.full(count, MONEY.maturity, dtype=np.float64) if mature else rng.uniform(0, 2 * DAY, count)
    bought = clicked & (rng.random(count) < np.where(content == 0, 0.6, 0.2)) & (delay <= age)
    revenue = np.where(bought, rng.choice([10.0, 30.0], count), 0.0)
    contents = (copy("a", "", kind="first"), copy("b", "", kind="second"))
    plain = training_set(contents, content=content.tolist(), reward=revenue.tolist())
    click, purchase = np.flatnonzero(clicked), np.flatnonzero(bought)
    arrivals = {"click": Arrivals(click, np.zeros(len(click))), "revenue": Arrivals(purchase, delay[purchase])}
    timing = Timing(np.minimum(age, MONEY.maturity), MONEY.maturity, arrivals, {})
    metrics = {"click": clicked.astype(np.float64), "revenue": revenue}
    return replace(plain, metrics=metrics, timing=timing), np.where(content == 0, 12.0, 4.0)


def foreseen(training: TrainingSet, rules: LoopDefinition) -> TrainingSet:
    """With the laws of the set itself."""
    return foresee(training, fit_delays(training, rules), rules)


def mean(training: TrainingSet) -> float:
    """Reward per exposure."""
    assert training.exposures is not None
    return float(np.average(training.reward, weights=training.exposures))


def test_a_mature_set_without_hurdles_is_as_it_is() -> None:
    """Nothing is weighed, nothing is scaled."""
    training = timed(500, CLICKS, SLOW)
    mature = training.subset(training.mature)

    assert foresee(mature, fit_delays(mature, CLICKS), CLICKS) is mature


def test_what_has_not_come_is_made_up_for() -> None:
    """Half of all decisions end in a click, most are too young to show it: per exposure it is a half again."""
    training = timed(8_000, CLICKS, SLOW)

    found = foreseen(training, CLICKS)

    assert training.reward[~training.mature].mean() < 0.42
    assert mean(found) == pytest.approx(0.5, abs=0.03)


def test_the_model_of_a_young_log_is_that_of_the_final_one() -> None:
    """Two contents of one rate, one of them begun yesterday: trained on what came so far it looks worse, foreseen not."""
    training = timed(8_000, CLICKS, SLOW)
    assert training.timing is not None
    young = training.timing.age < DAY / 2
    training = replace(
        training, content=np.where(young, 1, 0), contents=(copy("k0", "", kind="old"), copy("k1", "", kind="new"))
    )

    ignoring, ours = fit(training, CLICKS.model), fit(foreseen(training, CLICKS), CLICKS.model)

    def gap(scores: Floats) -> float:
        return float(scores[0] - scores[1])

    assert gap(ignoring.rows([{}, {}], training.contents)) > 0.1
    assert abs(gap(ours.rows([{}, {}], training.contents))) < 0.06


def test_rows_that_have_hardly_begun_are_left_out() -> None:
    """Nothing can have come yet: they say nothing, whatever they show."""
    training = timed(1_000, CLICKS, SLOW)
    law = Law(times=(0.0, DAY / 2, DAY), shares=(0.0, 0.0, 1.0))

    found = foresee(training, Delays({"click": law}), CLICKS)

    assert found.timing is not None
    assert training.timing is not None
    assert len(found) < len(training)
    assert found.timing.age.min() > DAY / 2


def test_a_law_in_doubt_counts_little_however_many_rows_lean_on_it() -> None:
    """Of young rows that show c outcomes under a law of variance v no more than c / (1 + v·c) outcomes' worth is left."""
    training = timed(4_000, CLICKS, SLOW, contents=1)
    sure = Law(times=(0.0, DAY), shares=(0.5, 1.0), doubt=(0.0, 0.0))
    unsure = Law(times=(0.0, DAY), shares=(0.5, 1.0), doubt=(0.25, 0.25))

    known = foresee(training, Delays({"click": sure}), CLICKS)
    doubted = foresee(training, Delays({"click": unsure}), CLICKS)

    young = ~training.mature
    assert known.exposures is not None
    assert doubted.exposures is not None
    shown = training.reward[young].sum()
    assert doubted.exposures[young] * (1 + 0.25 * shown) == pytest.approx(known.exposures[young])
    assert doubted.exposures[~young].tolist() == [1.0] * int((~young).sum())


def test_the_default_reward_belongs_to_those_who_stay_silent() -> None:
    """At one half silent and a default of 4 against a click of 1 the mean is 2.5, long before maturity."""
    rules = definition(default_reward=4.0, model=MODEL)
    training = timed(8_000, rules, SLOW, rates={"click": 0.5, "revenue": 0.0})

    assert mean(foreseen(training, rules)) == pytest.approx(2.5, abs=0.1)


def test_a_click_is_the_hurdle_of_a_purchase() -> None:
    """Nearly all buyers have clicked; nothing comes before a click; buyers who mostly did not click have no hurdle."""
    training, _ = shop(8_000, mature=True)
    elsewhere = replace(training, metrics={**training.metrics, "revenue": training.metrics["revenue"][::-1]})

    assert hurdle_of(training, "revenue", MONEY) == "click"
    assert hurdle_of(training, "click", MONEY) is None
    assert hurdle_of(elsewhere, "revenue", MONEY) is None


def test_a_click_is_worth_what_is_bought_behind_it() -> None:
    """60 % of 20 on average for one content, 20 % for the other, whoever bought; without a click nothing."""
    training, worth = shop(12_000, mature=True)

    found = foreseen(training, MONEY)

    clicked = training.metrics["click"] > 0
    for content in (0, 1):
        rows = clicked & (training.content == content)
        assert found.reward[rows].mean() == pytest.approx(worth[rows][0], rel=0.2)
        assert found.reward[rows].std() < training.reward[rows].std() / 3
    assert not found.reward[~clicked].any()


def test_a_click_counts_before_its_purchase_can_have_come() -> None:
    """Clicks come at once, so every decision counts whole, and clicks are worth what they will be worth."""
    training, worth = shop(12_000, mature=False)

    found = foreseen(training, MONEY)

    clicked = training.metrics["click"] > 0
    assert found.exposures is not None
    assert found.exposures.min() > 0.9
    assert found.reward[clicked].mean() == pytest.approx(worth[clicked].mean(), rel=0.15)
    assert training.reward[clicked].mean() < 0.7 * worth[clicked].mean()


def test_no_row_values_itself() -> None:
    """Another amount for one buyer changes the worth of others' clicks, not of that buyer's own."""
    training, _ = shop(6_000, mature=True)
    buyer = int(np.flatnonzero(training.metrics["revenue"])[0])
    revenue = training.metrics["revenue"].copy()
    revenue[buyer] = 500.0
    richer = replace(training, metrics={**training.metrics, "revenue": revenue}, reward=revenue)

    before, after = foreseen(training, MONEY).reward, foreseen(richer, MONEY).reward

    assert after[buyer] == before[buyer]
    assert (after != before).any()


def test_without_a_hurdle_a_purchase_counts_by_its_own_delay() -> None:
    """Nobody knows of any click: young decisions count little, and what they lack is made up for."""
    training, worth = shop(12_000, mature=False)
    training = replace(training, metrics={**training.metrics, "click": np.zeros(len(training))})

    found = foreseen(training, MONEY)

    assert found.timing is not None
    assert found.exposures is not None
    assert found.exposures[found.timing.age < 6 * HOUR].max() < 0.5
    assert mean(found) == pytest.approx(0.1 * worth.mean(), rel=0.15)
