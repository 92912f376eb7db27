"""The flows under a real Prefect server: deployed, served, scheduled, run twice, killed, and with the server restarted."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infra.database import open_database, reading
from infra.leases import lease
from infra.settings import Settings
from pipelines.flows.deployments import DEPLOYMENTS
from reward_models import registry
from tests.pipelines.processes import COMMAND, running, wait_for_words
from tests.pipelines.worlds import standing_still
from tests.stack.flow_crew import LOOP, STEPS
from tests.stack.prefect_server import PrefectServer

ROOT = Path(__file__).parents[2]
AWAY = "http://127.0.0.1:9"
"""Where no MLflow answers: the flows do without, and tests are spared its first start."""

pytestmark = pytest.mark.stack


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder with a small world that has a taste to be learned, and a clock that stands still."""
    return standing_still(tmp_path / "home")


def champion_of(home: Path) -> str | None:
    engine = open_database(Settings(home=home).database)
    with reading(engine) as connection:
        found = registry.champion(connection, LOOP)
    engine.dispose()
    return found.version if found else None


@contextmanager
def crew(server: PrefectServer, home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """``tests/stack/flow_crew.py`` under the server."""
    environ = server.environment(home, REWARDLOOP_CLOCK="simulated", REWARDLOOP_MLFLOW_TRACKING_URI=AWAY)
    command = (sys.executable, "-m", "tests.stack.flow_crew", arguments[0], str(home), *arguments[1:])
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_of(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    said, complaints = process.communicate(timeout=280)
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert found, complaints
    return found


def runs_of(server: PrefectServer, flow: str) -> list[dict[str, Any]]:
    """The flow's runs, newest first."""
    found = server.ask("/flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="EXPECTED_START_TIME_DESC")
    return list(found)


def test_a_run_killed_between_any_two_tasks_leaves_nothing_half_done(prefect_server: PrefectServer, home: Path) -> None:
    """After each step a kill -9: what serves is whole or nothing, and the next run ends with a champion."""
    with crew(prefect_server, home, "killed") as process:
        told = lines_of(process)

    assert [one["step"] for one in told] == list(STEPS)
    for one in told:
        dead, alive = one["dead"], one["alive"]
        assert one["killed"], one
        assert dead["champion"] == ("subjects-1" if one["step"] == "promote" else None), one
        assert dead["whole"] is (True if dead["champion"] else None), one
        assert one["healed"], one
        assert (alive["champion"] is not None, alive["whole"]) == (True, True), one
        assert "registered" not in alive["versions"].values(), one


def test_a_server_restarted_in_the_middle_loses_no_promotion(prefect_server: PrefectServer, home: Path) -> None:
    """Whatever becomes of the run whose server went away, the loop is whole, and the next run has a champion."""
    with crew(prefect_server, home, "paused", "fit") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "paused" in process.stdout.readline()
        prefect_server.stop()
        process.stdin.write("\n")
        process.stdin.flush()
        prefect_server.start()
        [during] = lines_of(process)
    assert during["alive"]["whole"] is (True if during["alive"]["champion"] else None)

    with crew(prefect_server, home, "run") as process:
        [after] = lines_of(process)
    assert after["ended"] == 0
    assert after["alive"]["champion"] is not None
    assert "registered" not in after["alive"]["versions"].values()


def test_of_two_runs_of_one_loop_the_second_is_told_to_wait(prefect_server: PrefectServer, home: Path) -> None:
    """While the lease is held the flow fails with a sentence, in its state, its artifact and its log; nothing changes."""
    engine = open_database(Settings(home=home).database)
    with lease(engine, f"retrain:{LOOP}"), crew(prefect_server, home, "run") as process:
        [told] = lines_of(process)
    engine.dispose()

    assert told["ended"] != 0
    assert (told["alive"]["champion"], told["alive"]["versions"]) == (None, {})
    run = runs_of(prefect_server, "retrain")[0]
    assert run["state"]["type"] == "FAILED"
    assert "is running already" in run["state"]["message"]
    by_run = {"flow_run_id": {"any_": [run["id"]]}}
    pages = [page for page in prefect_server.ask("/artifacts/filter", artifacts=by_run) if page["key"]]
    assert {page["type"] for page in pages} == {"markdown", "table"}
    assert all("is running already" in page["data"] for page in pages)
    logs: list[str] = []
    deadline = time.monotonic() + 30.0
    while len(logs) < 2 and time.monotonic() < deadline:  # they are sent in the background
        logs = [line["message"] for line in prefect_server.ask("/logs/filter", logs=by_run)]
        time.sleep(0.5)
    assert any(line.startswith("retrain of subjects: ") and "What serves did not change" in line for line in logs), logs


def test_served_flows_have_schedules_and_run_when_asked(prefect_server: PrefectServer, home: Path) -> None:
    """`flows serve` makes deployments: the scheduled one has runs ahead of it, the other runs when the API asks."""
    more = {
        "REWARDLOOP_CLOCK": "simulated",
        "REWARDLOOP_MLFLOW_TRACKING_URI": AWAY,
        "PREFECT_API_URL": prefect_server.api,
    }
    with running(home, "flows", "serve", "retrain", "watch", PREFECT_RUNNER_POLL_FREQUENCY="1", **more) as (
        process,
        log,
    ):
        wait_for_words(process, log, "retrain/retrain")
        [deployed] = prefect_server.ask("/deployments/filter", deployments={"name": {"any_": ["retrain"]}})
        prefect_server.ask(f"/deployments/{deployed['id']}/create_flow_run", parameters={"loop_id": LOOP})
        deadline = time.monotonic() + 200
        while champion_of(home) is None and time.monotonic() < deadline:
            time.sleep(0.5)
        ahead = [run for run in runs_of(prefect_server, "watch") if run["state"]["type"] == "SCHEDULED"]

    assert champion_of(home) == "subjects-1", log.read_text()
    assert ahead
    times = [datetime.fromisoformat(run["expected_start_time"].replace("Z", "+00:00")) for run in ahead]
    assert {(at.hour, at.minute) for at in times} == {(4, 30)}


def test_the_command_deploys_every_flow_with_its_schedule(prefect_server: PrefectServer, home: Path) -> None:
    """`flows deploy` makes the pool and all deployments; what it says is what the server has."""
    environ = prefect_server.environment(home)
    done = subprocess.run(
        (COMMAND, "flows", "deploy"), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr

    found = {one["name"]: one for one in prefect_server.ask("/deployments/filter")}
    for one in DEPLOYMENTS:
        assert f"{one.name}/{one.name} is deployed." in done.stdout
        crons = [schedule["schedule"]["cron"] for schedule in found[one.name]["schedules"]]
        assert crons == ([one.cron] if one.cron else [])
        assert found[one.name]["work_pool_name"] == "rewardloop"
        assert found[one.name]["entrypoint"] == one.entrypoint
        assert found[one.name]["description"] == one.description
