"""Clickbait: clicks up, purchases down."""

import numpy as np

from ingestion.loops import LiftSettings
from reward_models.clickbait import find_clickbait, metric_pair
from tests.reward_models.holdouts import Rate, with_holdout
from tests.reward_models.training import definition

SETTINGS = LiftSettings()
THIRDS = np.array([0.4, 0.3, 0.3])
RULES = definition()


def rate_of(*rates: float) -> Rate:
    """A click rate per content, whatever its age."""
    return lambda content, age: np.array(rates)[content] + 0.0 * age


def test_copy_that_wins_clicks_and_loses_purchases_is_named() -> None:
    """Twice the clicks of which none buys is clickbait; the sentence names the content and both differences."""
    rows = with_holdout(9_000, THIRDS, rate_of(0.2, 0.2, 0.4), bought=np.array([0.5, 0.5, 0.02]), share=0.1)
    found = find_clickbait(rows, RULES, SETTINGS)

    assert [(each.content_id, each.suspicion) for each in found] == [("c2", "clickbait")]
    assert found[0].early > 0.0 > found[0].late
    assert "c2" in found[0].sentence


def test_clicks_that_buy_less_are_suspect() -> None:
    """Twice the clicks with a third of the purchases each: less comes of them, though not clearly less in all."""
    rows = with_holdout(6_000, THIRDS, rate_of(0.2, 0.2, 0.4), bought=np.array([0.5, 0.5, 0.2]), share=0.1)

    assert [each.suspicion for each in find_clickbait(rows, RULES, SETTINGS)] == ["suspect"]


def test_copy_that_is_simply_better_is_not_suspected() -> None:
    """More clicks that buy as other clicks do are what copy is for."""
    rows = with_holdout(9_000, THIRDS, rate_of(0.2, 0.2, 0.4), bought=np.array([0.5, 0.5, 0.5]), share=0.1)

    assert find_clickbait(rows, RULES, SETTINGS) == ()


def test_equal_copy_is_rarely_suspected() -> None:
    """In 40 worlds of equal contents nothing is named, though every content is looked at."""
    named = [
        find_clickbait(
            with_holdout(1_500, THIRDS, rate_of(0.2, 0.2, 0.2), bought=np.full(3, 0.3), seed=seed), RULES, SETTINGS
        )
        for seed in range(40)
    ]

    assert sum(bool(each) for each in named) <= 1


def test_the_pair_is_found_by_the_events() -> None:
    """Early is the click, late the purchase, money before counts; without one of them there is no pair and no suspect."""
    clicks = {"name": "c", "event": "click"}
    orders, money = {"name": "o", "event": "purchase"}, {"name": "m", "event": "purchase", "aggregate": "sum"}
    opens = {"name": "open", "event": "open"}

    assert metric_pair(definition(metrics=[orders, money, opens, clicks], reward={"c": 1})) == ("c", "m")
    assert metric_pair(definition(metrics=[orders, opens], reward={"o": 1})) == ("open", "o")
    only_clicks = definition(metrics=[clicks], reward={"c": 1})
    assert metric_pair(only_clicks) is None
    assert find_clickbait(with_holdout(500, THIRDS, rate_of(0.2, 0.2, 0.2)), only_clicks, SETTINGS) == ()
