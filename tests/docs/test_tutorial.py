"""The tutorial works: its commands, in its order, in an empty folder, end with a promoted model."""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
PROMOTED = '"model_version":"subjects-1"'


def free_port() -> str:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.stack
@pytest.mark.timeout(420)
def test_the_tutorial_ends_with_a_promoted_model(tmp_path: Path) -> None:
    """Every command of the tutorial succeeds in its order, and the rank it waits for names the promoted model."""
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REWARDLOOP_", "PREFECT_", "MLFLOW_"))
        },
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "REWARDLOOP_PORT": free_port(),
        "REWARDLOOP_MLFLOW_PORT": free_port(),
        "REWARDLOOP_PREFECT_PORT": free_port(),
    }
    script = "set -euo pipefail\n" + "\n".join(COMMANDS)
    with (tmp_path / "output").open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = shell.wait(400)
        finally:
            stop_all(shell.pid)

    written = (tmp_path / "output").read_text()
    assert status == 0, written[-3000:] + logs(tmp_path)
    assert PROMOTED in written


def stop_all(group: int) -> None:
    """End the shell and what it started."""
    try:
        os.killpg(group, signal.SIGTERM)
    except ProcessLookupError:
        return


def logs(folder: Path) -> str:
    """What the servers wrote, for the message of a failure."""
    files = [*folder.rglob("up.log"), *folder.rglob("logs/*.log")]
    return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)
