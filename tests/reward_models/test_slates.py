"""Values of lists, held against readers whose behaviour is known and against the product's own draws."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from infra.errors import BadInput, EstimateRefused
from reward_models.logged import Floor
from reward_models.policies import draw_slate
from reward_models.slates import READERS, Reader, Slates, slate_value, weights_of

BEHAVIOUR = np.array([0.4, 0.3, 0.2, 0.1])
TARGET = np.array([0.2, 0.2, 0.25, 0.35])
RATES = np.array([0.1, 0.2, 0.3, 0.4])
ATTENTION = np.array([1.0, 0.6, 0.3])
POSITIONS = 3
LISTS = list(permutations(range(4), POSITIONS))


def chance(pmf: np.ndarray, order: tuple[int, ...]) -> float:
    """Probability of a list under Plackett-Luce."""
    left, product = 1.0, 1.0
    for place in order:
        product *= pmf[place] / left
        left -= pmf[place]
    return float(product)


def expected(reader: Reader, order: tuple[int, ...]) -> np.ndarray:
    """Chance of a click at each position for a reader of that kind."""
    own = ATTENTION * RATES[list(order)]
    if reader == "independent":
        return np.asarray(own)
    if reader == "cascade":
        return np.asarray(own * np.cumprod([1.0, *(1.0 - RATES[list(order)])])[:POSITIONS])
    return np.asarray(own * (2.0 if order[-1] == 3 else 1.0))


def truth(reader: Reader, pmf: np.ndarray) -> float:
    """Clicks per list of a policy."""
    return sum(chance(pmf, order) * float(expected(reader, order).sum()) for order in LISTS)


def log(reader: Reader, count: int, generator: np.random.Generator) -> Slates:
    """Lists drawn by their true chances, and clicked."""
    rows = generator.choice(len(LISTS), size=count, p=[chance(BEHAVIOUR, order) for order in LISTS])
    rates = np.array([expected(reader, order) for order in LISTS])[rows]
    clicks = (generator.random(rates.shape) < rates).astype(float)
    behaviour, target = (np.tile(pmf, (count, 1)) for pmf in (BEHAVIOUR, TARGET))
    return Slates(np.array(LISTS)[rows], clicks, behaviour, target, np.arange(count) // 2)


@pytest.mark.parametrize("reader", READERS)
def test_intervals_cover_the_value_of_lists(reader: Reader) -> None:
    """Under readers as the model says, the truth is held by 93 to 97 in 100 intervals."""
    generator = np.random.default_rng(3)
    value = truth(reader, TARGET)
    found = [slate_value(log(reader, 800, generator), reader) for _ in range(400)]

    assert 0.93 <= np.mean([one.low <= value <= one.high for one in found]) <= 0.97


def test_a_wrong_reader_is_biased_and_a_cautious_one_is_not() -> None:
    """Where the list's end changes its whole value, only the standard reader is right; the note names the model."""
    generator = np.random.default_rng(3)
    slates = log("standard", 60_000, generator)
    value = truth("standard", TARGET)

    def holds(reader: Reader) -> bool:
        found = slate_value(slates, reader, level=0.999)
        return found.low <= value <= found.high

    assert (holds("standard"), holds("independent")) == (True, False)
    assert slate_value(slates, "cascade").note == READERS["cascade"]


def test_what_is_assumed_buys_less_noise() -> None:
    """For readers that look at each position by itself the independent model has the narrowest interval."""
    slates = log("independent", 2_000, np.random.default_rng(3))
    reach = {reader: slate_value(slates, reader).high - slate_value(slates, reader).value for reader in READERS}

    assert reach["independent"] < reach["cascade"] < reach["standard"]


def test_weights_are_ratios_of_the_lists_chances() -> None:
    """The whole list's weight is the ratio of its chances; the marginals are sums over all lists."""
    slates = log("standard", 50, np.random.default_rng(3))
    order = tuple(slates.chosen[0])

    def marginal(pmf: np.ndarray, position: int) -> float:
        return sum(chance(pmf, each) for each in LISTS if each[position] == order[position])

    assert weights_of(slates, "standard")[0] == pytest.approx([chance(TARGET, order) / chance(BEHAVIOUR, order)] * 3)
    assert weights_of(slates, "independent")[0] == pytest.approx(
        [marginal(TARGET, position) / marginal(BEHAVIOUR, position) for position in range(3)]
    )


def test_the_product_s_draws_have_these_chances() -> None:
    """The propensities that ``draw_slate`` stores multiply to the chance of the list."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        slate = draw_slate(BEHAVIOUR, generator.random(3).tolist(), 3)
        assert np.prod([p for _, p in slate]) == pytest.approx(chance(BEHAVIOUR, tuple(place for place, _ in slate)))


def test_below_a_named_control_the_rest_is_even() -> None:
    """A point mass at the first position leaves the others to an even draw, as the product draws them."""
    control = np.tile([1.0, 0.0, 0.0], (2, 1))
    slates = Slates(np.array([[0, 1], [0, 2]]), np.zeros((2, 2)), control, control, ["u", "v"])

    for reader in READERS:
        assert weights_of(slates, reader).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_what_the_log_cannot_show_is_refused() -> None:
    """No overlap and too little of it give a reason, no number."""
    slates = log("cascade", 400, np.random.default_rng(3))
    never = replace(slates, behaviour=np.tile([0.5, 0.5, 0.0, 0.0], (400, 1)), chosen=np.tile([0, 1, 2], (400, 1)))

    with pytest.raises(EstimateRefused, match=r"60\.0% of its choices were impossible"):
        slate_value(never, "cascade")
    with pytest.raises(EstimateRefused, match="Too little overlap"):
        slate_value(slates, "cascade", floor=Floor(effective=300))


def test_impossible_lists_are_bad_input() -> None:
    """A content that stands twice, a list of probability 0, and marginals of long lists are refused by name."""
    slates = log("cascade", 40, np.random.default_rng(3))

    with pytest.raises(BadInput, match="twice"):
        replace(slates, chosen=np.zeros((40, 3), dtype=int))
    with pytest.raises(BadInput, match="impossible"):
        weights_of(replace(slates, behaviour=np.tile([0.0, 0.5, 0.3, 0.2], (40, 1))), "cascade")
    longer = Slates(np.tile([0, 1, 2, 3], (40, 1)), np.zeros((40, 4)), slates.behaviour, slates.target, slates.clusters)
    with pytest.raises(BadInput, match="up to 3 positions"):
        weights_of(longer, "independent")
