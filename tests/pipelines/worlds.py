"""Small worlds with a known truth: decisions drawn by the product's own policies, clicks drawn from stated rates.

Facts go in through ``store.apply``, the way a server's do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import open_database, writing
from infra.migrations import migrate
from infra.randomness import SAMPLER
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.events import Batch, Campaign, Candidate, Content, Decision, Event, Placement
from ingestion.loops import LoopDefinition, parse_definition, put_loop
from ingestion.store import apply
from reward_models.policies import choose, pmf, policy_version

NOW = 1_760_000_000_000_000
TONES = ("bold", "plain", "warm")
SEGMENTS = ("new", "old")

Rate = Callable[[str, str], float]
"""Segment and tone to the probability of a click."""


def matched(segment: str, tone: str) -> float:
    """New customers like it bold, old ones warm: a policy that knows earns 0.3 where the uniform one earns 0.15."""
    return 0.3 if (segment, tone) in {("new", "bold"), ("old", "warm")} else 0.075


def flat(segment: str, tone: str) -> float:
    """Nobody cares: nothing can be gained."""
    return 0.15


def definition(**changes: Any) -> LoopDefinition:
    """A loop on clicks with a maturity of one day and a gate window of seven."""
    document: dict[str, Any] = {
        "loop": "subjects",
        "metrics": [{"name": "click", "event": "click", "aggregate": "any", "window": "1d"}],
        "reward": {"click": 1.0},
        "lateness": 0,
        "holdout": 0.0,
        "model": {"rounds": 25, "leaves": 7, "min_leaf": 20, "text": False},
        "gate": {"window": "7d", "min_units": 100, "min_effective": 50},
    }
    return parse_definition(document | changes)


def populate(
    engine: Engine,
    secrets: Secrets,
    *,
    rate: Rate = matched,
    decisions: int = 3_000,
    days: float = 16,
    until: int = NOW,
    seed: int = 1,
    rules: LoopDefinition | None = None,
    model_version: str | None = None,
) -> LoopDefinition:
    """Fill a loop with uniform decisions spread over the days before ``until``, and their clicks."""
    rules = rules or definition()
    rng = np.random.default_rng(seed)
    with writing(engine) as connection:
        put_loop(connection, rules, until - 100 * DAY)
    times = np.sort(until - (rng.random(decisions) * days * DAY).astype(np.int64) - 1)
    made = [_decide(rules, rng, int(at), f"d{seed}-{number}", model_version) for number, at in enumerate(times)]
    clicks = [_click(decision, rng) for decision in made if rng.random() < _rate_of(decision, rate)]
    apply(engine, Batch(campaigns=(_campaign(rules.loop),), contents=_contents()), secrets, until)
    apply(engine, Batch(decisions=tuple(made), events=tuple(clicks)), secrets, until)
    return rules


def _campaign(loop_id: str) -> Campaign:
    ids = [f"c-{tone}" for tone in TONES]
    baseline = {"version": 1, "kind": "uniform", "content_ids": ids, "weights": [1 / 3] * 3}
    return Campaign(campaign_id="spring", loop_id=loop_id, baseline=baseline, created_at=NOW - 90 * DAY)


def _contents() -> tuple[Content, ...]:
    return tuple(
        Content(
            content_id=f"c-{tone}",
            campaign_id="spring",
            slots={"subject": f"A {tone} offer"},
            features={"tone": tone},
            approval="approved",
            created_at=NOW - 90 * DAY,
        )
        for tone in TONES
    )


def _decide(
    rules: LoopDefinition, rng: np.random.Generator, at: int, decision_id: str, model_version: str | None
) -> Decision:
    ids = [f"c-{tone}" for tone in TONES]
    probabilities = pmf(rules.policy, np.zeros(3), np.zeros(3))
    index = choose(probabilities, float(rng.random()))
    candidates = tuple(
        Candidate(content_id=name, score=0.0, expected=0.0, mean=0.0, sd=0.0, policy_p=float(p), behaviour_p=float(p))
        for name, p in zip(ids, probabilities, strict=True)
    )
    return Decision(
        decision_id=decision_id,
        request_digest=decision_id,
        loop_id=rules.loop,
        loop_version=1,
        campaign_id="spring",
        unit=f"u1:{int(rng.integers(1_500)):032x}",
        context={"segment": SEGMENTS[int(rng.integers(2))]},
        group="treatment",
        learning_mode="online",
        candidates=candidates,
        chosen=(Placement(position=1, content_id=ids[index], propensity=float(probabilities[index])),),
        policy_version=policy_version(rules.policy),
        model_version=model_version,
        sampler=SAMPLER,
        floor=rules.policy.floor,
        constraints={"slots": 1},
        seed="00" * 32,
        decided_at=at,
    )


def _rate_of(decision: Decision, rate: Rate) -> float:
    return rate(decision.context["segment"], decision.chosen[0].content_id.removeprefix("c-"))


def _click(decision: Decision, rng: np.random.Generator) -> Event:
    at = decision.decided_at + int(rng.random() * 20 * HOUR)
    return Event(
        source="http",
        event_id=f"click-{decision.decision_id}",
        type="click",
        decision_id=decision.decision_id,
        link="decision_id",
        occurred_at=at,
        received_at=at,
    )


def standing_still(folder: Path) -> Path:
    """A data folder with a small world that has a taste to be learned, and a clock that stands still."""
    settings = Settings(home=folder)
    settings.home.mkdir()
    engine = open_database(settings.database)
    migrate(engine)
    populate(engine, Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))}))
    engine.dispose()
    (settings.home / "clock").write_text(str(NOW))
    return settings.home
