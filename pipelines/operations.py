"""The calls of whoever runs an installation: health, readiness, metrics, the lift, and starting a retrain."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field

from infra.database import reading
from infra.errors import Conflict, TooMany
from infra.pulse import Pulse
from infra.services import environment
from infra.settings import Settings
from ingestion.fields import Body
from ingestion.http.access import key_in
from ingestion.http.problems import responses
from ingestion.keys import Keyring
from ingestion.loops import LoopId, load_loop
from pipelines.audiences.folders import PATIENCE_SECONDS, Folder
from reward_models.lift_report import LiftReport, measure
from reward_models.serving.routes import Serving

router = APIRouter()

STOP_SECONDS = 10.0
SENDS = 2
"""Most sends that are decided at once."""


class Jobs:
    """Retrains and sends started over HTTP: one retrain at a time per loop, ``SENDS`` sends; they end with the server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._deciding: dict[Path, subprocess.Popen[bytes]] = {}

    def retrain(self, loop_id: str) -> str:
        """Start ``rewardloop retrain <loop>``; returns the path of its log. Raises :class:`Conflict` if one runs."""
        with self._lock:
            running = self._running.get(loop_id)
            if running is not None and running.poll() is None:
                raise Conflict(f"A retrain of loop {loop_id!r} is running; wait for its end")
            path = self._log(f"retrain-{loop_id}")
            command = ("-c", "from pipelines.cli import main; main()", "retrain", loop_id)
            self._running[loop_id] = self._begin(path, command)
        return str(path)

    def decide(self, folder: Folder) -> None:
        """Decide the send of a folder; the process is given its lock, so nobody comes between. One that is being decided is
        left alone. Raises :class:`TooMany` while ``SENDS`` are decided, :class:`Conflict` while somebody else uses the
        folder."""
        if self._decides(folder):
            return
        try:
            with folder.held(PATIENCE_SECONDS) as lock, self._lock:
                others = {path: one for path, one in self._deciding.items() if one.poll() is None}
                others.pop(folder.path, None)  # nobody holds the folder: what is left of its last run only ends
                if len(others) >= SENDS:
                    raise TooMany(f"{SENDS} sends are being decided; start this one when one of them is done", 10)
                folder.begin()
                command = ("-m", "pipelines.audiences.jobs", str(folder.path), str(lock))
                self._deciding = others | {folder.path: self._begin(self._log("sends"), command, (lock,))}
        except Conflict:
            if folder.state != "running":
                raise

    def _decides(self, folder: Folder) -> bool:
        with self._lock:
            process = self._deciding.get(folder.path)
        return process is not None and process.poll() is None and folder.state == "running"

    def _log(self, name: str) -> Path:
        folder = self.settings.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def _begin(self, log: Path, arguments: Sequence[str], kept: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        """``kept``: descriptors that the process inherits."""
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(self.settings),
                pass_fds=kept,
            )

    def stop(self) -> None:
        """End what still runs."""
        with self._lock:
            every = (*self._running.values(), *self._deciding.values())
            running = [process for process in every if process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


async def _serving(request: Request) -> Serving:
    found: Serving = request.app.state.serving
    return found


async def _jobs(request: Request) -> Jobs:
    found: Jobs = request.app.state.jobs
    return found


class Health(Body):
    """The process answers."""

    status: Literal["ok"] = Field("ok", description="Always `ok`.")


class LoopHealth(Body):
    """A loop as this process serves it."""

    champion: str | None = Field(description="The version in force; null: none was promoted yet.")
    serving: str | None = Field(description="The version this process serves.")
    state: Literal["choosing", "killed", "fallback", "last_good"] = Field(
        description="`fallback`: no usable model, baseline; `last_good`: the champion was refused, the one before serves."
    )
    reason: str | None = Field(description="Why it is not simply choosing.")
    scoring: Literal["masks", "predict"] | None = Field(
        None,
        description="How the model scores: by masked trees, or, where those cannot represent it, by LightGBM's own predict, "
        "which takes several times as long; null without a model.",
    )


class Readiness(Body):
    """What this process can do."""

    status: Literal["ready", "degraded"] = Field(
        description="`degraded`: it answers, but something below is not as it should be."
    )
    database: Literal["ok", "away"] = Field(description="`away`: answers are the baseline, unstored.")
    reason: str | None = Field(description="Why it is degraded, in a sentence.")
    stats_version: int = Field(description="Batch whose statistics are in use.")
    loops: dict[str, LoopHealth] = Field(description="By loop; empty for a caller without the key that is required.")


class RetrainAnswer(Body):
    """A retrain that was started."""

    loop: str = Field(description="The loop.")
    log: str = Field(description="Where it writes, on the server.")


@router.get("/healthz", tags=["operations"], summary="Health")
async def healthz() -> Health:
    """The process is alive; nothing else is asked."""
    return Health(status="ok")


@router.get("/readyz", tags=["operations"], summary="Readiness")
async def readyz(request: Request, serving: Annotated[Serving, Depends(_serving)]) -> Readiness:
    """Database, degraded states, and the model version per loop. The database is asked once a second at most.

    Without the database it still answers 200 as `degraded`, because the baseline is served from memory. Where keys are
    required, a call without one is told whether all is well, and no names.
    """
    pulse: Pulse = request.app.state.pulse
    fault = await pulse.fault()
    loops = {name: _health(serving, name) for name in sorted(serving.snapshots.current.loops)}
    odd = [name for name, loop in loops.items() if loop.state not in ("choosing", "killed")]
    reason = fault or serving.snapshots.fault or (loops[odd[0]].reason if odd else None)
    told = _may_know(request)
    return Readiness(
        status="ready" if reason is None else "degraded",
        database="ok" if fault is None else "away",
        reason=reason if told or reason is None else _in_general(fault is not None),
        stats_version=serving.snapshots.current.stats_version,
        loops=loops if told else {},
    )


@router.get("/metrics", tags=["operations"], summary="Metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus metrics, in the text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.post(
    "/v1/loops/{loop_id}/retrain", tags=["loops"], summary="Retrain", status_code=202, responses=responses(404, 409)
)
def retrain(
    loop_id: LoopId, serving: Annotated[Serving, Depends(_serving)], jobs: Annotated[Jobs, Depends(_jobs)]
) -> RetrainAnswer:
    """Start a retrain in a process of its own: train, evaluate, gate, and promote if it passes."""
    with reading(serving.engine) as connection:
        load_loop(connection, loop_id)
    return RetrainAnswer(loop=loop_id, log=jobs.retrain(loop_id))


@router.get("/v1/loops/{loop_id}/lift", tags=["loops"], summary="Lift", responses=responses(404))
def lift(loop_id: LoopId, serving: Annotated[Serving, Depends(_serving)]) -> LiftReport:
    """What the loop earns against its holdout so far, per customer and metric, with guardrails, fading and clickbait.

    Ask as often as you like: the intervals hold over all looks together.
    """
    with reading(serving.engine) as connection:
        definition, version = load_loop(connection, loop_id)
        return measure(connection, definition, version, serving.clock())


def _may_know(request: Request) -> bool:
    """Whether the caller may read names and reasons: it has a key, or needs none."""
    keyring: Keyring | None = request.app.state.keyring
    return keyring is None or keyring.find(key_in(request.headers)) is not None


def _in_general(away: bool) -> str:
    what = "The database does not answer" if away else "A loop is not served as it should be"
    return f"{what}; ask with an API key for the details"


def _health(serving: Serving, loop_id: str) -> LoopHealth:
    loop = serving.snapshots.current.loops[loop_id]
    served = None if loop.served is None else loop.served.version
    state: Literal["choosing", "killed", "fallback", "last_good"] = "choosing"
    if loop.killed:
        state = "killed"
    elif loop.fallback is not None:
        state = "fallback"
    elif loop.fault is not None:
        state = "last_good"
    scoring: Literal["masks", "predict"] | None = None
    if loop.served is not None:
        scoring = "predict" if loop.served.model.trees is None else "masks"
    reason = loop.fault or loop.fallback
    return LoopHealth(champion=loop.champion, serving=served, state=state, reason=reason, scoring=scoring)


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with the settings in force, wherever they came from."""
    chosen = {
        "REWARDLOOP_MODE": settings.mode,
        "REWARDLOOP_CLOCK": settings.clock,
        "REWARDLOOP_DATABASE_URL": settings.database_url,
        "REWARDLOOP_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "REWARDLOOP_LOG_LEVEL": settings.log_level,
    }
    if settings.secrets_file is not None:
        chosen["REWARDLOOP_SECRETS_FILE"] = str(settings.secrets_file)
    return {**os.environ, **environment(settings), **chosen}
