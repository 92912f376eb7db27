"""A command of `rewardloop`, run in this process."""

import pytest

from pipelines import cli


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    capsys.readouterr()
    code = cli.run(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err
