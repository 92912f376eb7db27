"""The servers of ``bench_rank``, each a process of its own on a free port: the product as it is run in production, MLflow's
model server, and the floors."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from infra.settings import Settings

PATIENCE_SECONDS = 600
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    process: int
    database: str = ""
    """Whose CPU is its own too; empty: none."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def cpu_seconds(self) -> float:
        """Of the process and its children, so far."""
        return sum(map(_seconds, _family(self.process)))

    def database_seconds(self) -> float:
        """Of the database's processes, so far; 0 without one."""
        if not self.database:
            return 0.0
        with psycopg.connect(self.database) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        first = int((Path(str(row[0])) / "postmaster.pid").read_text().split("\n")[0])
        return sum(map(_seconds, _family(first)))

    def memory_mb(self) -> float:
        """Proportional set size of the process and its children."""
        return sum(map(_pss, _family(self.process))) / 1024


@dataclass(frozen=True)
class Target:
    """A server, and files of requests to it by the number of candidates."""

    server: Server
    requests: Mapping[int, str]


@contextmanager
def product(settings: Settings) -> Iterator[Server]:
    """The API over an installation; keys are required."""
    port = _free_port()
    named = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "mode": "server",
        "secrets_file": str(settings.secrets_path),
        "api_keys": "required",
        "port": str(port),
        "log_level": "warning",
    }
    environment = {f"REWARDLOOP_{name.upper()}": value for name, value in named.items()}
    command = [sys.executable, "-m", "pipelines.app"]
    with _running(command, settings.home / f"api-{port}.log", environment) as process:
        server = Server("Rewardloop", port, process.pid, settings.database_url)
        _wait(process, port, "/readyz")
        yield server


@contextmanager
def floor(folder: Path, kind: str) -> Iterator[Server]:
    """A bare app of ``floors.py``."""
    port = _free_port()
    command = [sys.executable, "-m", "tests.benchmarks.floors", str(folder), kind, str(port)]
    with _running(command, folder / f"{kind}.log") as process:
        _wait(process, port, "/")
        yield Server(kind, port, process.pid)


@contextmanager
def mlflow_models_serve(folder: Path) -> Iterator[Server]:
    """``mlflow models serve`` of the model in ``folder``, with its own environment's programs on the path."""
    port = _free_port()
    save = (
        "import sys, lightgbm, mlflow.lightgbm as flavour;"
        "flavour.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2])"
    )
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    bin_ = str(Path(sys.executable).parent)
    environment = quiet | {"PATH": f"{bin_}:{os.environ['PATH']}"}
    with _running(
        [sys.executable, "-c", save, str(folder / "model.txt"), str(folder / "mlflow")],
        folder / "save.log",
        environment,
    ) as process:
        process.wait(PATIENCE_SECONDS)
    command = [f"{bin_}/mlflow", "models", "serve", "-m", str(folder / "mlflow"), "-p", str(port)]
    command += ["--env-manager", "local", "--workers", "1"]
    with _running(command, folder / "mlflow.log", environment) as process:
        _wait(process, port, "/ping")
        yield Server("mlflow models serve", port, process.pid)


@contextmanager
def _running(
    command: list[str], log: Path, more: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **one_thread, **(more or {})}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    """Until it answers anything below 500."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                return
        except urllib.error.HTTPError as answered:
            if answered.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The server on port {port} did not come up: {process.args!r}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _family(process: int) -> list[int]:
    """The process and all that it started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, left = [], [process]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def _seconds(process: int) -> float:
    """CPU seconds, with those of children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _pss(process: int) -> float:
    """Kilobytes."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
