"""Novelty decay: a lift that fades with the age of the copy sounds the alarm; time and selection alone do not."""

import numpy as np
import pytest

from infra.errors import EstimateRefused
from ingestion.loops import LiftSettings
from reward_models.novelty import fading
from tests.reward_models.holdouts import with_holdout

SETTINGS = LiftSettings()
TWO = np.array([0.4, 0.6])
BORN = np.array([0.0, 0.0])


def test_a_lift_that_fades_sounds_the_alarm() -> None:
    """New copy that gains 30 points and loses all of them within a month is found; lift by age falls."""
    rows = with_holdout(8_000, TWO, lambda content, age: 0.2 + 0.3 * (content == 1) * np.exp(-age / 6))
    found = fading(rows, SETTINGS)

    assert found.alarm
    assert found.slope < found.slope_high < 0.0
    assert found.ages[0].lift > 3 * found.ages[-1].lift
    assert "fades" in found.sentence


def test_lift_by_age_is_the_true_lift() -> None:
    """At every age the interval holds what treatment truly gained at that age: its share of the better copy."""
    rows = with_holdout(8_000, TWO, lambda content, age: 0.2 + 0.2 * (content == 1))
    found = fading(rows, SETTINGS)

    assert not found.alarm
    assert all(each.low <= 0.6 * 0.2 <= each.high for each in found.ages)
    assert [each.from_day for each in found.ages] == [0, 1, 2, 4, 8, 16]
    assert sum(each.decisions for each in found.ages) == sum(group == "treatment" for group in rows.group)


def test_a_season_is_no_fading() -> None:
    """Everybody clicking less in the end, holdout too, is not the copy's age: the lift stays where it was."""
    alarms = [
        fading(
            with_holdout(3_000, TWO, lambda content, age: 0.4 - 0.01 * age + 0.0 * content, seed=seed), SETTINGS
        ).alarm
        for seed in range(20)
    ]

    assert sum(alarms) <= 1


def test_survival_hides_no_fading() -> None:
    """Copy that came later and is worse does not look like fading of the copy that is old: only the slope within counts."""
    rows = with_holdout(
        8_000,
        np.array([0.2, 0.4, 0.4]),
        lambda content, age: 0.2 + 0.3 * (content == 1) + 0.0 * age,
        born=np.array([0.0, 0.0, 20.0]),
    )

    assert not fading(rows, SETTINGS).alarm


def test_without_a_holdout_or_ages_nothing_is_said() -> None:
    """Fading is refused without a holdout to compare with, and when all copy has one age."""
    one_day = with_holdout(2_000, TWO, lambda content, age: 0.2 + 0.0 * age, days=0.5)
    nobody = with_holdout(2_000, TWO, lambda content, age: 0.2 + 0.0 * age, share=0.0)

    with pytest.raises(EstimateRefused, match="two ages"):
        fading(one_day, SETTINGS)
    with pytest.raises(EstimateRefused, match="of the holdout"):
        fading(nobody, SETTINGS)
