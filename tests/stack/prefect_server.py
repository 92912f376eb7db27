"""A real Prefect server for the whole test run: its database in a folder of its own, loopback, no telemetry."""

import os
import threading
from pathlib import Path
from typing import Any

import httpx2

from infra.services import environment
from infra.settings import Settings
from pipelines.supervisor import Supervisor, free_port, prefect_service


class PrefectServer:
    """Started once; :meth:`stop` and :meth:`start` keep port and database."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, prefect_port=free_port())
        self._service = prefect_service(self.settings)
        self._supervisor = Supervisor([self._service])

    @property
    def api(self) -> str:
        """What PREFECT_API_URL is set to."""
        return f"{self._service.origin}/api"

    @property
    def url(self) -> str:
        """The page."""
        return self._service.origin

    def start(self) -> None:
        """Returns once it answers."""
        self._supervisor = Supervisor([self._service]).__enter__()
        self._supervisor.wait_until_ready([self._service], threading.Event(), lambda *_: None)

    def stop(self) -> None:
        """Returns once it is gone."""
        self._supervisor.stop()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables of a process that runs flows of the data folder ``home`` under this server."""
        ours = ("PREFECT_", "MLFLOW_", "REWARDLOOP_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | environment(Settings(home=home)) | {"PREFECT_API_URL": self.api} | more

    def ask(self, path: str, **body: Any) -> Any:
        """POST to the API; what it answers."""
        answer = httpx2.post(f"{self.api}{path}", json=body, timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()
