"""The HTTP API: one app that mounts the collector's and the ranker's calls, and the threads behind them.

Nothing is opened before the app starts. Order of the start: 1 schema, 2 secrets, 3 first snapshot with its models,
4 the way to Kafka, decision log and click log, 5 a rehearsal, so that the first request is like any other, 6 the
threads: ``refresh`` (new models, copy, statistics), ``opinions`` (what people and judges think), ``tick`` (decisions become
exposures), ``bots`` (machines' clicks are labelled), ``spool`` (clicks that waited for their log), ``matured`` (Prefect is
told which loops have enough to learn from) and ``vitals`` (the gauges about the ledger). Only then it listens.
The stop goes the other way round: it takes no more connections, answers what it was asked, and both logs write what
they have taken.

    create_app(settings) -> FastAPI          serve(settings)          python -m pipelines.app
"""

import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from infra.clock import Clock
from infra.database import open_database
from infra.errors import RewardloopError, Unavailable
from infra.garbage import spare
from infra.logs import configure_logs, log
from infra.migrations import migrate
from infra.pulse import Pulse
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings, clock_of, load_settings
from infra.threads import Repeating, stop_all
from ingestion import store
from ingestion.bots import BotWatch
from ingestion.decode import NativeEvent
from ingestion.events import Batch, Rejected
from ingestion.http import collector, exchanging, forget_calls, problems, redirects, reviewing, suppressing, webhooks
from ingestion.http.access import Access, LoopLimits
from ingestion.http.admission import Admission
from ingestion.http.headers import SecurityHeaders
from ingestion.http.limits import BodyLimits
from ingestion.http.redirects import Click, ClickLog, Record, Redirects
from ingestion.http.wiring import Collector
from ingestion.keys import Keyring
from ingestion.loops import LoopDefinition
from ingestion.spool import Spool
from ingestion.stream.publisher import Publisher, accept
from ingestion.vitals import LOOK_SECONDS, Vitals
from pipelines import operations
from pipelines.audiences import routes as audiences
from pipelines.audiences.folders import Folders
from pipelines.connections import ears, open_files_for, protocol
from pipelines.flows import matured
from pipelines.operations import Jobs
from pipelines.pages import approvals, preferring
from pipelines.pages import routes as pages
from reward_models.serving import personalizer, routes
from reward_models.serving.decision_log import DecisionLog
from reward_models.serving.quick import QuickRank
from reward_models.serving.rehearsal import rehearse
from reward_models.serving.routes import Serving
from reward_models.serving.snapshot import Snapshots

KEYS_SECONDS = 1.0
"""How often the API looks for new and revoked keys."""
SWEEP_SECONDS = 3_600.0
"""How often sends that nobody needs any more are looked for."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANSWER_SECONDS = 2.0
"""How long the decision log waits for the database, on SQLite for its lock, before the baseline is answered."""
SWITCH_SECONDS = 0.0005
"""How soon a thread that works must let another go on: the event loop must not stand behind the snapshot's refresh for
the interpreter's own 5 ms each time it wakes up."""
OPINIONS_SECONDS = 30.0
"""How often what people and judges think is looked for."""
SNAPSHOT_SECONDS = 20.0
"""How long one query of a refresh may take."""

_ABOUT = """Joins clicks and purchases to the exact generation that caused them, learns a reward model of the business
metric, and picks the next generation online, with the probability of every choice on record.

Errors are problem documents (RFC 9457) whose `detail` says what to do."""


def create_app(settings: Settings) -> FastAPI:
    """The app of these settings. It opens the installation when it starts, and closes it when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = await run_in_threadpool(_start, settings)
        app.state.collector, app.state.serving, app.state.jobs = running.collector, running.serving, running.jobs
        app.state.redirects, app.state.keyring = running.redirects, running.keyring
        app.state.loop_of, app.state.pulse = running.loop_of, running.pulse
        app.state.folders = running.folders
        try:
            yield
        finally:
            await run_in_threadpool(running.stop)

    app = FastAPIOffline(  # its pages come from here, not from somebody else's server
        title="Rewardloop", version="0.1.0", description=_ABOUT, lifespan=lifespan, redoc_url=None
    )
    app.include_router(routes.router)
    app.include_router(collector.router)
    app.include_router(suppressing.router)
    app.include_router(reviewing.router)
    app.include_router(forget_calls.router)
    app.include_router(exchanging.router)
    app.include_router(webhooks.router)
    app.include_router(operations.router)
    app.include_router(audiences.router)
    app.include_router(redirects.router)
    app.include_router(personalizer.router)
    app.include_router(pages.router)
    app.include_router(approvals.router)
    app.include_router(preferring.router)
    app.add_middleware(QuickRank)  # the last added is the first to see a request
    app.add_middleware(LoopLimits)
    app.add_middleware(BodyLimits, limit=settings.body_limit_bytes)
    app.add_middleware(Access)
    app.add_middleware(SecurityHeaders)
    wait, body = settings.wait_milliseconds / 1_000, settings.body_seconds
    app.add_middleware(Admission, most=settings.in_flight, wait_seconds=wait, body_seconds=body)
    problems.install(app)
    _describe(app)
    return app


def serve(settings: Settings) -> None:
    """Serve until a signal comes."""
    configure_logs(settings.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))  # uvicorn sends it again once it has drained
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        http=protocol(open_files_for(settings.connections)),
        timeout_graceful_shutdown=settings.drain_seconds,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=False,
    )
    _Server(config).run(ears(config.bind_socket()))


class _Server(uvicorn.Server):
    """Once all is loaded, what is loaded stays."""

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        spare()


@dataclass(frozen=True)
class Running:
    """An app that was started: what its calls stand on, and its threads."""

    collector: Collector
    serving: Serving
    redirects: Redirects
    keyring: Keyring | None
    jobs: Jobs
    folders: Folders
    pulse: Pulse
    threads: tuple[Repeating, ...]

    def loop_of(self, campaign_id: str) -> str | None:
        """The loop of a campaign that the ranker knows."""
        campaign = self.serving.snapshots.current.campaigns.get(campaign_id)
        return None if campaign is None else campaign.loop_id

    def stop(self) -> None:
        """Stop the threads, write the clicks and decisions that wait, end the jobs, close the database."""
        stop_all(self.threads)
        self.redirects.clicks.stop()
        if self.collector.publisher is not None:
            self.collector.publisher.close()
        self.serving.decisions.stop()
        self.jobs.stop()
        self.pulse.stop()
        self.serving.snapshots.engine.dispose()
        self.serving.decisions.engine.dispose()
        self.serving.engine.dispose()


def _start(settings: Settings) -> Running:
    settings.home.mkdir(parents=True, exist_ok=True)
    engine, clock = open_database(settings.database), clock_of(settings)
    migrate(engine)
    secrets = load_secrets(settings)
    webhooks.check_webhooks(secrets)
    snapshots = Snapshots(open_database(settings.database, SNAPSHOT_SECONDS), settings.bundles)
    snapshots.refresh()
    decisions = DecisionLog(open_database(settings.database, ANSWER_SECONDS))
    decisions.start()
    rehearse(snapshots.current, decisions.engine, secrets, clock())
    publisher = _publisher(settings)
    wired = Collector(engine, secrets, settings, clock, lambda: _try_to_look(snapshots), publisher)
    clicks = ClickLog(_recorder(wired), Spool(settings.spool, settings.spool_limit_bytes))
    clicks.start()
    keyring = _keyring(settings, engine, secrets, clock)
    folders = Folders(settings.home, secrets, settings.send_days)
    threads = (
        *(() if keyring is None else (Repeating("keys", KEYS_SECONDS, keyring.refresh),)),
        Repeating("refresh", settings.refresh_seconds, snapshots.refresh),
        Repeating("opinions", OPINIONS_SECONDS, snapshots.listen),
        Repeating("tick", settings.tick_seconds, lambda: _tick(engine, secrets, clock)),
        Repeating("bots", settings.tick_seconds, BotWatch(engine, secrets, settings, clock).label_bots),
        Repeating("spool", settings.tick_seconds, clicks.drain),
        Repeating("vitals", LOOK_SECONDS, Vitals(snapshots.engine, clock).look),
        Repeating("matured", matured.LOOK_SECONDS, matured.Herald(snapshots.engine, settings, clock).look),
        Repeating("sends", SWEEP_SECONDS, folders.sweep),
    )
    return Running(
        wired,
        Serving(engine, secrets, settings, clock, snapshots, decisions),
        Redirects(secrets, settings, clock, clicks),
        keyring,
        Jobs(settings),
        folders,
        Pulse(decisions.engine),
        threads,
    )


def _keyring(settings: Settings, engine: Engine, secrets: Secrets, clock: Clock) -> Keyring | None:
    """The keys that callers need, if they need any."""
    if settings.api_keys == "off":
        if settings.host not in LOOPBACK:
            log.warning("calls_need_no_key", host=settings.host, advice="set REWARDLOOP_API_KEYS=required")
        return None
    keyring = Keyring(engine, secrets, clock)
    keyring.refresh()
    return keyring


def _tick(engine: Engine, secrets: Secrets, clock: Clock) -> None:
    """Count the decisions that wait: an empty batch stamps them."""
    store.apply(engine, Batch(), secrets, clock())


def _publisher(settings: Settings) -> Publisher | None:
    """The way to Kafka, if it is configured. An absent broker is waited for by whoever needs it."""
    if not settings.kafka:
        return None
    publisher = Publisher(settings)
    try:
        publisher.open()
    except Unavailable as away:
        log.warning("broker_away", reason=str(away))
    return publisher


def _recorder(wired: Collector) -> Record:
    """Puts clicks where events go: into the store, or onto their topic."""

    def record(clicks: Sequence[Click], damaged: Sequence[Rejected]) -> None:
        events = tuple(click.event for click in clicks)
        labels = tuple(label for click in clicks for label in click.labels)
        accept(wired, Batch(events=events, labels=labels, rejected=tuple(damaged)), wired.clock())

    return record


def _try_to_look(snapshots: Snapshots) -> None:
    """Show a change at once, without waiting for a model that is being loaded; if the database went away since, the
    refresh thread will."""
    try:
        snapshots.look()
    except RewardloopError as error:
        log.warning("refresh_failed", reason=str(error))


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI document: the media type of problems, and the bodies that are read part by part."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            document["components"]["schemas"] |= _schemas(NativeEvent, "") | _schemas(LoopDefinition, "Input")
            definition = document["components"]["schemas"]["LoopDefinitionInput"]
            definition["required"].remove("loop")  # the path names it
            body = document["paths"]["/v1/loops/{loop_id}"]["put"]["requestBody"]["content"]["application/json"]
            body["schema"] = {"$ref": "#/components/schemas/LoopDefinitionInput"}
            app.openapi_schema = problems.mend_openapi(document)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _schemas(model: type[BaseModel], suffix: str) -> dict[str, Any]:
    """The schema of a model and of its parts, by name. Each is titled by its name: generators of clients name what they
    make by the titles."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{{model}}{suffix}")
    parts = schema.pop("$defs", {}) | {model.__name__: schema}
    return {f"{name}{suffix}": part | {"title": f"{name}{suffix}"} for name, part in parts.items()}


if __name__ == "__main__":
    try:
        serve(load_settings())
    except RewardloopError as error:
        sys.exit(str(error))
