"""Holdout against learned policy: the measured and the true lift of stored decisions."""

import io

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import Engine

from infra.clock import DAY
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Campaign, Candidate, Content, Decision, Event, Placement
from ingestion.loops import parse_definition, put_loop
from pipelines.comparison import Comparison, compare
from pipelines.demo import SHORT, comparison_table, definition_of
from pipelines.simulator import Customer, World, true_values
from pipelines.templates import write_drafts

NOON = 20_000 * DAY
WORLD = World()
DEFINITION = parse_definition(definition_of(SHORT) | {"loop": "demo"})
COPY = {f"c{number}": draft.factors for number, draft in enumerate(write_drafts("the sale", 2, seed=4))}
CUSTOMERS = {f"u{number:02d}": Customer(f"u{number:02d}", "gold", "mobile", 10, 1.0) for number in range(80)}


def a_decision(unit: str, number: int, policy_p: float | None) -> Decision:
    """One message to ``unit``; every second unit is held out. ``policy_p``: of the content ``c1``."""
    pair = (None, None) if policy_p is None else (1 - policy_p, policy_p)
    return Decision(
        decision_id=f"{unit}-{number}",
        request_digest="r",
        loop_id="demo",
        loop_version=1,
        campaign_id="winter",
        unit=unit,
        context={},
        group="holdout" if int(unit[1:]) % 2 else "treatment",
        learning_mode="online",
        candidates=tuple(
            Candidate(content_id=content_id, policy_p=p, behaviour_p=0.5)
            for content_id, p in zip(COPY, pair, strict=True)
        ),
        chosen=(Placement(position=1, content_id="c1", propensity=0.5),),
        policy_version="p",
        sampler="s",
        floor=0.0,
        seed="",
        decided_at=NOON + number * DAY,
    )


def compared(engine: Engine, secrets: Secrets, policy_p: tuple[float | None, ...], clicked: set[str]) -> Comparison:
    """Every customer gets one message per entry of ``policy_p``; the units of ``clicked`` click on the first."""
    with writing(engine) as connection:
        put_loop(connection, DEFINITION, NOON)
    baseline = {"version": 1, "kind": "uniform", "content_ids": list(COPY), "weights": [0.5, 0.5]}
    batch = Batch(
        campaigns=(Campaign(campaign_id="winter", loop_id="demo", baseline=baseline),),
        contents=tuple(
            Content(content_id=content_id, campaign_id="winter", slots={"subject": content_id}, features=dict(factors))
            for content_id, factors in COPY.items()
        ),
        decisions=tuple(a_decision(unit, number, p) for unit in CUSTOMERS for number, p in enumerate(policy_p)),
        events=tuple(
            Event(
                source="http",
                event_id=unit,
                type="click",
                occurred_at=NOON + 1,
                received_at=NOON + 1,
                decision_id=f"{unit}-0",
                link="decision_id",
            )
            for unit in clicked
        ),
    )
    store.apply(engine, batch, secrets, NOON)
    with reading(engine) as connection:
        return compare(connection, DEFINITION, WORLD, CUSTOMERS, NOON, NOON + 9 * DAY)


def test_the_true_lift_is_what_the_stored_probabilities_are_worth(engine: Engine, secrets: Secrets) -> None:
    """Per decision: Σ (policy_p − baseline_p)·μ, averaged over both groups and all messages."""
    value = true_values(WORLD, list(CUSTOMERS.values())[:1], list(COPY.values()))
    better = np.array([0.1 - 0.5, 0.9 - 0.5])

    found = compared(engine, secrets, (0.9, 0.5), set())

    assert found.true["click"] == pytest.approx(float(value.click[0] @ better) / 2)
    assert found.true["revenue"] == pytest.approx(float(value.revenue[0] @ better) / 2)


def test_a_fallback_gains_nothing(engine: Engine, secrets: Secrets) -> None:
    """A decision that was answered with the baseline has a true lift of zero."""
    assert compared(engine, secrets, (None,), set()).true == {"click": 0.0, "revenue": 0.0}


def test_the_measured_lift_is_per_message_and_by_assignment(engine: Engine, secrets: Secrets) -> None:
    """Clicks over messages in each group; ten treatment and five holdout clickers of forty with two messages each."""
    units = list(CUSTOMERS)
    found = compared(engine, secrets, (0.5, 0.5), {*units[0:20:2], *units[1:11:2]})

    assert (found.holdout_decisions, found.treatment_decisions) == (80, 80)
    assert found.measured["click"].treatment_mean == 10 / 80
    assert found.measured["click"].holdout_mean == 5 / 80
    assert found.measured["click"].low < 5 / 80 < found.measured["click"].high


def test_a_marketer_reads_both_groups_the_interval_and_the_truth(engine: Engine, secrets: Secrets) -> None:
    """The table fits 80 columns and has a row for each thing that must be said."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table("demo-1", compared(engine, secrets, (0.9,), {"u00", "u02", "u03"})))
    said = console.export_text()

    assert "…" not in said
    for row in ("holdout (baseline)", "learned policy", "measured lift", "95 % interval", "smallest detectable"):
        assert row in said
