"""The automatic estimate: it follows a model that is right and corrects one that is not."""

from dataclasses import replace

import numpy as np
import pytest

from infra.errors import EstimateRefused
from reward_models.automatic import Correction, automatic, correction, correction_share, share_of
from reward_models.logged import Floor, Logged
from reward_models.offpolicy import dm, dr
from tests.reward_models.logs import SEED, Taste, fixed_log

TASTE = Taste(np.array([[0.30, 0.10, 0.20], [0.10, 0.40, 0.20]]))
BEHAVIOUR = np.array([[0.2, 0.4, 0.4], [0.4, 0.2, 0.4]])
TARGET = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
TRUTH = TASTE.value(TARGET)


def logs(off: float, count: int = 300, units: int = 500) -> list[Logged]:
    """Logs whose model promises ``off`` too much for everything."""
    generator = np.random.default_rng(SEED)
    q = TASTE.rates + off
    return [fixed_log(TASTE, BEHAVIOUR, TARGET, BEHAVIOUR, q, units, generator) for _ in range(count)]


def rmse(values: list[float]) -> float:
    """Root of the mean squared distance to the truth."""
    return float(np.sqrt(np.mean((np.array(values) - TRUTH) ** 2)))


def test_a_model_that_is_right_is_followed() -> None:
    """With right predictions most logs keep less than a fifth of the correction, and the error is below half of DR's."""
    found = logs(0.0)

    assert np.mean([correction_share(log) < 0.2 for log in found]) > 0.5
    assert rmse([automatic(log).value for log in found]) < 0.5 * rmse([dr(log).value for log in found])


def test_a_model_that_is_wrong_is_corrected() -> None:
    """With predictions far off the estimate is DR's within a twentieth of its error, and not DM's."""
    found = logs(0.5)
    whole = rmse([dr(log).value for log in found])

    assert rmse([automatic(log).value for log in found]) < 1.05 * whole
    assert rmse([dm(log).value for log in found]) > 5 * whole


def test_it_is_never_much_worse_than_the_better_one() -> None:
    """Between the two the error stays below one and a half of the better one's, whatever the model is off by."""
    for off in (0.02, 0.05, 0.1):
        found = logs(off, count=200)
        best = min(rmse([estimator(log).value for log in found]) for estimator in (dm, dr))

        assert rmse([automatic(log).value for log in found]) < 1.5 * best


def test_its_interval_holds_the_truth() -> None:
    """An interval of DR's width around it holds the truth in at least 93 of 100 logs, model right or wrong."""
    for off in (0.0, 0.5):
        found = [automatic(log) for log in logs(off)]

        assert np.mean([one.low <= TRUTH <= one.high for one in found]) >= 0.93


def test_the_share_grows_with_what_noise_cannot_explain() -> None:
    """No more than noise keeps little of the correction, five standard errors nearly all, also where only cells say so."""
    noise = share_of(Correction(total=1.0, variance=1.0, evidence=10.0, cells=10))
    whole = share_of(Correction(total=5.0, variance=1.0, evidence=34.0, cells=10))
    cells = share_of(Correction(total=1.0, variance=1.0, evidence=250.0, cells=10))

    assert noise < 0.2 < 0.9 < min(whole, cells)
    assert share_of(Correction(total=0.0, variance=0.0, evidence=0.0, cells=0)) == 0.0


def test_the_correction_by_hand() -> None:
    """Four rows in two cells: means of the residuals by weight, put together by the target's shares."""
    log = Logged(
        propensity=np.array([0.5, 0.5, 0.5, 0.5]),
        reward=np.array([1.0, 0.0, 0.0, 1.0]),
        chosen=np.array([0, 0, 1, 1]),
        target=np.tile([0.8, 0.2], (4, 1)),
        q=np.tile([0.4, 0.1], (4, 1)),
        clusters=["a", "b", "c", "d"],
        behaviour=np.full((4, 2), 0.5),
    )
    found = correction(log)

    # residuals 0.6, −0.4, −0.1, 0.9: means 0.1 and 0.4, shares 0.8 and 0.2; their variance is the sum of the squares
    # over 4, 0.13 and 0.205, or 1.34/4 over 2 rows, 0.1675
    assert found.total == pytest.approx(0.8 * 0.1 + 0.2 * 0.4)
    assert found.variance == pytest.approx(0.64 * 0.1675 + 0.04 * 0.1675)
    assert found.evidence == pytest.approx(0.1**2 / 0.1675 + 0.4**2 / 0.205)
    assert found.cells == 2


def test_a_log_without_the_whole_behaviour_has_a_correction_too() -> None:
    """Where only the propensity of what was shown is known, cells weigh what was seen of them."""
    log = logs(0.5, count=1)[0]
    untold = replace(log, behaviour=None)

    assert correction(untold).total == pytest.approx(correction(log).total, abs=0.05)
    assert automatic(untold).value == pytest.approx(automatic(log).value, abs=0.05)


def test_the_note_says_how_much_was_corrected() -> None:
    """The share of the correction is in the note, as a percentage."""
    log = logs(0.5, count=1)[0]

    assert f"with {correction_share(log):.0%} of the correction" in automatic(log).note


def test_it_is_refused_where_dr_is() -> None:
    """A model's value is no way around a missing overlap."""
    with pytest.raises(EstimateRefused, match="Too little overlap"):
        automatic(logs(0.0, count=1)[0], floor=Floor(effective=1_000))
