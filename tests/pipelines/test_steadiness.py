"""What the API says of itself when something is away, to whom, and what it answers when it may not answer unstored."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from infra.database import writing
from ingestion.keys import create_key
from tests.pipelines.api import away, define, inside, keys_of, ok, rank, refused, running

DRAFT = {"slots": {"subject": "A brand-new line"}}


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """An API that refuses rather than to answer unstored."""
    with running(sqlite_url, tmp_path / "home", unstored="refuse") as client:
        define(client)
        yield client


@pytest.mark.parametrize("fields", [{}, {"decision_id": "d1"}, {"explain": True}, {"candidates": ["a", DRAFT]}])
def test_refuse_means_no_answer_without_its_row(client: TestClient, fields: dict[str, Any]) -> None:
    """While nothing can be stored, every way through the call ends in 503 with Retry-After; then it is stored again."""
    serving = inside(client).serving
    with away(serving.engine, serving.decisions.engine):
        answer = client.post("/v1/rank", json={"loop": "mail", "campaign": "june"} | fields)

    assert "ask the same again" in refused(answer, 503)
    time.sleep(float(answer.headers["retry-after"]))
    assert rank(client, **fields)["durable"]


def test_a_dry_run_needs_no_database(client: TestClient) -> None:
    """What is not to be stored is answered, whatever ``unstored`` says."""
    serving = inside(client).serving
    with away(serving.engine, serving.decisions.engine):
        assert not rank(client, dry_run=True)["durable"]


def test_readiness_says_why(client: TestClient) -> None:
    """The database away is a sentence; when it is back, so is readiness."""
    serving = inside(client).serving
    with away(serving.engine, serving.decisions.engine):
        during = ok(client.get("/readyz"))

    assert (during["status"], during["database"]) == ("degraded", "away")
    assert "does not answer" in during["reason"]


def test_a_flood_of_probes_is_one_question(client: TestClient) -> None:
    """However often readiness is asked, the database hears of it once a second."""
    ok(client.get("/readyz"))
    questions: list[str] = []
    engine = inside(client).serving.decisions.engine
    event.listen(engine, "before_cursor_execute", lambda *about: questions.append(about[2]))
    for _ in range(50):
        ok(client.get("/readyz"))

    assert questions.count("SELECT 1") < 25


def test_strangers_are_told_no_names(sqlite_url: str, tmp_path: Path) -> None:
    """Where keys are required, a call without one hears whether all is well, and no loop, host or reason."""
    with running(sqlite_url, tmp_path / "home", api_keys="required") as client:
        serving, keyring = inside(client).serving, keys_of(client)
        with writing(serving.engine) as connection:
            made = create_key(connection, serving.secrets, "ops", ["admin", "content"], (), "1000/second", 1)
        keyring.refresh()
        key = {"Authorization": f"Bearer {made}"}
        client.headers.update(key)
        define(client)
        with away(serving.engine, serving.decisions.engine):
            known = ok(client.get("/readyz"))
            del client.headers["Authorization"]
            stranger = ok(client.get("/readyz"))

    assert (stranger["status"], stranger["database"], stranger["loops"]) == ("degraded", "away", {})
    assert stranger["reason"] == "The database does not answer; ask with an API key for the details"
    assert set(known["loops"]) == {"mail"}
    assert "connection refused" in known["reason"]


def test_a_first_request_is_like_any_other(sqlite_url: str, tmp_path: Path) -> None:
    """A server that starts over running campaigns has their posteriors when the first request comes."""
    with running(sqlite_url, tmp_path / "home", refresh_seconds=60) as client:
        define(client)
    with running(sqlite_url, tmp_path / "home", refresh_seconds=60, tick_seconds=60) as restarted:
        snapshot = inside(restarted).serving.snapshots.current

        assert set(snapshot._standings) == {"june"}
        assert rank(restarted)["durable"]
