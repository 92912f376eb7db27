"""The flows under a real Prefect server: deployed, served, scheduled, started by an event, run twice, killed, and with the
server restarted."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from infra.database import open_database, reading
from infra.leases import lease
from infra.settings import Settings
from pipelines.flows.deployments import DEPLOYMENTS, POOL, trigger_of
from pipelines.flows.matured import Herald
from reward_models import registry
from tests.pipelines.processes import running, wait_for_words
from tests.pipelines.worlds import NOW, standing_still
from tests.stack.flow_crew import LOOP, STEPS
from tests.stack.prefect_server import PrefectServer

ROOT = Path(__file__).parents[2]
AWAY = "http://127.0.0.1:9"
"""Where no MLflow answers: the flows do without, and tests are spared its first start."""

MORE = {"REWARDLOOP_CLOCK": "simulated", "REWARDLOOP_MLFLOW_TRACKING_URI": AWAY}

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


def wait_for_champion(home: Path) -> None:
    """Returns once the loop has one, or after a few minutes without."""
    deadline = time.monotonic() + 240
    while champion_of(home) is None and time.monotonic() < deadline:
        time.sleep(0.5)


def herald(settings: Settings) -> None:
    """What the API does every few minutes."""
    engine = open_database(settings.database)
    Herald(engine, settings, lambda: NOW).look()
    engine.dispose()


def told_of(deployment: dict[str, Any]) -> tuple[str, str, str, str]:
    """What the server has of a deployment: schedule, pool, entry point, description."""
    crons = [schedule["schedule"]["cron"] for schedule in deployment["schedules"]]
    return "".join(crons), deployment["work_pool_name"], deployment["entrypoint"], deployment["description"]


@contextmanager
def crew(server: PrefectServer, home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """``tests/stack/flow_crew.py`` under the server."""
    environ = server.environment(home, **MORE)
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


def test_served_flows_have_schedules_and_run_at_their_event(
    prefect_server: PrefectServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flows serve` makes deployments: the scheduled one has runs ahead of it; enough matured outcomes start the other."""
    more = MORE | {"PREFECT_API_URL": prefect_server.api, "REWARDLOOP_RETRAIN_OUTCOMES": "500"}
    with running(home, "flows", "serve", "retrain-when-due", "watch", PREFECT_RUNNER_POLL_FREQUENCY="1", **more) as (
        process,
        log,
    ):
        wait_for_words(process, log, "watch/watch")
        monkeypatch.setenv("PREFECT_API_URL", prefect_server.api)
        herald(Settings(home=home, retrain_outcomes=500))
        wait_for_champion(home)
        ahead = [run for run in runs_of(prefect_server, "watch") if run["state"]["type"] == "SCHEDULED"]

    assert champion_of(home) == "subjects-1", log.read_text()
    [started] = [run for run in runs_of(prefect_server, "retrain-when-due") if "loop_id" in run["parameters"]]
    assert started["parameters"] == {"loop_id": LOOP}
    assert ahead
    times = [datetime.fromisoformat(run["expected_start_time"].replace("Z", "+00:00")) for run in ahead]
    assert {(at.hour, at.minute) for at in times} == {(4, 30)}


def test_a_worker_deploys_every_flow_and_runs_what_is_asked(prefect_server: PrefectServer, home: Path) -> None:
    """`flows work` makes the pool and all deployments, says so, and runs a flow when the API asks for it."""
    more = MORE | {"PREFECT_API_URL": prefect_server.api, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with running(home, "flows", "work", **more) as (process, log):
        said = wait_for_words(process, log, f"{DEPLOYMENTS[-1].name} is deployed.")
        found = {one["name"]: one for one in prefect_server.ask("/deployments/filter")}
        prefect_server.ask(f"/deployments/{found['retrain']['id']}/create_flow_run", parameters={"loop_id": LOOP})
        wait_for_champion(home)

    assert champion_of(home) == "subjects-1", log.read_text()
    for one in DEPLOYMENTS:
        assert f"{one.name}/{one.name} is deployed." in said
        assert told_of(found[one.name]) == (one.cron, POOL, one.entrypoint, one.description)


def test_prefects_own_command_deploys_the_same(prefect_server: PrefectServer, home: Path) -> None:
    """`prefect deploy --all` reads prefect.yaml: the same deployments by module path, and the same automation."""
    environ = prefect_server.environment(home)
    with suppress(httpx2.HTTPStatusError):  # 409: it is there
        prefect_server.ask("/work_pools/", name="rewardloop", type="process")
    command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all")
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)
    # Prefect 3.8's `deploy` exits with 1 after it has done its work: its own question about workers is refused.

    found = {one["name"]: told_of(one) for one in prefect_server.ask("/deployments/filter")}
    assert found == {one.name: (one.cron, POOL, one.entrypoint, one.description) for one in DEPLOYMENTS}, done.stderr
    automations = [one["name"] for one in prefect_server.ask("/automations/filter")]
    assert automations == [trigger_of(one).name for one in DEPLOYMENTS if one.event]
