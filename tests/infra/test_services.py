"""The environment of Prefect and MLflow."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.services import announced_prefect, environment, prepare_environment, running_prefect
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


@pytest.fixture
def prefect() -> Iterator[str]:
    """An API that says it is healthy."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_an_announced_server_is_found_until_it_is_withdrawn(tmp_path: Path, prefect: str) -> None:
    """Flows of a data folder find the Prefect server that serves it, and only while it is there."""
    settings = Settings(home=tmp_path)
    before = running_prefect(settings)
    with announced_prefect(settings, prefect):
        during = running_prefect(settings)

    assert (before, during, running_prefect(settings)) == (None, prefect, None)


def test_a_note_whose_server_is_gone_is_no_server(tmp_path: Path) -> None:
    """After a crash the note may be left behind: what does not answer is not used."""
    with announced_prefect(Settings(home=tmp_path), "http://127.0.0.1:9/api"):
        found = running_prefect(Settings(home=tmp_path))

    assert found is None
