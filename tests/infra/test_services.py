"""The environment of Prefect and MLflow."""

from pathlib import Path

import pytest

from infra.services import environment, prepare_environment
from infra.settings import Settings


def test_files_live_under_the_data_folder_and_telemetry_is_off(tmp_path: Path) -> None:
    """Nothing is kept outside the data folder, and nothing is sent anywhere."""
    variables = environment(Settings(home=tmp_path))

    assert variables["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert variables["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert {name: variables[name] for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")} == {
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_what_the_operator_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set already keeps its value."""
    for name in environment(Settings(home=tmp_path)):
        monkeypatch.setenv(name, "mine")
    prepare_environment(Settings(home=tmp_path))

    import os

    assert {os.environ[name] for name in environment(Settings(home=tmp_path))} == {"mine"}
