"""Drift: customers that change are found, the same ones are not, and broken promises are."""

import numpy as np
import pytest

from reward_models.contexts import Contexts
from reward_models.drift import LEAST_ROWS, LOOK, SHIFTED, kept, shifts


def customers(seed: int, size: int = 2_000, new: float = 0.5, age: float = 40.0) -> Contexts:
    rng = np.random.default_rng(seed)
    segments = np.where(rng.random(size) < new, "new", "old")
    ages = rng.normal(age, 10.0, size)
    return Contexts.of([{"segment": str(s), "age": float(a)} for s, a in zip(segments, ages, strict=True)])


def test_the_same_customers_show_no_shift() -> None:
    """Two samples of one population stay below the line in a hundred draws, for words and numbers, small samples too."""
    worst = max(shifts(customers(2 * n, 300), customers(2 * n + 1, 300))[0].index for n in range(100))

    assert worst < LOOK


@pytest.mark.parametrize(("changed", "feature"), [({"new": 0.85}, "segment"), ({"age": 55.0}, "age")])
def test_other_customers_are_found_by_their_feature(changed: dict[str, float], feature: str) -> None:
    """A shift of one feature is found there, and the other stays quiet."""
    first, second = shifts(customers(1), customers(2, **changed))  # type: ignore[arg-type]

    assert first.feature == feature
    assert first.index > SHIFTED
    assert second.index < LOOK


def test_a_feature_that_disappears_is_a_shift() -> None:
    """Absence is a value too."""
    without = Contexts.of([{"age": context["age"]} for context in customers(3)])

    assert shifts(customers(1), without)[0].feature == "segment"


def test_the_index_is_the_formula_for_two_words() -> None:
    """Hand-worked: shares ½ and ½ against ¾ and ¼, 1,000 rows each."""
    before = Contexts.of([{"s": "a"}] * 500 + [{"s": "b"}] * 500)
    now = Contexts.of([{"s": "a"}] * 750 + [{"s": "b"}] * 250)
    p, q = np.array([500.5, 500.5]) / 1_001, np.array([750.5, 250.5]) / 1_001
    expected = ((q - p) * np.log(q / p)).sum() - (1 / 1_000 + 1 / 1_000)

    assert shifts(before, now)[0].index == pytest.approx(expected)


def test_few_rows_say_nothing() -> None:
    """Below the least number of rows there is no finding."""
    assert shifts(customers(1, LEAST_ROWS - 1), customers(2, new=1.0)) == ()


def test_promises_that_hold_are_not_doubted_and_others_are() -> None:
    """With rewards as promised p is large; with half of it p is small, and both means are told."""
    rng = np.random.default_rng(5)
    promised = np.full(4_000, 0.2)
    units = [f"u{number % 1_000}" for number in range(4_000)]
    as_said = kept(promised, (rng.random(4_000) < 0.2).astype(float), units)
    halved = kept(promised, (rng.random(4_000) < 0.1).astype(float), units)

    assert as_said is not None
    assert as_said.p > 0.01
    assert halved is not None
    assert halved.p < 1e-6
    assert halved.arrived < 0.12 < halved.promised


def test_rows_of_one_customer_are_one_witness() -> None:
    """A gap that is one customer's alone is no evidence, however many rows it has."""
    promised, reward = np.zeros(1_000), np.concatenate([np.ones(500), np.zeros(500)])
    one = kept(promised, reward, ["loud"] * 500 + [f"u{n}" for n in range(500)])

    assert one is not None
    assert one.p > 0.3


def test_nothing_to_compare_is_nothing() -> None:
    """No rows, or no gap anywhere: no finding."""
    assert kept(np.empty(0), np.empty(0), []) is None
    assert kept(np.ones(3), np.ones(3), ["a", "b", "c"]) is None
