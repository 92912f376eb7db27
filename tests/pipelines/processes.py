"""Commands as processes of their own, and what they leave behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("rewardloop"))


@contextmanager
def running(home: Path, *arguments: str, **environment: str) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """``rewardloop`` over the data folder ``home``, and the file of all it says; killed if the test fails."""
    log = home.parent / f"{home.name}.log"
    ours = ("PREFECT_", "MLFLOW_", "REWARDLOOP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            (COMMAND, *arguments),
            env={**kept, **environment, "REWARDLOOP_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for_words(process: "subprocess.Popen[bytes]", log: Path, words: str) -> str:
    """What was said once ``words`` are in it; fails, with all that was said, when the process ends before."""
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    return log.read_text()


def processes_of(home: Path) -> list[int]:
    """Processes that run with this data folder in their environment; Linux only."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"REWARDLOOP_HOME={home}".encode() in variables:
            found.append(int(path.parent.name))
    return found
