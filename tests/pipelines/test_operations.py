"""Health, metrics, and retrains started over HTTP."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from infra.errors import Conflict
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.operations import Jobs
from tests.pipelines.api import click, define, inside, ok, rank, refused, running, send
from tests.pipelines.holdout_world import fill, shop


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The API on an empty SQLite database."""
    with running(sqlite_url, tmp_path / "home") as client:
        yield client


def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let a shell script stand in for the interpreter that a retrain is started with."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_health_asks_nothing(client: TestClient) -> None:
    """The process answers that it is alive."""
    assert ok(client.get("/healthz")) == {"status": "ok"}


def test_readiness_names_every_loop(client: TestClient) -> None:
    """A loop without a model is choosing; a killed one says so; neither is a fault."""
    define(client)
    before = ok(client.get("/readyz"))
    ok(client.post("/v1/loops/mail/kill"))
    after = ok(client.get("/readyz"))

    assert (before["status"], before["database"]) == ("ready", "ok")
    assert before["loops"] == {
        "mail": {"champion": None, "serving": None, "state": "choosing", "reason": None, "scoring": None}
    }
    assert (after["status"], after["loops"]["mail"]["state"]) == ("ready", "killed")


def test_metrics_count_what_happened(client: TestClient) -> None:
    """Choices and records appear as Prometheus metrics, without ids of units or decisions; the ledger adds up."""
    define(client)
    rank(client, decision_id="secret-decision", unit="secret-unit")
    send(client, click("e1", decision_id="secret-decision"))
    text = client.get("/metrics").text

    assert 'rewardloop_ranks_total{durable="true",group="treatment",learning_mode="online"}' in text
    assert "rewardloop_conservation_error 0.0" in text
    assert "secret" not in text


def test_a_retrain_is_a_process_of_its_own(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The call answers 202 at once and starts ``rewardloop retrain <loop>`` with the server's data folder."""
    define(client)
    command(monkeypatch, tmp_path, 'echo "$3 $4 in $REWARDLOOP_HOME"')
    answer = client.post("/v1/loops/mail/retrain")
    inside(client).jobs._running["mail"].wait()

    assert answer.status_code == 202
    assert Path(answer.json()["log"]).read_text() == f"retrain mail in {(tmp_path / 'home').resolve()}\n"


def test_one_retrain_per_loop_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second retrain of a running loop is a conflict; the stop of the server ends what runs."""
    command(monkeypatch, tmp_path, "exec sleep 60")
    jobs = Jobs(Settings(home=tmp_path))
    jobs.retrain("a")
    jobs.retrain("b")
    with pytest.raises(Conflict, match="is running; wait for its end"):
        jobs.retrain("a")
    jobs.stop()

    assert [process.poll() for process in jobs._running.values()] == [-15, -15]


def test_the_command_line_it_starts_exists() -> None:
    """What a retrain is started with is this interpreter and our own command line."""
    from pipelines.cli import app  # the name the command imports from

    assert Path(sys.executable).exists()
    assert "retrain" in {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }


def test_the_lift_is_one_document(client: TestClient, engine: Engine, secrets: Secrets) -> None:
    """The call answers the report of the loop, for a loop without customers too; an unknown loop is not found."""
    define(client)
    empty = ok(client.get("/v1/loops/mail/lift"))
    fill(engine, secrets, shop(), customers=600)
    found = ok(client.get("/v1/loops/shop/lift"))

    assert (empty["customers"], empty["lifts"][0]["lift"]) == (0, None)
    assert found["customers"] == 600
    assert found["lifts"][0]["lift"]["mde"] > 0.0
    assert found["guardrails"][0]["metric"] == "unsubscribe"
    assert "'nobody'" in refused(client.get("/v1/loops/nobody/lift"), 404)
