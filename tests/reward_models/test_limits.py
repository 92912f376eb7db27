"""Limits on shares: the nearest distribution, what gives way, and budgets in a decision."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from infra.errors import BadInput
from ingestion.loops import ContentLimits
from reward_models.limits import Bounds, bounds, stored, within
from reward_models.serving.ranker import rank
from tests.reward_models.serving.worlds import SECRETS, definition, request, snapshot

COUNTS = {"c00": (1_000, 20), "c01": (1_000, 30), "c02": (1_000, 25)}

shares = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


@example([0.0] * 6, 1820, 0.0)
@given(shares, st.integers(0, 2**32), st.floats(0.0, 0.2))
@settings(max_examples=200, deadline=None)
def test_any_limits_give_a_distribution_within_them(weights: list[float], seed: int, floor: float) -> None:
    """Whatever is asked, the shares sum to 1 and keep bounds that can be kept."""
    generator = np.random.default_rng(seed)
    n = len(weights)
    names = [f"c{index}" for index in range(n)]
    low = generator.random(n) * generator.integers(0, 2, n)
    limits = bounds({name: (a, max(a, b)) for name, a, b in zip(names, low, generator.random(n), strict=True)}, names)
    p = np.array(weights) / sum(weights) if sum(weights) > 0 else np.full(n, 1 / n)

    assert limits is not None
    found = within(p, limits, floor)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= limits.low - 1e-12).all()
    assert (found <= limits.high + 1e-12).all()


def test_it_is_the_nearest_in_relative_entropy() -> None:
    """No other distribution within the bounds has a smaller relative entropy to the policy's own."""
    p = np.array([0.6, 0.2, 0.15, 0.05])
    limits = Bounds(np.array([0.0, 0.0, 0.0, 0.2]), np.array([0.45, 1.0, 1.0, 1.0]))
    best = minimize(
        lambda q: float((q * np.log(q / p)).sum()),
        np.full(4, 0.25),
        bounds=list(zip(np.maximum(limits.low, 1e-9), limits.high, strict=True)),
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1.0},
        options={"ftol": 1e-12},
    )

    np.testing.assert_allclose(within(p, limits, 0.0), best.x, atol=1e-5)


def test_certainty_is_divided_where_it_may_not_stay() -> None:
    """A policy that is sure of one content spreads what it may not have over the others."""
    limits = Bounds(np.zeros(3), np.array([0.4, 1.0, 1.0]))

    assert within(np.array([1.0, 0.0, 0.0]), limits, 0.0).tolist() == pytest.approx([0.4, 0.3, 0.3])


def test_what_cannot_be_kept_gives_way_in_proportion() -> None:
    """Least shares above one together, or largest ones below, keep their ratios."""
    above = bounds({"a": (0.6, 1.0), "b": (0.9, 1.0)}, ["a", "b"])
    below = bounds({"a": (0.0, 0.3), "b": (0.0, 0.1)}, ["a", "b"])

    assert above is not None
    assert below is not None
    assert within(np.array([0.5, 0.5]), above, 0.01).tolist() == pytest.approx([0.4, 0.6])
    assert within(np.array([0.5, 0.5]), below, 0.01).tolist() == pytest.approx([0.75, 0.25])
    assert bounds({"z": (0.5, 1.0)}, ["a", "b"]) is None


def test_a_limit_holds_in_the_stored_decision() -> None:
    """The policy's probabilities of a decision keep the loop's limits, which are stored with it."""
    limits = {"c01": {"most": 0.2}, "c00": {"least": 0.5}}
    decision = rank(snapshot(counts=COUNTS, limits=limits), request(), SECRETS, 500)
    drawn_with = {candidate.content_id: candidate.behaviour_p or 0.0 for candidate in decision.candidates}

    assert drawn_with["c01"] <= 0.2
    assert drawn_with["c00"] >= 0.5
    assert decision.constraints["limits"] == {"c00": [0.5, 1.0], "c01": [0.0, 0.2]}


def test_a_holdout_keeps_its_baseline() -> None:
    """Limits bind the policy; who is held out gets the frozen baseline as it is."""
    world = snapshot(counts=COUNTS, holdout=0.9, limits={"c01": {"most": 0.0}})
    held = [rank(world, request(f"d{n}", unit=f"u{n}"), SECRETS, 500) for n in range(20)]
    held = [decision for decision in held if decision.group == "holdout"]

    assert held
    assert all(c.behaviour_p == pytest.approx(1 / 3) for decision in held for c in decision.candidates)
    assert all(decision.candidates[1].policy_p == 0.0 for decision in held)


def test_a_used_up_budget_takes_the_content_out() -> None:
    """A content that was sent as often as it may is no candidate; the answer says why."""
    left = rank(snapshot(counts=COUNTS, limits={"c01": {"budget": 1_001}}), request(), SECRETS, 500)
    gone = rank(snapshot(counts=COUNTS, limits={"c01": {"budget": 1_000}}), request(), SECRETS, 500)

    assert [candidate.content_id for candidate in left.candidates] == ["c00", "c01", "c02"]
    assert [candidate.content_id for candidate in gone.candidates] == ["c00", "c02"]
    assert [(one.content_id, one.reason) for one in gone.excluded] == [("c01", "its budget of sends is used up")]


def test_only_what_binds_is_stored() -> None:
    """A budget alone, or limits of other contents, put nothing into a decision."""
    limits = {"a": ContentLimits(budget=5), "b": ContentLimits(least=0.1), "c": ContentLimits(most=0.5)}

    assert stored(limits, ["a", "b"]) == {"b": [0.1, 1.0]}


def test_limits_the_wrong_way_round_are_refused() -> None:
    """A least share above the largest is named when the loop is defined."""
    with pytest.raises(BadInput, match="least share"):
        definition(limits={"a": {"least": 0.5, "most": 0.2}})
