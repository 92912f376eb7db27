"""The demo, end to end with real processes: it works, twice, and can be interrupted."""

import re
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra.clock import DAY
from ingestion.loops import parse_definition
from pipelines.demo import FULL, SHORT, Plan, definition_of
from pipelines.generation.prompts import HOUSE
from tests.pipelines.processes import processes_of, running, wait_for_words


@pytest.mark.parametrize("plan", [FULL, SHORT])
def test_a_plan_retrains_with_mature_decisions_on_both_sides_of_the_cutoff(plan: Plan) -> None:
    """At the first retrain a wave is old enough to train on, and one after the cutoff is mature enough to judge."""
    definition = parse_definition(definition_of(plan) | {"loop": "demo"})
    now = plan.retrain_after[0] * plan.apart
    cutoff = now - plan.gate_days * DAY - definition.maturity
    starts = [wave * plan.apart for wave in range(plan.retrain_after[0])]

    assert any(start + DAY <= cutoff for start in starts)
    assert any(cutoff <= start and start + DAY + definition.maturity <= now for start in starts)


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_demo_runs_twice_over_one_folder_and_leaves_no_process(tmp_path: Path) -> None:
    """Each run has a loop of its own, retrains more than once, and ends with measured and true lift."""
    home = tmp_path / "home"
    for number in (1, 2):
        with running(home, "demo", "--short") as (process, log):
            code = process.wait(timeout=280)
            said = log.read_text()

        assert code == 0, said
        assert f"demo-{number}: the whole campaign" in said
        assert len(re.findall(r"retraining", said)) == 2
        for line in ("holdout (baseline)", "learned policy", "measured lift", "95 % interval", "true lift"):
            assert line in said
        assert processes_of(home) == []
    assert list((home / "mlflow").glob("mlflow.db"))
    assert list((home / "prefect").glob("prefect.db"))


@pytest.mark.stack
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C while customers are being written to ends the demo, its API and its Prefect server."""
    home = tmp_path / "home"
    with running(home, "demo") as (process, log):
        wait_for_words(process, log, "Registered loop")
        time.sleep(2)
        children = processes_of(home)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)

    assert len(children) >= 3
    assert (code, processes_of(home)) == (130, [])


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_outer_loop_is_shown_round_by_round(tmp_path: Path) -> None:
    """Each round tells what was kept and what it is truly worth; examples are there from the second on; MLflow has
    a run per round, one of all rounds, and each prompt that was used, once; no process is left."""
    home = tmp_path / "home"
    with running(home, "demo", "--generate", "--short") as (process, log):
        code = process.wait(timeout=280)
        said = log.read_text()

    assert code == 0, said
    for line in ("Round 1:", "Round 2:", "Examples: 0.", "without feedback", "truly worth", "MLflow"):
        assert line in said
    assert processes_of(home) == []
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    mlflow = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = [one for one in mlflow.search_experiments() if one.name.startswith("demo-copy-")]
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert {"outer loop", *(f"copy for {experiment.name}-r{number}" for number in (1, 2))} <= runs.keys()
    assert runs["outer loop"].data.metrics.keys() >= {"round 1 true", "round 2 true", "round 2 without feedback"}
    kept = {prompt.name: list(mlflow.search_prompt_versions(prompt.name)) for prompt in mlflow.search_prompts()}
    house = {f"prompt.{one.prompt_id}": one.template for one in HOUSE}
    assert kept.keys() <= house.keys()
    assert (
        {name: [(one.tags["rewardloop.version"], one.template) for one in found] for name, found in kept.items()}
        == {name: [("1", house[name])] for name in kept}
        != {}
    )
