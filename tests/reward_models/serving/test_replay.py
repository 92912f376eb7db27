"""Replay of stored decisions."""

from typing import Any

import msgspec
import pytest

from ingestion.events import Decision
from reward_models.serving.ranker import rank
from reward_models.serving.replay import replay_choice, replay_scores
from tests.reward_models.serving.worlds import SECRETS, control_baseline, definition, request, snapshot

COUNTS = {"c00": (1_000, 20), "c01": (1_013, 31), "c02": (977, 25)}
BASELINE = control_baseline("c01")
WORLDS: list[dict[str, Any]] = [
    {},
    {"holdout": 0.9},
    {"learning_mode": "apprentice"},
    {"loop": {"killed": True}},
    {"policy": {"kind": "top_two"}},
    {"policy": {"kind": "inverse_gap"}},
    {"limits": {"c00": {"least": 0.4}, "c01": {"most": 0.3}, "c02": {"budget": 9_000}}},
    {"policy": {"kind": "softmax"}},
    {"policy": {"kind": "epsilon"}},
    {"policy": {"kind": "uniform"}},
]


def stored(decision_id: str = "d1", slots: int = 1, **world: Any) -> Decision:
    """A decision as it is read back from its row's JSON."""
    made = rank(
        snapshot(counts=COUNTS, baseline=BASELINE, **world),
        request(decision_id, unit=f"u-{decision_id}", slots=slots),
        SECRETS,
        500,
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=Decision)


@pytest.mark.parametrize("world", WORLDS, ids=str)
@pytest.mark.parametrize("slots", [1, 3])
def test_choices_replay_exactly(world: dict[str, Any], slots: int) -> None:
    """Every kind of decision is computed again from its row: the same probabilities and the same choice, to the bit."""
    policy = definition(**{name: value for name, value in world.items() if name == "policy"}).policy
    results = {replay_choice(stored(f"d{number}", slots, **world), policy, BASELINE).result for number in range(25)}

    assert {"exact"} == results


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "00" * 32},
        {"chosen": ()},
        {"decision_id": "another"},
    ],
)
def test_a_changed_row_is_found(change: dict[str, Any]) -> None:
    """A row whose seed, choice or id was changed no longer replays, in at least one of a few decisions."""
    policy = definition().policy
    results = [
        replay_choice(msgspec.structs.replace(stored(f"d{n}", slots=3), **change), policy, BASELINE).result
        for n in range(20)
    ]

    assert "differs" in results


def test_a_changed_probability_is_found() -> None:
    """A stored score that was changed by the smallest step gives other probabilities."""
    decision = stored()
    first = msgspec.structs.replace(decision.candidates[0], mean=(decision.candidates[0].mean or 0.0) + 1e-6)
    changed = msgspec.structs.replace(decision, candidates=(first, *decision.candidates[1:]))

    assert replay_choice(changed, definition().policy, BASELINE).result == "differs"


def test_choices_made_elsewhere_are_not_replayed() -> None:
    """A decision without probabilities, or without the seed of our draw, says that it cannot be replayed."""
    decision = stored()
    unknown = tuple(msgspec.structs.replace(one, behaviour_p=None) for one in decision.candidates)

    for change in ({"candidates": unknown}, {"seed": "", "constraints": {}}):
        elsewhere = msgspec.structs.replace(decision, **change)
        assert replay_choice(elsewhere, definition().policy, {}).result == "not possible"


def test_scores_without_a_model() -> None:
    """A decision made without a model replays if its predictions are all 0."""
    assert replay_scores(stored(), None, []).result == "exact"


def test_scores_of_a_lost_model() -> None:
    """A decision whose model's files are gone says so."""
    lost = msgspec.structs.replace(stored(), model_version="mail-3")

    assert replay_scores(lost, None, []).result == "not possible"
