"""`rewardloop lift` and `rewardloop drill`, and guardrails at work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading, writing
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.events import Batch, Event
from ingestion.loops import LoopDefinition
from ingestion.store import apply
from ingestion.switches import killed_loops, set_switch
from pipelines import cli, papers
from pipelines.commands import proving as commands
from pipelines.commands.workspace import GATE_REFUSED, OK, Workspace
from pipelines.learning import Bench, retrain
from reward_models import drill
from reward_models.lift_report import LiftReport, measure
from tests.pipelines.holdout_world import BEGAN, DAYS, NOW, fill, shop
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.worlds import NOW as WORLD_NOW
from tests.pipelines.worlds import definition, populate


@pytest.fixture
def workspace(engine: Engine, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """What the commands open: the test's own database, at a time when everybody is mature."""
    found = Workspace(Settings(home=tmp_path), engine, secrets, lambda: NOW)
    monkeypatch.setattr(commands, "open_workspace", lambda: found)
    return found


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn in ``test_mirror.py``."""
    monkeypatch.setattr(papers, "pictures", lambda *_: {})


def report_of(engine: Engine, rules: LoopDefinition, now: int = NOW) -> LiftReport:
    """The report of the shop."""
    with reading(engine) as connection:
        return measure(connection, rules, 1, now)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stdout of a command."""
    capsys.readouterr()
    return cli.run(arguments), capsys.readouterr().out


def test_the_report_measures_what_the_shop_gained(engine: Engine, secrets: Secrets) -> None:
    """Clicks and money are clearly better, within the interval of what is true; money stands capped and as it came."""
    fill(engine, secrets, shop())
    report = report_of(engine, shop())
    found = {(each.metric, each.capped): each for each in report.lifts}
    clicks, money = found["click", None].lift, found["revenue", None].lift

    assert [*found] == [("click", None), ("revenue", None), ("revenue", 20.0), ("unsubscribe", None)]
    assert clicks is not None
    assert money is not None
    assert clicks.standing == money.standing == "better"
    assert clicks.low < 0.9 * 0.2 < clicks.high
    assert money.low < 0.9 * 0.2 * 0.5 * 20 < money.high
    assert (report.customers, report.waiting, report.not_dealt) == (2_000, 0, 0)
    assert report.per_day == pytest.approx(2_000 / DAYS, rel=0.02)


def test_every_lift_says_what_it_could_show_and_when_it_is_decided(engine: Engine, secrets: Secrets) -> None:
    """Smallest detectable effect and days to a decision stand beside every lift; what is decided takes 0 days."""
    fill(engine, secrets, shop())
    found = {each.metric: each for each in report_of(engine, shop()).lifts}
    open_one = found["unsubscribe"]

    assert found["click"].days_to_decision == 0.0
    assert open_one.lift is not None
    assert open_one.lift.standing == "open"
    assert open_one.lift.mde > abs(open_one.lift.difference)
    assert "not decided yet" in open_one.sentence
    assert all(each.lift is not None and each.lift.mde > 0.0 for each in found.values())


def test_a_cap_of_the_metric_is_the_cap_of_its_lift(engine: Engine, secrets: Secrets) -> None:
    """Where the metric has a cap, the capped lift is measured under it."""
    metrics = shop().model_dump(mode="json")["metrics"]
    metrics[1]["cap"] = 5.0
    rules = shop(metrics=metrics)
    fill(engine, secrets, rules)
    found = {each.capped: each.lift for each in report_of(engine, rules).lifts if each.metric == "revenue"}
    whole, capped = found[None], found[5.0]

    assert whole is not None
    assert capped is not None
    assert capped.treatment_mean == pytest.approx(whole.treatment_mean / 4)


def test_customers_who_are_not_mature_wait(engine: Engine, secrets: Secrets) -> None:
    """Half-way through, only customers whose window has passed count; each metric says in one sentence if too few."""
    fill(engine, secrets, shop())
    early = report_of(engine, shop(), BEGAN + 2 * DAYS * 43_200_000_000)
    earliest = report_of(engine, shop(), BEGAN)

    assert early.customers + early.waiting == 2_000
    assert 0 < early.waiting < 200
    assert earliest.customers == 0
    assert all(each.lift is None and "a lift needs" in each.sentence for each in earliest.lifts)
    assert [each.metric for each in earliest.lifts] == [metric.name for metric in shop().metrics]


def test_lift_prints_the_table_and_every_sentence(
    workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command shows a row per lift and says guardrails and fading in words; with --json it is one document."""
    fill(workspace.engine, secrets, shop())
    code, said = run(capsys, "lift", "shop")
    _, document = run(capsys, "lift", "shop", "--json")
    found: dict[str, Any] = json.loads(document)

    assert code == OK
    for words in (
        "detectable",
        "revenue, at most 20",
        "click: treatment is clearly better",
        "Guardrail unsubscribe: no harm",
    ):
        assert words in said
    assert found["lifts"][0]["lift"]["standing"] == "better"
    assert found["guardrails"][0]["state"] == "fine"
    assert found["fell_back"] is None


def test_a_breached_guardrail_ends_with_its_exit_code(
    workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str]
) -> None:
    """Harm is said and the exit code is 3; nothing is switched unless asked to."""
    fill(workspace.engine, secrets, shop(), leave=0.2)
    code, said = run(capsys, "lift", "shop", "--act")

    assert code == GATE_REFUSED
    assert "unsubscribe: clearly more than the holdout" in said
    with reading(workspace.engine) as connection:
        assert killed_loops(connection) == set()


def test_a_guardrail_can_put_the_loop_on_its_baseline(
    workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the action `baseline` and --act the kill switch is thrown, with the reason, once."""
    fill(workspace.engine, secrets, shop(guardrails=[{"metric": "unsubscribe", "action": "baseline"}]), leave=0.2)
    run(capsys, "lift", "shop")
    with reading(workspace.engine) as connection:
        assert killed_loops(connection) == set()
    _, said = run(capsys, "lift", "shop", "--act")
    _, again = run(capsys, "lift", "shop", "--act")

    assert "answers its baseline from now on" in said
    assert "from now on" not in again
    with reading(workspace.engine) as connection:
        assert killed_loops(connection) == {"shop"}
        assert "unsubscribe" in connection.execute(select(tables.loop_switches.c.reason)).scalar_one()


def test_the_drill_claims_nothing(workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str]) -> None:
    """Dealt anew, the shop's customers show no lift, though the real deal has one; another metric can be named."""
    fill(workspace.engine, secrets, shop())
    code, said = run(capsys, "drill", "shop", "--runs", "60", "--metric", "revenue")
    _, document = run(capsys, "drill", "shop", "--runs", "60", "--json")

    assert code == OK
    assert said.startswith("revenue: The lift keeps its promise on these 2,000 customers")
    assert json.loads(document)["metric"] == "click"
    assert json.loads(document)["passed"]


def test_a_failed_drill_has_its_exit_code(
    workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drill that claims too much ends with 3."""
    fill(workspace.engine, secrets, shop(), customers=50)
    bad = drill.Drill(100, 50, claimed=0.2, low=0.1, high=0.3, peeking=0.4, alpha=0.05)
    monkeypatch.setattr(drill, "drill", lambda *_: bad)

    assert run(capsys, "drill", "shop")[0] == GATE_REFUSED


def test_a_model_that_would_harm_is_vetoed(settings: Settings, engine: Engine, secrets: Secrets) -> None:
    """The challenger earns more clicks and would pass, but drives customers away: its promotion is vetoed, with both
    sentences, and the report keeps the guardrails."""
    outcome = harmful(settings, engine, secrets, guarded=True)

    assert outcome.state == "failed"
    assert outcome.champion is None
    assert outcome.sentence.startswith("Vetoed by a guardrail. unsubscribe: the new model causes at least")
    with reading(engine) as connection:
        report = connection.execute(select(tables.model_versions.c.gate)).scalar_one()
    assert [guard["state"] for guard in report["guardrails"]] == ["waiting", "breached"]


def test_without_the_guardrail_the_same_model_is_promoted(settings: Settings, engine: Engine, secrets: Secrets) -> None:
    """Nothing but the guardrail stopped it."""
    assert harmful(settings, engine, secrets, guarded=False).state == "promoted"


def harmful(settings: Settings, engine: Engine, secrets: Secrets, *, guarded: bool) -> Any:
    """A retraining where six in ten of those who got the copy they click on unsubscribe."""
    metrics = [
        {"name": "click", "event": "click", "aggregate": "any", "window": "1d"},
        {"name": "unsubscribe", "event": "unsubscribe", "aggregate": "any", "window": "1d"},
    ]
    rules = definition(metrics=metrics, guardrails=[{"metric": "unsubscribe"}] if guarded else [])
    populate(engine, secrets, rules=rules)
    rng = np.random.default_rng(1)
    liked = {("new", "c-bold"), ("old", "c-warm")}
    c = tables.decisions.c
    with reading(engine) as connection:
        rows = connection.execute(select(c.decision_id, c.context, c.chosen, c.decided_at)).all()
    gone = [
        Event(
            source="http",
            event_id=f"off-{row.decision_id}",
            type="unsubscribe",
            decision_id=row.decision_id,
            link="decision_id",
            occurred_at=row.decided_at + 1,
            received_at=row.decided_at + 1,
        )
        for row in rows
        if (row.context["segment"], row.chosen[0]["content_id"]) in liked and rng.random() < 0.6
    ]
    apply(engine, Batch(events=tuple(gone)), secrets, WORLD_NOW)
    return retrain(Bench(settings, engine, lambda: WORLD_NOW, MemoryTracking()), "subjects")


def test_a_breach_at_retraining_throws_the_switch(settings: Settings, engine: Engine, secrets: Secrets) -> None:
    """When a retraining finds the running policy in breach, a guardrail with that action puts the loop on its baseline;
    a person who takes it back is asked again by the next one."""
    rules = shop(
        guardrails=[{"metric": "unsubscribe", "action": "baseline"}],
        model={"rounds": 5, "text": False},
        gate={"window": "5d"},
    )
    fill(engine, secrets, rules, leave=0.2)
    bench = Bench(settings, engine, lambda: NOW, MemoryTracking())
    retrain(bench, "shop")
    with writing(engine) as connection:
        assert killed_loops(connection) == {"shop"}
        set_switch(connection, "shop", False, "", "test", NOW)
    retrain(bench, "shop")

    with reading(engine) as connection:
        assert killed_loops(connection) == {"shop"}
