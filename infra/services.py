"""The environment that Prefect and MLflow run in: their files under the data folder, their telemetry off.

Both read environment variables when they are first imported, so the variables are set before that: by whoever
starts a server process (``environment``), and by a process that runs a flow itself (``prepare_environment``).
What the operator has set already is left alone.
"""

import os

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
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a tracking server that is away must not hold up a promotion
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "DO_NOT_TRACK": "true",
    }


def prepare_environment(settings: Settings) -> None:
    """Set the variables in this process, unless they are set. Call it before Prefect or MLflow is imported."""
    settings.home.mkdir(parents=True, exist_ok=True)
    for name, value in environment(settings).items():
        os.environ.setdefault(name, value)
