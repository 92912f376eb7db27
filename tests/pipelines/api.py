"""A running API for tests: the real app over a migrated database, asked through Starlette's test client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from infra.clock import format_time, system_clock
from infra.settings import Settings
from ingestion.keys import Keyring
from pipelines.app import Running, create_app

LOOP: dict[str, Any] = {
    "metrics": [
        {"name": "click", "event": "click"},
        {"name": "revenue", "event": "purchase", "aggregate": "sum", "currency": "EUR"},
    ],
    "reward": {"click": 1},
    "approval": "automatic",
    "holdout": 0,
}
JSON = {"content-type": "application/json"}


def running(database_url: str, home: Path, **settings: Any) -> TestClient:
    """A client of the app on this database; use it as a context manager. Tests click at once, so speed is allowed."""
    quick = {"tick_seconds": 0.1, "refresh_seconds": 0.1, "bot_seconds": 0}
    app = create_app(Settings(home=home, database_url=database_url, **(quick | settings)))
    return TestClient(app, raise_server_exceptions=False)


def inside(client: TestClient) -> Running:
    """What the calls of the started app stand on: it keeps the fields of ``Running`` as its state."""
    return cast(Running, cast(FastAPI, client.app).state)


def keys_of(client: TestClient) -> Keyring:
    """The keys that the started app knows; it was told to ask for them."""
    keyring = inside(client).keyring
    assert keyring is not None
    return keyring


def ok(response: Response) -> Any:
    """The JSON of a successful answer."""
    assert response.is_success, response.text
    return response.json()


def refused(response: Response, status: int) -> str:
    """The sentence of a problem document, checked to be whole."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:rewardloop:problem:")
    assert {"title", "detail", "instance", "errors"} <= set(problem)
    detail: str = problem["detail"]
    return detail


def define(client: TestClient, **changes: Any) -> None:
    """Loop ``mail`` with campaign ``june``, contents ``a`` and ``b``, approved and running."""
    ok(client.put("/v1/loops/mail", json=LOOP | changes))
    contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in ("a", "b")]
    ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "contents": contents}))


def rank(client: TestClient, **fields: Any) -> Any:
    """A choice in that campaign."""
    return ok(client.post("/v1/rank", json={"loop": "mail", "campaign": "june"} | fields))


def click(event_id: str, **fields: Any) -> dict[str, Any]:
    """A click, now."""
    return {"event_id": event_id, "type": "click", "occurred_at": format_time(system_clock())} | fields


def send(client: TestClient, *events: Any) -> Any:
    """The answer to a batch of events."""
    return ok(client.post("/v1/events", json={"events": list(events)}))


def trace(client: TestClient, decision_id: str) -> Any:
    """Everything that is known of a decision."""
    return ok(client.get(f"/v1/decisions/{decision_id}"))


@contextmanager
def away(*engines: Engine) -> Iterator[None]:
    """The database does not answer on these engines. (An event's listener would be changed under running threads.)"""

    def fail() -> Connection:
        raise OperationalError("BEGIN", None, Exception("connection refused"))

    for engine in engines:
        engine.connect = fail  # type: ignore[method-assign]
    try:
        yield
    finally:
        for engine in engines:
            del engine.connect
