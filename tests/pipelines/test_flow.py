"""The retrain flow under real Prefect: on its own, and from its deployment with a server and a worker."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from infra.database import open_database, reading
from infra.services import environment
from infra.settings import Settings
from pipelines.supervisor import Supervisor, prefect_service
from reward_models import registry
from tests.pipelines.processes import COMMAND
from tests.pipelines.worlds import standing_still

ROOT = Path(__file__).parents[2]
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")

pytestmark = pytest.mark.stack


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder with a small world that has a taste to be learned, and a clock that stands still."""
    return standing_still(tmp_path / "home")


def variables(home: Path, **more: str) -> dict[str, str]:
    """The environment of an installation's processes, without this process's own settings."""
    ours = ("PREFECT_", "MLFLOW_", "REWARDLOOP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | environment(Settings(home=home)) | {"REWARDLOOP_CLOCK": "simulated"} | more


def champion_of(home: Path) -> str | None:
    engine = open_database(Settings(home=home).database)
    with reading(engine) as connection:
        found = registry.champion(connection, "subjects")
    engine.dispose()
    return found.version if found else None


def execute(environ: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)


def run(environ: dict[str, str], *command: str) -> str:
    """All that a command says, with the spaces of its boxes and line breaks taken out."""
    done = execute(environ, *command)
    return " ".join((done.stdout + done.stderr).split())


def test_the_command_runs_the_flow_without_a_server(home: Path) -> None:
    """`rewardloop retrain --json` prints one document, promotes, and every step was a Prefect task."""
    done = execute(variables(home), COMMAND, "retrain", "subjects", "--json")
    assert done.returncode == 0, done.stderr

    outcome: dict[str, Any] = json.loads(done.stdout)
    assert (outcome["state"], outcome["champion"], champion_of(home)) == ("promoted", "subjects-1", "subjects-1")
    tasks = [line.split("'")[1].rsplit("-", 1)[0] for line in done.stderr.splitlines() if "Task run '" in line]
    assert tasks == ["dataset", "fit", "calibrate", "evaluate", "register", "gate", "promote"]


def test_the_deployment_runs_under_a_server(home: Path) -> None:
    """`prefect.yaml` is deployed by module path; a worker runs it, and the loop has a champion."""
    settings = Settings(home=home, prefect_port=0)
    server = prefect_service(settings)
    environ = variables(home, PREFECT_API_URL=f"{server.origin}/api")
    with Supervisor([server]) as supervisor:
        supervisor.wait_until_ready([server], threading.Event(), lambda *_: None)
        assert "Created work pool" in run(environ, *PREFECT, "work-pool", "create", "rewardloop", "--type", "process")
        # Prefect 3.8's `deploy` exits with 1 after it has done its work: its own question about workers is refused.
        assert "successfully created" in run(environ, *PREFECT, "deploy", "--all")
        run(environ, *PREFECT, "deployment", "run", "retrain/retrain", "--param", "loop_id=subjects")
        said = run(environ, *PREFECT, "worker", "start", "--pool", "rewardloop", "--run-once")

    assert champion_of(home) == "subjects-1", said


def test_a_loop_that_does_not_exist_is_a_sentence(home: Path) -> None:
    """An unknown loop never becomes a failed flow."""
    done = execute(variables(home), COMMAND, "retrain", "nobody")

    assert done.returncode == 1
    assert "No loop 'nobody'" in done.stderr
    assert "Traceback" not in done.stderr
