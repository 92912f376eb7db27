"""What a request asks of the slate: contents that must be in it, a control of the caller's, customers who are sent nothing."""

from collections import Counter
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest

from infra.errors import BadInput, Conflict
from ingestion.events import Decision
from reward_models.policies import draw_slate
from reward_models.serving.eligibility import Capped
from reward_models.serving.ranker import rank
from reward_models.serving.replay import replay_choice
from tests.reward_models.serving.worlds import SECRETS, contents, control_baseline, definition, request, snapshot

COUNTS = {"c00": (1_000, 20), "c01": (1_000, 60), "c02": (1_000, 25), "c03": (1_000, 10)}
BASELINE = control_baseline("c02")


def decide(decision_id: str = "d1", world: dict[str, Any] | None = None, **changes: Any) -> Decision:
    """The decision in a world of four contents, as it is read back from its row."""
    known = {"counts": COUNTS, "baseline": BASELINE} | (world or {})
    made = rank(snapshot(4, **known), request(decision_id, **changes), SECRETS, 500)
    return msgspec.json.decode(msgspec.json.encode(made), type=Decision)


def shown(decision: Decision) -> list[str]:
    return [placement.content_id for placement in decision.chosen]


@pytest.mark.parametrize("slots", [2, 3, 4, 9])
@pytest.mark.parametrize("must", [("c03",), ("c00", "c03")])
@pytest.mark.parametrize(
    "world", [{}, {"learning_mode": "apprentice"}, {"loop": {"killed": True}}, {"holdout": 0.9}], ids=str
)
def test_what_must_be_included_is_in_the_slate(slots: int, must: tuple[str, ...], world: dict[str, Any]) -> None:
    """Every slate holds what it has to, in every group and mode, and replays exactly."""
    for number in range(8):
        decision = decide(f"d{number}", world, must_include=must, slots=slots, unit=f"u{number}")

        assert set(must) <= set(shown(decision))
        assert len(shown(decision)) == min(slots, 4)
        assert replay_choice(decision, definition().policy, BASELINE).result == "exact"


@pytest.mark.parametrize("must", [(), (0,), (3,), (0, 3)])
def test_propensities_with_what_must_be_included_are_exact(must: tuple[int, ...]) -> None:
    """Over all slates of three of four the products of the propensities sum to 1, each list that holds what it must has
    the chance it is drawn with (martingale z within 4), and every other has none."""
    pmf = np.array([0.1, 0.6, 0.25, 0.05])
    generator = np.random.default_rng(5)
    drawn = [draw_slate(pmf, generator.random(3).tolist(), 3, must) for _ in range(6_000)]
    chance = {tuple(i for i, _ in slate): float(np.prod([p for _, p in slate])) for slate in drawn}
    played = Counter(tuple(i for i, _ in slate) for slate in drawn)
    possible = {slate for slate in permutations(range(4), 3) if set(must) <= set(slate)}
    z = [(played[slate] - 6_000 * p) / np.sqrt(6_000 * p * (1 - p)) for slate, p in chance.items()]

    assert set(chance) <= possible
    assert sum(chance.values()) == pytest.approx(1.0, abs=2e-3 * (len(possible) - len(chance)) + 1e-9)
    assert np.abs(z).max() < 4


def test_what_fills_the_slate_is_the_only_candidate() -> None:
    """Where every slot is taken there is nothing else to draw: the stored distribution says so."""
    decision = decide(must_include=("c03",), candidates=("c00", "c01"))

    assert [(one.content_id, one.behaviour_p, one.policy_p) for one in decision.candidates] == [("c03", 1.0, 1.0)]
    assert decision.chosen[0].propensity == 1.0


def test_the_first_position_is_drawn_from_the_stored_distribution() -> None:
    """As long as there is room the first position's propensity is the stored behaviour probability of its content."""
    for number in range(10):
        decision = decide(f"d{number}", must_include=("c03",), slots=2)
        by_id = {candidate.content_id: candidate.behaviour_p for candidate in decision.candidates}

        assert by_id[decision.chosen[0].content_id] == decision.chosen[0].propensity
        if decision.chosen[0].content_id != "c03":
            assert (decision.chosen[1].content_id, decision.chosen[1].propensity) == ("c03", 1.0)


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"must_include": ("c00", "c01")}, BadInput, "names 2 contents for 1 slots; name each once"),
        ({"must_include": ("c00", "c00"), "slots": 3}, BadInput, "name each once"),
        ({"must_include": ("c00",), "excluded": ("c00",)}, BadInput, r"not eligible \(excluded by the request\)"),
        (
            {"must_include": ("x",)},
            Conflict,
            r"'x' must be included but is not eligible \(no content of campaign june\)",
        ),
        ({"must_include": ("no_send",)}, Conflict, "does not allow sending nothing"),
        (
            {"must_include": ("c00",), "slots": 2, "capped": Capped(contents=(("c00", "often"),))},
            Conflict,
            r"not eligible \(often\)",
        ),
    ],
)
def test_what_cannot_be_included_is_said(changes: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    """A request that contradicts itself is bad input; one that the world does not allow now is a conflict."""
    with pytest.raises(kind, match=sentence):
        decide(**changes)


def test_a_suppressed_customer_is_sent_nothing() -> None:
    """Whatever the loop allows, whoever is named and whatever must be included: sending nothing, with certainty, in the
    customer's own group; it never starts, and replays."""
    for changes in ({}, {"candidates": ("c00",)}, {"must_include": ("c01",), "slots": 2}):
        for unit in map(str, range(12)):
            decision = decide(unit, {"holdout": 0.5}, unit=unit, suppressed="unsubscribe", **changes)
            free = decide(unit, {"holdout": 0.5}, unit=unit)

            assert [(one.content_id, one.behaviour_p) for one in decision.candidates] == [("no_send", 1.0)]
            assert [(one.content_id, one.propensity) for one in decision.chosen] == [("no_send", 1.0)]
            assert decision.constraints["withheld"] == "suppressed: unsubscribe"
            assert (decision.group, decision.deferred, free.deferred) == (free.group, True, False)
            assert replay_choice(decision, definition().policy, BASELINE).result == "exact"


@pytest.mark.parametrize("away", [True, False])
def test_a_suppressed_customer_is_sent_nothing_without_database_or_model(away: bool) -> None:
    """The baseline that answers while the database is away, or the loop is killed, is not sent to the suppressed either."""
    world = snapshot(4, baseline=BASELINE, loop={} if away else {"killed": True})
    decision = rank(world, request(unit="u", suppressed="complaint"), SECRETS, 500, away)

    assert (decision.learning_mode, shown(decision)) == ("fallback", ["no_send"])


def test_a_capped_content_is_excluded_with_its_reason() -> None:
    """What the customer has seen often enough is no candidate, and the reason is stored."""
    decision = decide(capped=Capped(contents=(("c01", "often"), ("c03", "often"))))

    assert [one.content_id for one in decision.candidates] == ["c00", "c02"]
    assert [(one.content_id, one.reason) for one in decision.excluded] == [("c01", "often"), ("c03", "often")]


@pytest.mark.parametrize(
    "capped",
    [
        Capped("often", 1_800_000_000_000_000),
        Capped(contents=tuple((name, "often") for name in contents(4))),
    ],
    ids=["together", "each"],
)
def test_where_everything_is_capped(capped: Capped) -> None:
    """A loop that allows it answers sending nothing, and the decision never starts; another says what to do."""
    decision = decide(world={"no_send": True}, capped=capped)
    assert (shown(decision), decision.deferred) == (["no_send"], True)
    assert decision.constraints["withheld"] in ("often", "every content is capped")

    with pytest.raises(Conflict, match=r"may not be sent anything.*set no_send in the loop"):
        decide(capped=capped)


@pytest.mark.parametrize(
    "world", [{"learning_mode": "apprentice"}, {"loop": {"killed": True}}, {"learning_mode": "logging_only"}]
)
def test_a_control_is_the_baseline_of_its_request(world: dict[str, Any]) -> None:
    """Where the baseline answers, the caller's control is it, position by position, and the decision replays."""
    for number in range(6):
        decision = decide(f"d{number}", world, control=("c03", "c00"), slots=3)

        assert shown(decision)[:2] == ["c03", "c00"]
        assert [one.propensity for one in decision.chosen] == [1.0, 1.0, 0.5]
        assert {one.content_id: one.behaviour_p for one in decision.candidates} == {
            "c00": 0,
            "c01": 0,
            "c02": 0,
            "c03": 1,
        }
        assert replay_choice(decision, definition().policy, BASELINE).result == "exact"


def test_a_control_changes_nothing_where_the_policy_chooses() -> None:
    """Online the control is kept with the decision, and the policy draws as without it."""
    plain, controlled = decide(slots=2), decide(slots=2, control=("c03",))

    assert (controlled.candidates, controlled.chosen) == (plain.candidates, plain.chosen)
    assert controlled.constraints["control"] == ["c03"]


def test_a_control_that_is_not_eligible() -> None:
    """Without its control a request falls back to all candidates alike, and replays."""
    decision = decide(world={"learning_mode": "apprentice"}, control=("c03", "c00"), excluded=("c03",), slots=2)

    assert [one.behaviour_p for one in decision.candidates] == pytest.approx([1 / 3] * 3)
    assert replay_choice(decision, definition().policy, BASELINE).result == "exact"
