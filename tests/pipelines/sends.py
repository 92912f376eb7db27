"""Sends decided in the test's own process, where a test is not about theirs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.audiences import jobs
from pipelines.audiences.deciding import Desk
from pipelines.audiences.folders import Folder


class Ended:
    """A process that is over."""

    def poll(self) -> int:
        """Its exit status."""
        return 0


def decided_at_once(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    """From here on the process that a start begins is a call that has returned."""

    def begin(_jobs: object, _log: Path, command: Sequence[str], _kept: Sequence[int] = ()) -> Ended:
        jobs.run(Folder(Path(command[2])), lambda: desk)
        return Ended()

    monkeypatch.setattr("pipelines.operations.Jobs._begin", begin)
