"""The ranker: candidates, groups, modes, probabilities, slates."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from infra.errors import BadInput
from ingestion.events import Content, Decision
from reward_models.policies import pmf
from reward_models.serving.ranker import rank
from tests.reward_models.serving.worlds import SECRETS, contents, control_baseline, definition, request, snapshot

COUNTS = {"c00": (1_000, 20), "c01": (1_000, 30), "c02": (1_000, 25)}


def decide(world: Any, decision_id: str = "d1", limit: int = 500, away: bool = False, **changes: Any) -> Decision:
    """The decision in this world."""
    return rank(world, request(decision_id, **changes), SECRETS, limit, away)


def policy_of(decision: Decision) -> list[float | None]:
    return [candidate.policy_p for candidate in decision.candidates]


def behaviour_of(decision: Decision) -> list[float | None]:
    return [candidate.behaviour_p for candidate in decision.candidates]


def test_treatment_is_drawn_from_the_policy() -> None:
    """In treatment the two stored distributions are the same, and both are the policy's pmf of the stored scores."""
    decision = decide(snapshot(counts=COUNTS))
    means = [candidate.mean for candidate in decision.candidates]
    deviations = [candidate.sd for candidate in decision.candidates]

    assert (decision.group, decision.learning_mode) == ("treatment", "online")
    assert policy_of(decision) == behaviour_of(decision)
    assert pmf(definition().policy, np.array(means), np.array(deviations)).tolist() == policy_of(decision)


def test_clicks_steer() -> None:
    """The content with the most clicks gets the largest probability, and every other at least the floor."""
    decision = decide(snapshot(counts=COUNTS))
    probabilities = policy_of(decision)

    assert max(p or 0.0 for p in probabilities) == probabilities[1]
    assert min(p or 0.0 for p in probabilities) >= definition().policy.floor


def test_nothing_known_is_uniform() -> None:
    """Without a model and without clicks all contents are equal: online learning starts from there."""
    decision = decide(snapshot(4))

    assert policy_of(decision) == [0.25] * 4
    assert decision.model_version is None


def test_frequencies_are_the_propensities() -> None:
    """Over many decisions the share of each content is its stored probability (martingale z within 4)."""
    world = snapshot(counts=COUNTS)
    decisions = [decide(world, f"d{number}") for number in range(4_000)]
    expected = np.array(behaviour_of(decisions[0]), dtype=float)
    shown = Counter(decision.chosen[0].content_id for decision in decisions)
    played = np.array([shown[name] for name in ("c00", "c01", "c02")])
    z = (played - len(decisions) * expected) / np.sqrt(len(decisions) * expected * (1 - expected))

    assert (np.abs(z) < 4).all(), z


def test_the_stored_propensity_is_the_drawn_one() -> None:
    """The propensity of the first position is the behaviour probability of that content."""
    for number in range(20):
        decision = decide(snapshot(counts=COUNTS), f"d{number}")
        by_id = {candidate.content_id: candidate.behaviour_p for candidate in decision.candidates}

        assert by_id[decision.chosen[0].content_id] == decision.chosen[0].propensity


def test_same_question_same_answer() -> None:
    """A decision is a function of its request and the snapshot, whatever the order of the candidates."""
    world = snapshot(counts=COUNTS)

    assert decide(world, candidates=("c00", "c01", "c02")) == decide(world, candidates=("c02", "c00", "c01"))


def test_holdout_always_gets_the_baseline() -> None:
    """A unit that is held out is held out in every decision, and is drawn from the baseline, not the policy."""
    world = snapshot(counts=COUNTS, baseline=control_baseline("c00"), holdout=0.5)
    groups = {unit: {decide(world, f"{unit}-{n}", unit=unit).group for n in range(3)} for unit in map(str, range(200))}
    held = [unit for unit, seen in groups.items() if seen == {"holdout"}]

    assert {1} == {len(seen) for seen in groups.values()}
    assert 70 <= len(held) <= 130
    for unit in held[:20]:
        decision = decide(world, f"{unit}-9", unit=unit)
        assert (decision.chosen[0].content_id, decision.chosen[0].propensity) == ("c00", 1.0)
        assert behaviour_of(decision) == [1.0, 0.0, 0.0]
        assert policy_of(decision) != behaviour_of(decision)


def test_without_a_unit_nobody_is_held_out() -> None:
    """A request that names no unit is treatment, whatever the share of the holdout."""
    world = snapshot(holdout=0.9)

    assert {"treatment"} == {decide(world, f"d{n}").group for n in range(50)}


def test_the_unit_is_stored_hashed() -> None:
    """The decision holds the keyed hash of the customer, never the id."""
    decision = decide(snapshot(), unit="jane@example.com")

    assert SECRETS.unit("jane@example.com") == decision.unit
    assert "jane" not in repr(decision)


@pytest.mark.parametrize("mode", ["apprentice", "logging_only"])
def test_an_apprentice_answers_the_baseline_and_logs_the_policy(mode: str) -> None:
    """An apprentice's choice is the baseline's, with what the policy would have drawn beside it."""
    decision = decide(snapshot(counts=COUNTS, baseline=control_baseline("c02"), learning_mode=mode))

    assert mode == decision.learning_mode
    assert behaviour_of(decision) == [0.0, 0.0, 1.0]
    assert (decision.chosen[0].content_id, decision.chosen[0].propensity) == ("c02", 1.0)
    assert policy_of(decision) == policy_of(decide(snapshot(counts=COUNTS)))


@pytest.mark.parametrize("loop", [{"killed": True}, {"champion": "mail-1", "fault": "digest differs"}])
def test_fallback_is_the_baseline(loop: dict[str, Any]) -> None:
    """A killed loop, and one whose model is not usable, answer the baseline, and say so."""
    decision = decide(snapshot(counts=COUNTS, baseline=control_baseline("c01"), loop=loop))

    assert (decision.learning_mode, decision.policy_version, decision.model_version) == ("fallback", "baseline@1", None)
    assert behaviour_of(decision) == [0.0, 1.0, 0.0]
    assert policy_of(decision) == [None] * 3


def test_away_is_the_baseline() -> None:
    """A decision that cannot be stored is the baseline's."""
    decision = decide(snapshot(counts=COUNTS, baseline=control_baseline("c01")), away=True)

    assert (decision.learning_mode, decision.chosen[0].content_id) == ("fallback", "c01")


def test_slate_propensities_are_conditional() -> None:
    """Each position's propensity is the content's share of what the positions above left."""
    for number in range(30):
        decision = decide(snapshot(counts=COUNTS), f"d{number}", slots=2)
        p = {candidate.content_id: candidate.behaviour_p or 0.0 for candidate in decision.candidates}
        first, second = decision.chosen

        assert (first.position, second.position) == (1, 2)
        assert p[first.content_id] == first.propensity
        assert p[second.content_id] / (1 - p[first.content_id]) == pytest.approx(second.propensity or 0.0)


def test_more_slots_than_contents() -> None:
    """A slate has no more positions than there are candidates; the last one is certain."""
    decision = decide(snapshot(counts=COUNTS), slots=10)

    assert sorted(placement.content_id for placement in decision.chosen) == ["c00", "c01", "c02"]
    assert decision.chosen[-1].propensity == 1.0


def test_exclusions_have_reasons() -> None:
    """Whatever was not eligible is named with its reason, sorted."""
    copy = contents(2) | {
        "draft": Content(content_id="draft", campaign_id="june", slots={"subject": "x"}),
        "old": Content(content_id="old", campaign_id="june", slots={"subject": "y"}, approval="retired"),
    }
    world = snapshot(copy=copy)
    decision = decide(world, candidates=("old", "c00", "c01", "stranger", "draft", "no_send"), excluded=("c01",))

    assert [(one.content_id, one.reason) for one in decision.excluded] == [
        ("c01", "excluded by the request"),
        ("draft", "not approved: draft"),
        ("no_send", "the loop does not allow sending nothing"),
        ("old", "not approved: retired"),
        ("stranger", "no content of campaign june"),
    ]
    assert [candidate.content_id for candidate in decision.candidates] == ["c00"]


def test_sending_nothing_is_a_candidate_where_the_loop_lists_it() -> None:
    """no_send is eligible in a loop that allows it, and only there."""
    allowed = decide(snapshot(2, no_send=True))
    forbidden = decide(snapshot(2))

    assert [candidate.content_id for candidate in allowed.candidates] == ["c00", "c01", "no_send"]
    assert [candidate.content_id for candidate in forbidden.candidates] == ["c00", "c01"]


def test_one_candidate_is_certain() -> None:
    """A single candidate is chosen with probability 1."""
    decision = decide(snapshot(counts=COUNTS), candidates=("c02",))

    assert (decision.chosen[0].content_id, decision.chosen[0].propensity) == ("c02", 1.0)


def test_five_hundred_candidates_and_no_more() -> None:
    """The limit itself is ranked; one more is refused with what to do."""
    assert len(decide(snapshot(60), limit=60).candidates) == 60
    with pytest.raises(BadInput, match="61 eligible contents; at most 60 are ranked at once: name the candidates"):
        decide(snapshot(61), limit=60)


@pytest.mark.parametrize(
    ("world", "changes", "sentence"),
    [
        (snapshot(copy={}), {}, "has no contents; register some with POST /v1/contents and approve them"),
        (snapshot(copy=contents(2, "draft")), {}, "has no eligible content; approve one with POST /v1/contents"),
        (snapshot(2), {"excluded": ("c00", "c01")}, r"\(c00: excluded by the request; c01: excluded by the request\)"),
        (snapshot(2), {"candidates": ()}, "has no eligible content"),
        (snapshot(2, state="draft"), {}, "is not started; start it with POST /v1/campaigns, state running"),
        (snapshot(2, state="ended"), {}, "is over; register a new one"),
    ],
)
def test_nothing_to_choose_from(world: Any, changes: dict[str, Any], sentence: str) -> None:
    """A campaign that cannot be ranked is refused with what to do about it."""
    with pytest.raises(BadInput, match=sentence):
        decide(world, **changes)
