"""The layer of contexts in serving: learned from stored decisions without a retrain, thrown away with the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.database import writing
from ingestion import store
from ingestion.contents import add_contents, put_campaign, start_campaign
from ingestion.events import Batch, Campaign, Content, Decision, Event
from ingestion.loops import parse_definition, put_loop
from reward_models.serving.decision_log import insert_decisions
from reward_models.serving.ranker import rank
from reward_models.serving.recent import Layer, Looks, load_layer, most_moved
from reward_models.serving.replay import replay_choice
from reward_models.serving.snapshot import OPEN_BASELINE, Snapshots
from reward_models.statistics import StatRow
from tests.reward_models.serving.worlds import NOW, SECRETS, request

LOOP = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}, "holdout": 0}
TASTE = {"new": "a", "old": "b"}


def serving(engine: Engine, home: Path, **changes: Any) -> Snapshots:
    """A loop that explores evenly, with a running campaign of two contents; every refresh may look at decisions."""
    with writing(engine) as connection:
        put_loop(connection, parse_definition(LOOP | {"approval": "automatic"} | changes), 1)
        put_campaign(connection, Campaign(campaign_id="june", loop_id="mail"))
        copy = [Content(content_id=name, campaign_id="june", slots={"subject": name}) for name in ("a", "b")]
        add_contents(connection, "june", copy, 20_000, 1)
        start_campaign(connection, "june", None, "ann", 1)
    holder = Snapshots(engine, home)
    holder._looks = Looks(0.0)
    holder.refresh()
    return holder


def decide(holder: Snapshots, decision_id: str, context: Mapping[str, Any]) -> Decision:
    return rank(holder.current, request(decision_id, context=dict(context)), SECRETS, 500)


def send(holder: Snapshots, count: int) -> None:
    """Decisions for new and old customers in turn; each clicks on the content it likes, and on nothing else."""
    made = [decide(holder, f"d{n}", {"tier": list(TASTE)[n % 2]}) for n in range(count)]
    clicks = [
        Event(
            source="test",
            event_id=f"k{one.decision_id}",
            type="click",
            occurred_at=NOW + 1,
            received_at=NOW + 1,
            decision_id=one.decision_id,
            link="decision_id",
        )
        for one in made
        if one.chosen[0].content_id == TASTE[one.context["tier"]]
    ]
    with writing(holder.engine) as connection:
        insert_decisions(connection, made)
    store.apply(holder.engine, Batch(events=tuple(clicks)), SECRETS, NOW + 2)
    holder.refresh()


def favourite(decision: Decision) -> str:
    return max(decision.candidates, key=lambda one: one.policy_p or 0.0).content_id


def test_a_taste_is_learned_within_seconds(any_engine: Engine, tmp_path: Path) -> None:
    """Two contents are clicked equally often, each by its own customers: without any model each customer gets theirs."""
    holder = serving(any_engine, tmp_path)
    send(holder, 120)
    new, old = (decide(holder, f"later-{tier}", {"tier": tier}) for tier in ("new", "old"))

    assert (favourite(new), favourite(old)) == ("a", "b")
    assert new.model_version is None
    assert max(candidate.policy_p or 0.0 for candidate in new.candidates) > 0.9
    assert replay_choice(new, holder.current.loops["mail"].policy, OPEN_BASELINE).result == "exact"


def test_it_can_be_switched_off(any_engine: Engine, tmp_path: Path) -> None:
    """A loop whose model settings say so learns averages only."""
    holder = serving(any_engine, tmp_path, model={"contexts": False})
    send(holder, 120)
    new, old = (decide(holder, f"later-{tier}", {"tier": tier}) for tier in ("new", "old"))

    assert holder.current.layers == {}
    assert [one.policy_p for one in new.candidates] == [one.policy_p for one in old.candidates]


def test_the_campaign_that_moved_most_is_next() -> None:
    """New exposures decide, relative to those seen; what has hardly moved waits; another model starts anew."""
    rows = {name: {"m": [StatRow("a", "click", shown, 0, 0.0, 0)]} for name, shown in {"x": 1_000, "y": 1_000}.items()}
    versions = {"x": "m", "y": "m"}

    assert most_moved(rows, versions, {"x": Layer("m", 900, None), "y": Layer("m", 500, None)}) == "y"
    assert most_moved(rows, versions, {"x": Layer("m", 985, None), "y": Layer("m", 1_000, None)}) is None
    assert most_moved(rows, versions, {"x": Layer("before", 1_000, None), "y": Layer("m", 999, None)}) == "x"


def test_looks_are_apart() -> None:
    """A second look is not due before its time."""
    looks = Looks(3_600.0)
    before = looks.due()
    looks.looked()

    assert (before, looks.due()) == (True, False)


def test_one_refresh_looks_at_one_campaign(any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions are read for one campaign and not again before something has moved."""
    from reward_models.serving import snapshot

    holder = serving(any_engine, tmp_path)
    calls: list[int] = []

    def noted(*args: Any) -> Any:
        calls.append(1)
        return load_layer(*args)

    monkeypatch.setattr(snapshot, "load_layer", noted)
    send(holder, 30)
    store.apply(any_engine, Batch(), SECRETS, NOW + 3)
    holder.refresh()

    assert len(calls) == 1
