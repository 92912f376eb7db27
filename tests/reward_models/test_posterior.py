"""The content posterior: what counts of one campaign say, held against truths that are planted."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.policies import p_best
from reward_models.posterior import ArmCounts, Effects, Prior, content_effects, no_counts

SEED = 20_261_122
RATE = 0.02


def clicks(
    exposures: Sequence[float] | np.ndarray, counts: Sequence[float] | np.ndarray, expected: float = 0.0
) -> ArmCounts:
    """Counts of a 0/1 reward; ``expected`` per exposure."""
    n, c = np.array(exposures, dtype=float), np.array(counts, dtype=float)
    return ArmCounts(n, c, c, n * expected)


def mean_of(effects: Effects) -> np.ndarray:
    return np.asarray(effects.shift + effects.effect)


def test_without_data_all_contents_are_equal() -> None:
    """No exposures: no shift, no effects, the same uncertainty for all, hence a uniform choice."""
    for scale in (RATE, 0.0):
        found = content_effects(clicks([0, 0, 0], [0, 0, 0]), scale)

        assert found.shift == 0.0
        assert found.effect.tolist() == [0.0, 0.0, 0.0]
        np.testing.assert_allclose(p_best(found.effect, found.sd), np.full(3, 1 / 3), atol=1e-12)


def test_a_content_without_data_keeps_the_widest_sd() -> None:
    """A new content has effect 0 and is less certain than those that were shown."""
    found = content_effects(clicks([5_000, 5_000, 0], [100, 130, 0]), RATE)

    assert found.effect[2] == 0.0
    assert found.sd[2] > max(found.sd[:2])


@given(counts=st.lists(st.integers(0, 40), min_size=2, max_size=8), more=st.integers(10, 50))
def test_more_data_is_more_certain(counts: list[int], more: int) -> None:
    """The same rates seen a hundred times as often have smaller standard deviations, whatever the rates; a few more
    decisions may rather show that contents differ more than was thought."""
    few = content_effects(clicks(np.full(len(counts), 1_000), counts), RATE)
    many = content_effects(clicks(np.full(len(counts), 1_000 * more**2), np.array(counts) * more**2), RATE)

    assert np.all(many.sd < few.sd)


@given(
    exposures=st.lists(st.integers(50, 20_000), min_size=2, max_size=8),
    pick=st.integers(0, 7),
    rate=st.floats(0.005, 0.1),
)
def test_a_click_raises_its_content_at_once(exposures: list[int], pick: int, rate: float) -> None:
    """One more click, with nothing else changed, raises that content's mean, absolutely and over the others."""
    k = pick % len(exposures)
    counts = np.floor(rate * np.array(exposures))
    before = content_effects(clicks(exposures, counts), rate)
    counts[k] += 1
    after = content_effects(clicks(exposures, counts), rate)

    gain = mean_of(after) - mean_of(before)
    assert gain[k] > 0.0
    assert np.all(gain[k] > np.delete(gain, k))


def test_targeting_is_taken_out() -> None:
    """Identical contents with different raw means, because one met the better customers, have equal effects."""
    exposures, expected = np.array([10_000.0, 10_000.0, 10_000.0]), np.array([840.0, 350.0, 500.0])
    sums = expected + np.array([50.0, 50.0, -50.0])
    found = content_effects(ArmCounts(exposures, sums, np.full(3, 500.0), expected), 0.05)

    assert found.effect[0] == pytest.approx(found.effect[1], rel=1e-9)
    assert found.effect[2] < found.effect[0]


def test_drift_common_to_all_is_the_shift() -> None:
    """A day on which everything sells half of what was predicted moves the shift, and no content ahead of another."""
    found = content_effects(clicks(np.full(6, 5_000.0), np.full(6, 50.0), expected=RATE), RATE)

    assert found.shift == pytest.approx(-RATE / 2, rel=0.02)
    assert np.ptp(found.effect) == pytest.approx(0.0, abs=1e-12)
    assert np.abs(found.effect).max() < 0.01 * RATE


def test_negative_rewards_are_allowed() -> None:
    """Where rewards are costs, the content that costs least is best."""
    exposures, sums = np.full(3, 2_000.0), np.array([-100.0, -150.0, -50.0])
    found = content_effects(ArmCounts(exposures, sums, np.abs(sums), np.zeros(3)), 0.05)

    assert mean_of(found).argmax() == 2
    assert found.shift < 0.0


def test_no_clicks_yet_is_not_certainty() -> None:
    """Thirty decisions without a click leave a content nearly as uncertain as it was."""
    found = content_effects(clicks([30, 0], [0, 0]), RATE)

    assert found.sd[0] > 0.8 * found.sd[1]


def test_an_unknown_scale_is_read_off_the_counts() -> None:
    """Without a prior scale the counts alone say, in whatever unit the reward is."""
    counts = clicks([1_000, 1_000], [20, 40])
    cents = ArmCounts(counts.exposures, 100 * counts.sums, 10_000 * counts.sum_squares, counts.expected)
    euros, in_cents = content_effects(counts, 0.0), content_effects(cents, 0.0)

    np.testing.assert_allclose(in_cents.effect, 100 * euros.effect, rtol=1e-9)
    np.testing.assert_allclose(in_cents.sd, 100 * euros.sd, rtol=1e-9)


def test_planted_effects_are_recovered() -> None:
    """Over 300 campaigns errors are as large as the sds say, and smaller than those of raw rates or of no effect."""
    generator = np.random.default_rng(SEED)
    posterior, raw, none, standard = [], [], [], []
    for _ in range(300):
        truth = RATE * (1.0 + 0.23 * generator.normal(size=8))
        exposures = generator.integers(200, 4_000, size=8).astype(float)
        counts = generator.binomial(exposures.astype(int), truth).astype(float)
        found = content_effects(clicks(exposures, counts), RATE)
        error = mean_of(found) - truth
        posterior.append(error**2)
        raw.append((counts / exposures - truth) ** 2)
        none.append((counts.sum() / exposures.sum() - truth) ** 2)
        standard.append((error - error.mean()) / found.sd)

    assert np.mean(posterior) < 0.9 * min(np.mean(raw), np.mean(none))
    assert np.std(standard) == pytest.approx(1.0, abs=0.15)


def test_many_campaigns_are_each_like_one() -> None:
    """Campaigns side by side in one call have the effects that each has alone."""
    generator = np.random.default_rng(SEED)
    exposures = generator.integers(0, 3_000, size=(7, 5)).astype(float)
    sums = generator.binomial(exposures.astype(int), RATE).astype(float)
    levels, spreads = generator.uniform(0.01, 0.04, size=7), generator.uniform(0.1, 0.4, size=7)
    expected = exposures * levels[:, None] * generator.uniform(0.7, 1.3, size=(7, 5))
    together = content_effects(
        ArmCounts(exposures, sums, sums, expected), Prior(levels, 0.5 * levels, spreads, proportional=True)
    )

    for row in range(7):
        parts = (values[row] for values in (exposures, sums, sums, expected))
        alone = content_effects(
            ArmCounts(*parts), Prior(levels[row], 0.5 * levels[row], spreads[row], proportional=True)
        )
        for name in ("effect", "sd", "scale", "shift"):
            np.testing.assert_allclose(getattr(together, name)[row], getattr(alone, name), rtol=1e-12)


def test_without_counts_the_prediction_stands() -> None:
    """A new campaign is what was predicted: no shift, scale 1, no effects, and as unsure as the loop's spread says."""
    predicted = np.array([0.01, 0.02, 0.03])
    found = content_effects(no_counts(3), Prior(0.02, spread=0.1, proportional=True))

    np.testing.assert_array_equal(found.mean(predicted), predicted)
    assert np.ptp(found.sd) == 0.0
    wider = content_effects(no_counts(3), Prior(0.02, spread=0.2, proportional=True))
    np.testing.assert_allclose(wider.sd, 2.0 * found.sd, rtol=1e-9)


def test_a_level_that_is_off_scales_the_contrasts() -> None:
    """A campaign that earns half of every prediction: predicted differences are halved too, and nobody has an effect."""
    predicted = np.array([0.03, 0.04, 0.05])
    exposures = np.full(3, 50_000.0)
    sums = exposures * predicted / 2
    found = content_effects(
        ArmCounts(exposures, sums, sums, exposures * predicted), Prior(0.04, spread=0.2, proportional=True)
    )

    assert found.scale == pytest.approx(0.5, rel=0.01)
    assert np.abs(found.effect).max() < 0.01 * 0.02
    np.testing.assert_allclose(found.mean(predicted), predicted / 2, rtol=0.01)


def test_a_new_content_starts_from_the_model() -> None:
    """Among contents with counts a new one stands where its prediction, at the campaign's level, puts it."""
    predicted = np.array([0.02, 0.02, 0.03])
    exposures = np.array([50_000.0, 50_000.0, 0.0])
    sums = exposures * np.array([0.009, 0.011, 0.0])
    found = content_effects(
        ArmCounts(exposures, sums, sums, exposures * predicted), Prior(0.02, spread=0.2, proportional=True)
    )

    assert found.effect[2] == 0.0
    assert found.mean(predicted)[2] == pytest.approx(0.015, rel=0.02)
    assert found.sd[2] > max(found.sd[:2])


def test_the_spread_is_learned_within_the_campaign() -> None:
    """Contents that differ much more, or not at all, move the spread: shrinking follows the campaign's own counts."""
    exposures = np.full(8, 4_000.0)
    alike = content_effects(clicks(exposures, np.full(8, 80.0)), RATE)
    unlike = content_effects(clicks(exposures, [20.0, 180.0, 40.0, 160.0, 30.0, 150.0, 60.0, 120.0]), RATE)

    assert np.all(unlike.sd > 1.2 * alike.sd)
    raw = np.array([20.0, 180.0, 40.0, 160.0, 30.0, 150.0, 60.0, 120.0]) / 4_000.0
    np.testing.assert_allclose(mean_of(unlike), raw, atol=0.1 * RATE)


def test_predictions_and_counts_together_beat_either() -> None:
    """Over 300 campaigns with predictions of known quality the posterior errs less than the prediction, scaled to
    the campaign's own rate, and than the counts; and it knows by how much it errs."""
    generator = np.random.default_rng(SEED)
    posterior, text, raw, standard = [], [], [], []
    for _ in range(300):
        level = RATE * generator.lognormal(sigma=0.4)
        said = 1.0 + 0.2 * generator.normal(size=6)
        truth = level * (said + 0.2 * generator.normal(size=6))
        exposures = generator.integers(300, 4_000, size=6).astype(float)
        counts = generator.binomial(exposures.astype(int), truth.clip(0.0)).astype(float)
        found = content_effects(
            ArmCounts(exposures, counts, counts, exposures * RATE * said), Prior(RATE, spread=0.2, proportional=True)
        )
        error = found.mean(RATE * said) - truth
        posterior.append(np.var(error))
        text.append(np.var(said * counts.sum() / (exposures * said).sum() - truth))
        raw.append(np.var(counts / exposures - truth))
        standard.append((error - error.mean()) / found.sd)

    assert np.mean(posterior) < 0.8 * min(np.mean(text), np.mean(raw))
    assert np.std(standard) == pytest.approx(1.0, abs=0.15)


def test_a_spread_means_what_it_says() -> None:
    """Before any count a content's standard deviation is the spread times the level."""
    found = content_effects(no_counts(4), Prior(0.02, spread=0.3, proportional=True))

    np.testing.assert_allclose(found.sd, 0.3 * 0.02, rtol=1e-9)
