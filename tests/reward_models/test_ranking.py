"""Held-out campaigns are ranked fairly: pooled copy, unsplit components, honest intervals."""

import numpy as np
import pytest

from infra.errors import EstimateRefused
from ingestion.events import Content
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.dataset import History, TrainingSet
from reward_models.ranking import Pooled, deal_of, measure, pool, rank_held_out

NEWS = {"loop": "news", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}


def definition(rounds: int = 20) -> LoopDefinition:
    return parse_definition(NEWS | {"model": {"rounds": rounds, "min_leaf": 5}})


def past(rows: list[tuple[str, str, float, float]], trusted: list[bool] | None = None) -> TrainingSet:
    """Rows of (campaign, text, exposures, clicks)."""
    found: dict[tuple[str, str], int] = {}
    content = [found.setdefault((campaign, text), len(found)) for campaign, text, _, _ in rows]
    contents = tuple(
        Content(content_id=f"{campaign}/{text}", campaign_id=campaign, slots={"headline": text})
        for campaign, text in found
    )
    exposures = np.array([row[2] for row in rows], dtype=np.float64)
    clicks = np.array([row[3] for row in rows], dtype=np.float64)
    history = History(
        content=np.array(content, dtype=np.int64),
        exposures=exposures,
        metrics={"click": clicks},
        reward=clicks / exposures,
        noise=clicks / exposures,
        trusted=np.array([True] * len(rows) if trusted is None else trusted),
    )
    no_ints, no_floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    return TrainingSet(
        loop_id="news",
        loop_version=1,
        as_of=1,
        contents=contents,
        decision_id=(),
        unit=(),
        decided_at=no_ints,
        contexts=(),
        content=no_ints,
        position=no_ints,
        propensity=no_floats,
        holdout=no_floats,
        group=(),
        learning_mode=(),
        candidates=(),
        metrics={"click": no_floats},
        reward=no_floats,
        history=history,
    )


def world(seed: int, effect: float, campaigns: int = 150) -> TrainingSet:
    """Campaigns of three headlines; with "secret" in it a headline's click rate is ``effect`` times as high."""
    draw = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(40)]
    rows = []
    for campaign in range(campaigns):
        for place in range(3):
            text = " ".join(draw.choice(words, 5)) + (" secret" if place == 0 else "")
            rate = 0.05 * (effect if place == 0 else 1.0)
            rows.append((f"c{campaign}", text, 2_000.0, float(draw.binomial(2_000, rate))))
    return past(rows)


def pooled(reward: list[float], campaign: list[int], component: list[int]) -> Pooled:
    codes = np.arange(len(reward))
    return Pooled(codes, np.array(campaign), np.array(component), np.array(reward), codes)


def test_copy_is_pooled_within_a_campaign() -> None:
    """Rows that share a text in a campaign become one content with the mean over all its exposures."""
    rows = [(f"c{number}", text, 100.0, 10.0) for number in range(12) for text in (f"a{number}", f"b{number}")]
    found, _ = pool(past([*rows, ("c0", " A0 ", 300.0, 90.0)]))

    assert len(found.content) == 24
    assert found.reward[0] == pytest.approx(100 / 400)


def test_campaigns_without_a_choice_are_left_out() -> None:
    """A campaign with one text has nothing to rank, and does not count towards chance."""
    rows = [(f"c{number}", text, 100.0, 10.0) for number in range(12) for text in (f"a{number}", f"b{number}")]
    found, _ = pool(past([*rows, ("lonely", "x", 100.0, 1.0), ("lonely", "x", 100.0, 1.0)]))

    assert len(np.unique(found.campaign)) == 12


def test_no_component_is_split() -> None:
    """Campaigns that share a headline are in one fold."""
    rows = [(f"c{number}", text, 100.0, 10.0) for number in range(12) for text in (f"a{number}", f"b{number}")]
    found, component = pool(past([*rows, ("c3", "a7", 100.0, 10.0)]))
    folds = deal_of(found, component % 5)
    of_campaign = dict(zip(found.campaign.tolist(), folds.tolist(), strict=True))

    assert len(np.unique(component)) == 11
    assert of_campaign[3] == of_campaign[7]
    assert all(of_campaign[c] == f for c, f in zip(found.campaign.tolist(), folds.tolist(), strict=True))


def test_rates_by_hand() -> None:
    """Pick-best, chance, pairs and gain of two campaigns, by hand; ties share the credit."""
    found = measure(
        pooled([0.3, 0.2, 0.1, 0.5, 0.5], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]), np.array([2.0, 3.0, 1.0, 1.0, 1.0]), 5, 0
    )

    assert found.pick_best.value == pytest.approx((0 + 1) / 2)
    assert found.chance == pytest.approx((1 / 3 + 1) / 2)
    assert found.pairs.value == pytest.approx(2 / 3)
    assert found.gain.value == pytest.approx((0.2 + 0.5) / (0.2 + 0.5) - 1)


def test_a_perfect_and_a_reversed_ranking() -> None:
    """The true order scores 1 everywhere, its reverse 0."""
    draw = np.random.default_rng(1)
    reward = draw.uniform(size=60)
    campaign = np.repeat(np.arange(20), 3).tolist()
    perfect, reversed_ = (measure(pooled(reward.tolist(), campaign, campaign), s * reward, 60, 0) for s in (1, -1))

    assert (perfect.pick_best.value, perfect.pairs.value) == (1.0, 1.0)
    assert (reversed_.pick_best.value, reversed_.pairs.value) == (0.0, 0.0)
    assert (perfect.better_than_chance, reversed_.better_than_chance) == (True, False)


def test_intervals_are_by_component() -> None:
    """A hundred copies of one campaign in one component are one observation, not a hundred."""
    reward, predicted = [0.2, 0.1] * 102, np.array([1.0, 0.0] * 100 + [0.0, 1.0] * 2)
    campaign = np.repeat(np.arange(102), 2).tolist()
    together = np.array([0] * 200 + [1, 1, 2, 2]).tolist()
    alone = measure(pooled(reward, campaign, campaign), predicted, 204, 0)
    linked = measure(pooled(reward, campaign, together), predicted, 204, 0)

    assert alone.pairs.low > 0.9
    assert linked.pairs.low == 0.0


def test_words_that_work_are_found() -> None:
    """Where one word doubles the clicks, held-out campaigns are ranked clearly better than chance."""
    found = rank_held_out(world(1, effect=2.0), definition())

    assert found.better_than_chance
    assert found.pick_best.value > 0.8
    assert "clearly better than chance" in found.sentence


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_to_find_is_chance(seed: int) -> None:
    """Where words do nothing, the ranking is not better than chance."""
    found = rank_held_out(world(seed, effect=1.0), definition())

    assert not found.better_than_chance


def test_untrusted_rows_are_left_out() -> None:
    """Rows that are not trusted neither train nor count."""
    good = world(4, effect=2.0, campaigns=60)
    history = good.history
    rows = [
        (good.contents[index].campaign_id, good.contents[index].slots["headline"], 2_000.0, 100.0)
        for index in history.content
    ]
    both = past(
        [
            *((c, t, e, history.metrics["click"][i]) for i, (c, t, e, _) in enumerate(rows)),
            *((c, t, e, 1_900.0) for c, t, e, _ in rows[1::3]),
        ],
        [True] * len(rows) + [False] * len(rows[1::3]),
    )

    assert rank_held_out(both, definition()).pick_best == rank_held_out(good, definition()).pick_best
    assert rank_held_out(both, definition()).untrusted == len(rows[1::3])


def test_too_little_is_refused() -> None:
    """With a handful of campaigns there is no honest number."""
    with pytest.raises(EstimateRefused, match="3 independent campaigns"):
        rank_held_out(world(1, effect=2.0, campaigns=3), definition())
