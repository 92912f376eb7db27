"""The automatic estimate: it follows a model that is right and corrects one that is not."""

import numpy as np
import pytest

from infra.errors import EstimateRefused
from reward_models.automatic import automatic, correction_share
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
    """With right predictions most logs keep less than a tenth of the correction, and the error is far below DR's."""
    found = logs(0.0)

    assert np.mean([correction_share(log) < 0.1 for log in found]) > 0.5
    assert rmse([automatic(log).value for log in found]) < 0.7 * rmse([dr(log).value for log in found])


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


def test_the_note_says_how_much_was_corrected() -> None:
    """The share of the correction is in the note, as a percentage."""
    log = logs(0.5, count=1)[0]

    assert f"with {correction_share(log):.0%} of the correction" in automatic(log).note


def test_it_is_refused_where_dr_is() -> None:
    """A model's value is no way around a missing overlap."""
    with pytest.raises(EstimateRefused, match="Too little overlap"):
        automatic(logs(0.0, count=1)[0], floor=Floor(effective=1_000))
