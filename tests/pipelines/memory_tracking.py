"""Tracking in memory: all that ``infra.tracking.Tracking`` offers, without MLflow's start-up time."""

from collections.abc import Mapping

from infra.errors import Unavailable
from infra.tracking import Alias, LoggedRun, Record, Request, Tracking


class MemoryTracking(Tracking):
    """Records by version, aliases, and what is asked for in the registry. ``away``: every call fails, as if MLflow were down."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.aliases: dict[str, str] = {}
        self.logged: list[str] = []
        self.away = False
        self.reported: dict[str, Record] = {}
        self.asked: list[Request] = []
        self.answered: list[tuple[str, str]] = []
        self.password = True
        self.prompts: dict[tuple[str, int], str] = {}

    def runs(self, loop_id: str) -> dict[str, LoggedRun]:
        self._answer()
        return {
            version: LoggedRun(f"run-{version}", version, record.digest) for version, record in self.records.items()
        }

    def reports(self, loop_id: str) -> dict[str, LoggedRun]:
        self._answer()
        return {
            version: LoggedRun(f"run-{version}", version, record.digest) for version, record in self.reported.items()
        }

    def log(self, loop_id: str, record: Record, run_id: str | None = None) -> str:
        self._answer()
        self.records[record.version] = record
        self.logged.append(record.version)
        return run_id or f"run-{record.version}"

    def point(self, loop_id: str, aliases: Mapping[Alias, str | None]) -> None:
        self._answer()
        self.aliases = {alias: version for alias, version in aliases.items() if version is not None}

    def log_report(self, loop_id: str, record: Record) -> str:
        self._answer()
        self.reported[record.version] = record
        return f"run-{record.version}"

    def keep_prompt(self, prompt_id: str, version: int, template: str, tags: Mapping[str, str]) -> None:
        self._answer()
        self.prompts.setdefault((prompt_id, version), template)

    def requests(self, loop_id: str) -> list[Request]:
        self._answer()
        return list(self.asked)

    def answer(self, loop_id: str, request: Request, sentence: str) -> None:
        self._answer()
        self.asked.remove(request)
        self.answered.append((request.version, sentence))

    def guarded(self) -> bool:
        self._answer()
        return self.password

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("MLflow does not answer: test")
