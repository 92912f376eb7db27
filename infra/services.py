"""The environment that Prefect and MLflow run in: their files under the data folder, their telemetry off.

Both read environment variables when they are first imported, so the variables are set before that: by whoever
starts a server process (``environment``), and by a process that runs a flow itself (``prepare_environment``).
What the operator has set already is left alone.

``rewardloop up`` leaves a note where its Prefect server is; a flow of the same data folder then runs under that one
instead of starting a server of its own, which takes most of a minute on a small machine.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from infra.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Variables for a child process that is, or talks to, Prefect or MLflow."""
    home = settings.home.resolve()
    return {
        "REWARDLOOP_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_TRACKING_URI": settings.tracking,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else MLflow's server takes 2 GB instead of 0.5
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # what a command prints is its own
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a tracking server that is away must not hold up a promotion
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "DO_NOT_TRACK": "true",
    }


def prepare_environment(settings: Settings) -> None:
    """Set the variables in this process, unless they are set. Call it before Prefect or MLflow is imported."""
    settings.home.mkdir(parents=True, exist_ok=True)
    for name, value in environment(settings).items():
        os.environ.setdefault(name, value)
    if (server := prefect_api(settings)) is not None:
        os.environ["PREFECT_API_URL"] = server


def prefect_api(settings: Settings) -> str | None:
    """The API of the Prefect server: the one that PREFECT_API_URL names, else that of ``rewardloop up``; None without one."""
    return os.environ.get("PREFECT_API_URL") or running_prefect(settings)


@contextmanager
def announced_prefect(settings: Settings, api: str) -> Iterator[None]:
    """While it is entered, flows of this data folder run under the Prefect server whose API is at ``api``."""
    note = _note(settings)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(api)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def running_prefect(settings: Settings) -> str | None:
    """The API of the Prefect server over this data folder; None where none answers."""
    with suppress(OSError, httpx2.HTTPError):
        api = _note(settings).read_text()
        if httpx2.get(f"{api}/health", timeout=2.0).status_code == httpx2.codes.OK:
            return api
    return None


def _note(settings: Settings) -> Path:
    return settings.home / "prefect" / "running"
