"""Delay laws: learned from outcomes that came, without believing that the delays at hand are all there are."""

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from infra.clock import DAY, HOUR
from reward_models.delays import Delays, Law, fit_delays, fit_law
from tests.reward_models.training import definition, timed

WINDOW = 7 * DAY
AGES = np.array([HOUR, 6 * HOUR, DAY, 3 * DAY])
Floats = npt.NDArray[np.float64]


def came(mean: float, count: int, seed: int, oldest: float = 8 * DAY) -> tuple[Floats, Floats]:
    """Delay and age of the outcomes seen so far: exponential delays within the window, ages up to ``oldest``."""
    rng = np.random.default_rng(seed)
    delay, age = rng.exponential(mean, count), rng.uniform(0, oldest, count)
    kept = (delay <= age) & (delay < WINDOW)
    return delay[kept], age[kept]


def truth(mean: float, age: npt.ArrayLike) -> Floats:
    """Share of the outcomes of the window that have come by an age."""
    return np.asarray(np.expm1(-np.asarray(age) / mean) / np.expm1(-WINDOW / mean))


def test_young_decisions_do_not_make_the_law_shorter() -> None:
    """Most outcomes at hand are of decisions younger than the law: it is found all the same, the plain share is not."""
    delay, age = came(2 * DAY, 4_000, 1)

    law = fit_law(delay, age, ["a"] * len(delay), WINDOW)

    plain = np.array([(delay <= at).mean() for at in AGES])
    assert law.arrived(AGES) == pytest.approx(truth(2 * DAY, AGES), abs=0.03)
    assert np.max(plain - truth(2 * DAY, AGES)) > 0.08


def test_contents_that_differ_have_laws_of_their_own() -> None:
    """One content is answered within hours, the other within days; a content never seen has the loop's law between."""
    slow, slow_age = came(2 * DAY, 1_500, 2)
    quick, quick_age = came(4 * HOUR, 1_500, 3)
    names = ["slow"] * len(slow) + ["quick"] * len(quick)

    law = fit_law(np.concatenate([slow, quick]), np.concatenate([slow_age, quick_age]), names, WINDOW)

    assert law.arrived(AGES, "slow") == pytest.approx(truth(2 * DAY, AGES), abs=0.06)
    assert law.arrived(AGES, "quick") == pytest.approx(truth(4 * HOUR, AGES), abs=0.06)
    assert law.arrived(DAY, "slow") < law.arrived(DAY, "new") < law.arrived(DAY, "quick")


def test_contents_that_do_not_differ_share_one_law() -> None:
    """Thirty contents of one law: hardly any difference between them is believed."""
    delay, age = came(DAY, 6_000, 4)
    names = [f"c{number}" for number in np.random.default_rng(5).integers(0, 30, len(delay))]

    law = fit_law(delay, age, names, WINDOW)

    own = np.array([law.arrived(AGES, name) for name in set(names)])
    assert np.abs(own - law.arrived(AGES)).max() < 0.05


def test_without_outcomes_the_law_is_vague_and_whole() -> None:
    """From 0 to 1 over the window, never falling, and nothing certain in between."""
    law = fit_law(np.zeros(0), np.zeros(0), [], WINDOW)

    shares = law.arrived(np.linspace(0, WINDOW, 50))
    assert (np.diff(shares) >= 0).all()
    assert (shares[0], shares[-1]) == (pytest.approx(0, abs=0.01), 1)
    assert 0.2 < law.arrived(6 * HOUR) < 0.9


def test_ages_beyond_the_log_are_left_to_what_is_known_before() -> None:
    """A log of one day says how the first day's outcomes are spread, and not that all outcomes come within it."""
    delay, age = came(2 * DAY, 4_000, 6, oldest=DAY)

    law = fit_law(delay, age, ["a"] * len(delay), WINDOW)

    first_day = law.arrived([6 * HOUR, 12 * HOUR]) / law.arrived(DAY)
    assert first_day == pytest.approx(truth(2 * DAY, [6 * HOUR, 12 * HOUR]) / truth(2 * DAY, DAY), abs=0.05)
    assert law.arrived(DAY) < 0.9


def test_an_outcome_is_seen_once_its_event_has_come_in() -> None:
    """With an hour or three on the way nothing is seen before the hour, and half of what happened until the third."""
    law = Law(times=(0.0, DAY), shares=(1.0, 1.0), lags=(HOUR, 3 * HOUR))

    assert law.arrived([0, HOUR, 2 * HOUR, 3 * HOUR]).tolist() == [0.0, 0.5, 0.5, 1.0]


def test_the_laws_of_a_set_weigh_by_what_they_bring() -> None:
    """Clicks at once and purchases late, each worth a half of the reward: at the end of the first day three quarters."""
    rules = definition(reward={"click": 10.0, "revenue": 1.0})
    training = timed(
        2_000, rules, delays={"click": lambda u: 0 * u, "revenue": lambda u: 2 * DAY * u}, values={"revenue": 10.0}
    )

    delays = fit_delays(training, rules)

    assert delays.laws["click"].weight == pytest.approx(0.5, abs=0.05)
    assert delays.arrived(DAY) == pytest.approx(0.75, abs=0.05)
    assert delays.arrived([0, 2 * DAY, 9 * DAY]) == pytest.approx([0.5, 1, 1], abs=0.05)
    assert delays.of("revenue", DAY) == pytest.approx(0.5, abs=0.05)


def test_laws_survive_their_file() -> None:
    """Read back from JSON they say the same; no laws at all say that everything has come."""
    delay, age = came(DAY, 500, 7)
    delays = Delays({"click": fit_law(delay, age, ["a"] * len(delay), WINDOW)})

    again = msgspec.json.decode(msgspec.json.encode(delays), type=Delays)

    assert again.arrived(AGES, "a").tolist() == delays.arrived(AGES, "a").tolist()
    assert Delays().arrived(AGES).tolist() == [1, 1, 1, 1]
