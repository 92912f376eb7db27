"""The retrain command without a Prefect server; under one it is in tests/stack/test_prefect.py."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.database import open_database, reading
from infra.services import environment
from infra.settings import Settings
from reward_models import registry
from tests.pipelines.processes import COMMAND
from tests.pipelines.worlds import standing_still

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.stack


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder with a small world that has a taste to be learned, and a clock that stands still."""
    return standing_still(tmp_path / "home")


def variables(home: Path) -> dict[str, str]:
    """The environment of an installation's processes, without this process's own settings."""
    ours = ("PREFECT_", "MLFLOW_", "REWARDLOOP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    more = {
        "REWARDLOOP_CLOCK": "simulated",
        "REWARDLOOP_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }  # where nobody answers
    return kept | environment(Settings(home=home)) | more


def champion_of(home: Path) -> str | None:
    engine = open_database(Settings(home=home).database)
    with reading(engine) as connection:
        found = registry.champion(connection, "subjects")
    engine.dispose()
    return found.version if found else None


def execute(environ: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)


def test_the_command_runs_the_flow_without_a_server(home: Path) -> None:
    """`rewardloop retrain --json` prints one document, promotes, and every step was a Prefect task."""
    done = execute(variables(home), COMMAND, "retrain", "subjects", "--json")
    assert done.returncode == 0, done.stderr

    outcome: dict[str, Any] = json.loads(done.stdout)
    assert (outcome["state"], outcome["champion"], champion_of(home)) == ("promoted", "subjects-1", "subjects-1")
    tasks = [line.split("'")[1].rsplit("-", 1)[0] for line in done.stderr.splitlines() if "Task run '" in line]
    assert tasks == ["dataset", "fit", "calibrate", "evaluate", "register", "gate", "promote"]


def test_a_loop_that_does_not_exist_is_a_sentence(home: Path) -> None:
    """An unknown loop never becomes a failed flow."""
    done = execute(variables(home), COMMAND, "retrain", "nobody")

    assert done.returncode == 1
    assert "No loop 'nobody'" in done.stderr
    assert "Traceback" not in done.stderr
