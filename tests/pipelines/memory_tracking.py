"""Tracking in memory: what ``infra.tracking.Tracking`` offers, without MLflow's start-up time."""

from collections.abc import Mapping

from infra.errors import Unavailable
from infra.tracking import LoggedRun, Record


class MemoryTracking:
    """Records by version, and aliases. ``away``: every call fails, as if MLflow were down."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.aliases: dict[str, str] = {}
        self.logged: list[str] = []
        self.away = False

    def runs(self, loop_id: str) -> dict[str, LoggedRun]:
        self._answer()
        return {
            version: LoggedRun(f"run-{version}", version, record.digest) for version, record in self.records.items()
        }

    def log(self, loop_id: str, record: Record, run_id: str | None = None) -> str:
        self._answer()
        self.records[record.version] = record
        self.logged.append(record.version)
        return run_id or f"run-{record.version}"

    def point(self, loop_id: str, aliases: Mapping[str, str | None]) -> None:
        self._answer()
        self.aliases = {alias: version for alias, version in aliases.items() if version is not None}

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("MLflow does not answer: test")
