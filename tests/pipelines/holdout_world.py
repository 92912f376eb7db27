"""A small shop with a holdout, in the database: what `lift`, `drill` and the guardrails are tried on."""

from typing import Any

import numpy as np
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import writing
from infra.randomness import SAMPLER
from infra.secrets import Secrets
from ingestion.events import Batch, Campaign, Candidate, Content, Decision, Event, Placement
from ingestion.loops import LoopDefinition, parse_definition, put_loop
from ingestion.store import apply

BEGAN = 20_000 * DAY
DAYS = 20
NOW = BEGAN + 40 * DAY
"""Everybody is mature."""
HOLDOUT = 0.25


def shop(**changes: Any) -> LoopDefinition:
    """Clicks, money and unsubscribes, each within a day."""
    document: dict[str, Any] = {
        "loop": "shop",
        "metrics": [
            {"name": "click", "event": "click", "window": "1d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "1d", "currency": "EUR"},
            {"name": "unsubscribe", "event": "unsubscribe", "window": "1d"},
        ],
        "reward": {"click": 1.0},
        "lateness": 0,
        "holdout": HOLDOUT,
        "guardrails": [{"metric": "unsubscribe"}],
    }
    return parse_definition(document | changes)


def fill(
    engine: Engine,
    secrets: Secrets,
    rules: LoopDefinition,
    *,
    leave: float = 0.02,
    customers: int = 2_000,
    seed: int = 1,
) -> None:
    """Customers come over 20 days, one message each. Treatment mostly gets the copy with twice the clicks (40 %), half of
    which buy for 20; ``leave``: how many of treatment unsubscribe, of the holdout one in fifty."""
    rng = np.random.default_rng(seed)
    with writing(engine) as connection:
        put_loop(connection, rules, BEGAN)
    batch = Batch(
        campaigns=(
            Campaign(
                campaign_id="spring",
                loop_id="shop",
                baseline={"version": 1, "content_ids": ["a"], "weights": [1.0]},
            ),
        ),
        contents=tuple(Content(content_id=name, campaign_id="spring", slots={"subject": name}) for name in "ab"),
    )
    apply(engine, batch, secrets, BEGAN)
    times = np.sort(BEGAN + rng.integers(0, DAYS * DAY, customers))
    made, facts = [], []
    for number, at in enumerate(times.tolist()):
        held = bool(rng.random() < HOLDOUT)
        shown = 0 if held or rng.random() < 0.1 else 1
        decision = _decide(number, at, held, shown)
        made.append(decision)
        if rng.random() < (0.2, 0.4)[shown]:
            facts.append(_event(decision, "click", at + HOUR))
            if rng.random() < 0.5:
                facts.append(_event(decision, "purchase", at + 2 * HOUR, value_micros=20_000_000, currency="EUR"))
        if rng.random() < (0.02 if held else leave):
            facts.append(_event(decision, "unsubscribe", at + HOUR))
    apply(engine, Batch(decisions=tuple(made), events=tuple(facts)), secrets, NOW)


def _decide(number: int, at: int, held: bool, shown: int) -> Decision:
    policy, behaviour = (0.1, 0.9), (1.0, 0.0) if held else (0.1, 0.9)
    return Decision(
        decision_id=f"d{number}",
        request_digest="r",
        loop_id="shop",
        loop_version=1,
        campaign_id="spring",
        unit=f"u1:{number:032x}",
        context={"tier": "gold" if number % 3 else "new"},
        group="holdout" if held else "treatment",
        learning_mode="online",
        candidates=tuple(
            Candidate(content_id=name, policy_p=p, behaviour_p=b)
            for name, p, b in zip("ab", policy, behaviour, strict=True)
        ),
        chosen=(Placement(position=1, content_id="ab"[shown], propensity=behaviour[shown]),),
        policy_version="p",
        sampler=SAMPLER,
        floor=0.01,
        constraints={"slots": 1, "holdout": HOLDOUT},
        seed="00" * 32,
        decided_at=at,
    )


def _event(decision: Decision, type_: str, at: int, **more: Any) -> Event:
    """Purchases name the customer only, the others the decision."""
    whose: dict[str, Any] = (
        {"unit": decision.unit} if type_ == "purchase" else {"decision_id": decision.decision_id, "link": "decision_id"}
    )
    return Event(
        source="http",
        event_id=f"{type_}-{decision.decision_id}",
        type=type_,
        occurred_at=at,
        received_at=at,
        **whose,
        **more,
    )
