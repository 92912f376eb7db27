"""Many decisions at once are those that the ranker makes one by one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import Conflict
from ingestion.events import Decision
from reward_models.boosted import RewardModel
from reward_models.contextual import fit_contextual
from reward_models.serving.eligibility import OPEN, Capped
from reward_models.serving.many import rank_many
from reward_models.serving.ranker import Request, rank
from reward_models.serving.recent import Layer
from reward_models.serving.snapshot import Served, Snapshot
from tests.reward_models.serving.models import trained
from tests.reward_models.serving.worlds import SECRETS, control_baseline, definition, request, snapshot

CONTEXTS: Sequence[dict[str, Any]] = (
    {},
    {"age": 30},
    {"age": 55.5},
    {"age": True},
    {"age": 1, "plan": "gold"},
    {"plan": "1"},
)
COUNTS = {"c00": (1_000, 20), "c01": (1_000, 30), "c02": (400, 15)}
CAPS = (OPEN, Capped("twice a week", 5, ()), Capped(None, None, (("c01", "seen"),)))


@cache
def model() -> RewardModel:
    """A model of contexts and copy."""
    return trained()


@cache
def layer(count: int) -> Layer:
    """What contexts say of this world's contents between two retrains."""
    rng = np.random.default_rng(3)
    ids = [f"c{number:02d}" for number in range(count)]
    contexts = [{"age": float(age)} for age in rng.integers(20, 70, 400)]
    content = rng.integers(0, count, 400)
    reward = rng.normal(size=400) + np.array([one["age"] > 45 for one in contexts]) * (content == 1)
    return Layer("", 400, fit_contextual(contexts, content, reward, ids, [{}] * count))


def world(
    count: int, modelled: bool, told: bool, loop: dict[str, Any], baseline: Any = None, **changes: Any
) -> Snapshot:
    """Contents that were counted, with or without a model, and with or without what the newest contexts say."""
    served = Served("mail-1", model(), definition(**changes)) if modelled else None
    held = {"served": served, "champion": "mail-1"} if modelled else {}
    found = snapshot(count, COUNTS, baseline, loop | held, **changes)
    return replace(found, layers={"june": layer(count)}) if told and not modelled else found


def one_by_one(known: Snapshot, requests: Sequence[Request]) -> list[Decision | str]:
    """What the ranker says to each."""
    return [_said(known, each) for each in requests]


def _said(known: Snapshot, each: Request) -> Decision | str:
    try:
        return rank(known, each, SECRETS, 500)
    except Conflict as refused:
        return str(refused)


def many(known: Snapshot, requests: Sequence[Request]) -> list[Decision | str]:
    """The same at once."""
    found = rank_many(known, requests, SECRETS, 500)
    return [str(one) if isinstance(one, Conflict) else one for one in found]


requests_of = st.lists(
    st.builds(
        request,
        decision_id=st.text("abcdef0123456789", min_size=1, max_size=8),
        unit=st.one_of(st.none(), st.text("uvw123", min_size=1, max_size=6)),
        context=st.sampled_from(CONTEXTS),
        excluded=st.sampled_from([(), (), ("c00",)]),
        suppressed=st.sampled_from([None, None, None, "unsubscribe"]),
        capped=st.sampled_from([OPEN, *CAPS]),
        slots=st.sampled_from([1, 1, 1, 3]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(
    requests=requests_of,
    count=st.sampled_from([2, 3, 12]),
    modelled=st.booleans(),
    told=st.booleans(),
    loop=st.sampled_from([{}, {}, {"killed": True}]),
    mode=st.sampled_from(["online", "online", "apprentice"]),
    kind=st.sampled_from(["posterior", "posterior", "epsilon"]),
    limits=st.sampled_from([{}, {"c01": {"least": 0.3, "most": 0.4}}]),
    no_send=st.booleans(),
    control=st.booleans(),
)
def test_many_are_one_by_one(
    requests: list[Request],
    count: int,
    modelled: bool,
    told: bool,
    loop: dict[str, Any],
    mode: str,
    kind: str,
    limits: dict[str, Any],
    no_send: bool,
    control: bool,
) -> None:
    """Whatever is asked of whatever world, the decisions are equal in every field, to the last bit: ids, groups, scores,
    probabilities, draws; and so are the refusals."""
    changes: dict[str, Any] = {"learning_mode": mode, "policy": {"kind": kind}, "limits": limits, "no_send": no_send}
    baseline = control_baseline("c01") if control else None
    known = world(count, modelled, told, loop, baseline, holdout=0.3, **changes)

    assert many(known, requests) == one_by_one(known, requests)


def test_numbers_are_the_same_bytes() -> None:
    """Scores of hundreds of different contexts at once are those of one context after the other, by trees and by masks."""
    rng = np.random.default_rng(1)
    for count in (3, 40):
        known = world(count, True, False, {})
        requests = [
            request(f"d{n}", unit=f"u{n}", context={"age": float(age)}) for n, age in enumerate(rng.normal(45, 15, 300))
        ]

        assert many(known, requests) == one_by_one(known, requests)


def test_nobody_is_nobody() -> None:
    """No request, no decision."""
    assert rank_many(snapshot(), [], SECRETS, 500) == []
