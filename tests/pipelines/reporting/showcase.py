"""A shop worth looking at: six weeks of messages in two campaigns, a holdout, a policy that learned, copy of known factors.

What is true: a question doubles the clicks, the reader's name adds a third, urgency halves them, a discount costs a fifth;
old customers click more than new ones. The policy sends what is good more often from the second week on.
"""

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
from pipelines.templates import Draft, write_drafts

BEGAN = 20_400 * DAY
DAYS = 42
NOW = BEGAN + (DAYS + 2) * DAY
HOLDOUT = 0.3
LOOP = "winter-mails"
_EFFECTS = {"question": 0.7, "personal": 0.3, "urgency": -0.7, "discount": -0.2}
_CAMPAIGNS = {"coats": "the winter coats", "boots": "new boots"}


def rules(**changes: Any) -> LoopDefinition:
    """Revenue in euros counts; a person approves models; three days' window of the gate and more."""
    document: dict[str, Any] = {
        "loop": LOOP,
        "metrics": [
            {"name": "click", "event": "click", "window": "1d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "1d", "currency": "EUR"},
            {"name": "unsubscribe", "event": "unsubscribe", "window": "1d"},
        ],
        "reward": {"revenue": 1.0},
        "currency": "EUR",
        "lateness": "6h",
        "holdout": HOLDOUT,
        "guardrails": [{"metric": "unsubscribe", "margin": 0.5}],
        "model": {"rounds": 30, "leaves": 7, "min_leaf": 30},
        "gate": {"window": "14d", "min_units": 200, "min_effective": 100, "approval": True},
    }
    return parse_definition(document | changes)


def populate(
    engine: Engine, secrets: Secrets, customers: int = 7_000, seed: int = 5, extra: tuple[str, ...] = ()
) -> None:
    """Fill the loop. ``extra``: further lines of the first campaign, which nobody is sent."""
    rng = np.random.default_rng(seed)
    with writing(engine) as connection:
        put_loop(connection, rules(), BEGAN)
    drafts = {name: write_drafts(theme, 12, seed) for name, theme in _CAMPAIGNS.items()}
    facts = tuple(
        Campaign(
            campaign_id=name,
            loop_id=LOOP,
            brief=f"Sell {theme}.",
            state="running",
            baseline={"version": 1, "content_ids": [f"{name}-{n}" for n in range(12)], "weights": [1 / 12] * 12},
            created_at=BEGAN,
        )
        for name, theme in _CAMPAIGNS.items()
    )
    contents = [
        Content(
            content_id=f"{name}-{number}",
            campaign_id=name,
            slots={"subject": draft.subject},
            features=dict(draft.factors),
            generator="templates",
            approval="approved",
            created_at=BEGAN + (8 * DAY if number > 8 else 0),
        )
        for name, written in drafts.items()
        for number, draft in enumerate(written)
    ]
    contents += [
        Content(content_id=f"x{n:02}", campaign_id="coats", slots={"subject": line}, created_at=BEGAN + 30 * DAY)
        for n, line in enumerate(extra)
    ]
    apply(engine, Batch(campaigns=facts, contents=tuple(contents)), secrets, BEGAN)
    made, events = [], []
    for number, at in enumerate(np.sort(BEGAN + rng.integers(0, DAYS * DAY, customers)).tolist()):
        decision, draft = _decide(rng, number, at, drafts)
        made.append(decision)
        events += _deeds(rng, decision, draft)
    apply(engine, Batch(decisions=tuple(made), events=tuple(events)), secrets, NOW)


def _worth(draft: Draft) -> float:
    return float(np.exp(sum(effect for name, effect in _EFFECTS.items() if draft.factors[name])))


def _decide(rng: np.random.Generator, number: int, at: int, drafts: dict[str, list[Draft]]) -> tuple[Decision, Draft]:
    name = ("coats", "boots")[number % 2]
    written = drafts[name]
    held = bool(rng.random() < HOLDOUT)
    worth = np.array([_worth(draft) for draft in written])
    keen = min(1.0, max(0.0, (at - BEGAN) / DAY - 4.0) / 8.0)
    policy = worth ** (6.0 * keen) + 0.02
    policy = 0.8 * policy / policy.sum() + 0.2 / len(written)
    behaviour = np.full(len(written), 1.0 / len(written)) if held else policy
    shown = int(rng.choice(len(written), p=behaviour))
    usual = 2.4 * worth
    decision = Decision(
        decision_id=f"m{number}",
        request_digest="r",
        loop_id=LOOP,
        loop_version=1,
        campaign_id=name,
        unit=f"u1:{number:032x}",
        context={
            "customer": ("new", "old")[int(rng.integers(2))],
            "device": ("phone", "desktop")[int(rng.integers(2))],
        },
        group="holdout" if held else "treatment",
        learning_mode="online",
        candidates=tuple(
            Candidate(
                content_id=f"{name}-{place}",
                mean=float(m),
                expected=2.4,
                sd=0.3,
                policy_p=float(p),
                behaviour_p=float(b),
            )
            for place, (m, p, b) in enumerate(zip(usual, policy, behaviour, strict=True))
        ),
        chosen=(Placement(position=1, content_id=f"{name}-{shown}", propensity=float(behaviour[shown])),),
        policy_version="p",
        model_version=f"{LOOP}-1",
        sampler=SAMPLER,
        floor=0.001,
        constraints={"slots": 1, "holdout": HOLDOUT},
        seed="00" * 32,
        decided_at=at,
    )
    return decision, written[shown]


def _deeds(rng: np.random.Generator, decision: Decision, draft: Draft) -> list[Event]:
    click = 0.14 * _worth(draft) * (1.3 if decision.context["customer"] == "old" else 0.7)
    found = []
    if rng.random() < click:
        found.append(_event(decision, "click", decision.decided_at + HOUR))
        if rng.random() < 0.5:
            micros = int(1_000_000 * np.exp(rng.normal(3.2, 0.35)))
            found.append(
                _event(decision, "purchase", decision.decided_at + 2 * HOUR, value_micros=micros, currency="EUR")
            )
    if rng.random() < 0.01:
        found.append(_event(decision, "unsubscribe", decision.decided_at + HOUR))
    return found


def _event(decision: Decision, type_: str, at: int, **more: Any) -> Event:
    return Event(
        source="http",
        event_id=f"{type_}-{decision.decision_id}",
        type=type_,
        decision_id=decision.decision_id,
        link="decision_id",
        occurred_at=at,
        received_at=at + HOUR,
        **more,
    )
