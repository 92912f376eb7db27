"""Sends over HTTP: created, handed over in parts, started, fetched; and whatever is asked twice changes nothing."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from infra.clock import system_clock
from infra.database import open_database, writing
from infra.errors import TooMany, Unavailable
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.http.access import scope_of
from pipelines import operations
from pipelines.audiences import folders, jobs
from pipelines.audiences.deciding import Desk, Report
from pipelines.audiences.folders import Failure, Folder, Folders, Order
from tests.pipelines.api import define, ok, rank, refused, running
from tests.pipelines.sends import decided_at_once
from tests.pipelines.test_app import wait_for

SEND = "/v1/loops/mail/sends/june-1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The data folder."""
    return tmp_path / "home"


@pytest.fixture
def client(home: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The API with a running campaign. What it starts is run here, at once, instead of in a process of its own."""
    desk = Desk(open_database(sqlite_url), load_secrets(Settings(home=home)), Settings(home=home), system_clock)
    decided_at_once(monkeypatch, desk)
    with running(sqlite_url, home) as client:
        define(client, holdout=0.2)
        yield client
    desk.engine.dispose()


def part(*numbers: int) -> dict[str, Any]:
    """Some customers; number 3 names nobody."""
    return {"recipients": [{"unit": "" if n == 3 else f"u{n}", "context": {"age": n}} for n in numbers]}


def test_a_send_is_decided_and_fetched(client: TestClient) -> None:
    """Parts are joined by their numbers, rows that cannot be used are told by their line, and the report adds up."""
    opened = ok(client.put(SEND, json={"campaign": "june", "format": "ndjson"}))
    ok(client.put(f"{SEND}/parts/1", json=part(4, 5, 1)))
    handed = ok(client.put(f"{SEND}/parts/0", json=part(1, 2, 3)))
    assert (opened["state"], handed["state"], handed["parts"]) == ("open", "open", 2)
    assert "its result is there once" in refused(client.get(f"{SEND}/result"), 404)

    started = client.post(f"{SEND}/start")
    assert (started.status_code, started.json()["state"]) == (202, "running")
    done = ok(client.get(SEND))
    rows = [json.loads(line) for line in client.get(f"{SEND}/result").text.splitlines()]
    rejected = [json.loads(line) for line in client.get(f"{SEND}/rejected").text.splitlines()]

    assert (done["state"], done["rows"]) == ("done", 6)
    report = done["report"]
    assert [report[name] for name in ("rows", "decided", "repeated", "rejected")] == [6, 4, 1, 1]
    assert report["complaints"] == [{"reason": "the row names no customer", "rows": 1, "first_line": 3}]
    assert [(row["line"], row["unit"]) for row in rows] == [(1, "u1"), (2, "u2"), (4, "u4"), (5, "u5"), (6, "u1")]
    assert [one["line"] for one in rejected] == [3]
    again = rank(client, decision_id=rows[1]["decision_id"], unit="u2", context={"age": 2})
    assert (again["ranked"][0]["content_id"], again["token"]) == (rows[1]["content_id"], rows[1]["token"])


def test_more_may_come_and_the_same_changes_nothing(client: TestClient) -> None:
    """The same order and part again, and another start, give the same bytes; a further part decides for the new only."""
    for _ in range(2):
        ok(client.put(SEND, json={"campaign": "june"}))
        ok(client.put(f"{SEND}/parts/0", json=part(1, 2)))
        ok(client.post(f"{SEND}/start"))
    first = client.get(f"{SEND}/result").content
    ok(client.put(f"{SEND}/parts/1", json=part(4)))
    ok(client.post(f"{SEND}/start"))
    report = ok(client.get(SEND))["report"]

    assert [report[name] for name in ("decided", "stored_before")] == [1, 2]
    assert client.get(f"{SEND}/result").content.startswith(first)
    assert "No row" in refused(client.get(f"{SEND}/rejected"), 404)


def test_what_cannot_be_is_refused(client: TestClient) -> None:
    """Another order under the name, another loop's campaign, no audience, too much of it, unknown sends and odd names."""
    ok(client.put(SEND, json={"campaign": "june"}))
    odd: dict[str, Any] = {"recipients": []}

    assert "asked for otherwise" in refused(client.put(SEND, json={"campaign": "june", "format": "ndjson"}), 409)
    assert "belongs to loop 'mail'" in refused(client.put("/v1/loops/other/sends/s", json={"campaign": "june"}), 422)
    assert "No campaign" in refused(client.put("/v1/loops/mail/sends/s", json={"campaign": "nobody"}), 404)
    assert "redirect links are off" in refused(
        client.put("/v1/loops/mail/sends/s", json={"campaign": "june", "links": {"a": "https://x.example.com/"}}), 422
    )
    assert "no audience yet" in refused(client.post(f"{SEND}/start"), 422)
    assert "at least 1" in refused(client.put(f"{SEND}/parts/0", json=odd), 422)
    assert refused(client.put(f"{SEND}/parts/1000", json=part(1)), 422)
    assert refused(client.put("/v1/loops/mail/sends/a%2Fb", json={"campaign": "june"}), 404)
    assert "No send" in refused(client.get("/v1/loops/mail/sends/nobody"), 404)
    assert "No send" in refused(client.get("/v1/loops/other/sends/june-1"), 404)


def test_a_failure_is_told_and_can_be_tried_again(client: TestClient) -> None:
    """A send whose campaign ended says so; it is no dead end: started again it runs again."""
    ok(client.put(SEND, json={"campaign": "june"}))
    ok(client.put(f"{SEND}/parts/0", json=part(1)))
    ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "state": "ended"}))
    ok(client.post(f"{SEND}/start"))
    found = ok(client.get(SEND))

    assert (found["state"], found["report"]) == ("failed", None)
    assert "only a running campaign is sent" in found["failure"]
    ok(client.post(f"{SEND}/start"))
    assert ok(client.get(SEND))["state"] == "failed"


def test_what_a_last_run_said_holds_no_more(client: TestClient) -> None:
    """A further part opens the send again, after its end and after a failure; the same part again does not."""
    ok(client.put(SEND, json={"campaign": "june"}))
    ok(client.put(f"{SEND}/parts/0", json=part(1)))
    ok(client.post(f"{SEND}/start"))
    assert ok(client.put(f"{SEND}/parts/0", json=part(1)))["state"] == "done"
    opened = ok(client.put(f"{SEND}/parts/1", json=part(2)))
    assert (opened["state"], opened["rows"], opened["report"]) == ("open", 0, None)
    assert "The send is open" in refused(client.get(f"{SEND}/result"), 404)

    ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "state": "ended"}))
    ok(client.post(f"{SEND}/start"))
    assert ok(client.get(SEND))["state"] == "failed"
    opened = ok(client.put(f"{SEND}/parts/1", json=part(4)))
    assert (opened["state"], opened["failure"]) == ("open", None)


def test_a_send_that_is_decided_is_left_alone(client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process decides it, the send says so, takes no parts, and another start changes nothing."""
    monkeypatch.setattr(operations, "PATIENCE_SECONDS", 0.02)
    ok(client.put(SEND, json={"campaign": "june"}))
    ok(client.put(f"{SEND}/parts/0", json=part(1)))
    [path] = (home / "sends").iterdir()
    with Folder(path).held():
        assert ok(client.get(SEND))["state"] == "running"
        assert "being decided" in refused(client.put(f"{SEND}/parts/1", json=part(2)), 409)
        assert ok(client.post(f"{SEND}/start"))["state"] == "running"
    assert ok(client.get(SEND))["state"] == "open"
    Folder(path).begin()
    assert ok(client.get(SEND))["state"] == "stopped"


def test_whoever_looks_is_in_nobodys_way(client: TestClient, home: Path) -> None:
    """While others look how the send stands, so may everybody, parts may come, and a start waits for them."""
    ok(client.put(SEND, json={"campaign": "june"}))
    ok(client.put(f"{SEND}/parts/0", json=part(1)))
    [path] = (home / "sends").iterdir()
    with Folder(path)._shared():
        assert ok(client.get(SEND))["state"] == "open"
        assert ok(client.put(f"{SEND}/parts/1", json=part(2)))["parts"] == 2
    look = Folder(path)._shared()
    look.__enter__()
    threading.Timer(0.2, look.__exit__, (None, None, None)).start()
    ok(client.post(f"{SEND}/start"))
    assert ok(client.get(SEND))["state"] == "done"


def test_a_send_that_cannot_begin_says_why(home: Path) -> None:
    """Where its process finds nothing to decide on, the send has failed, and tells the reason."""
    folder = Folders(home, load_secrets(Settings(home=home)), 7).create(Order(loop="mail", send="s", campaign="june"))

    def nowhere() -> Desk:
        raise Unavailable("The database does not answer: connection refused")

    with folder.held():
        folder.begin()
        jobs.run(folder, nowhere)

    assert (folder.state, folder.failure) == (
        "failed",
        Failure("The database does not answer: connection refused", True),
    )


def test_in_a_process_of_its_own(home: Path, sqlite_url: str, engine: Engine) -> None:
    """What a start begins is running from the answer on, whatever its last run said, until what it says is new."""
    with running(sqlite_url, home) as client:
        define(client)
        ok(client.put(SEND, json={"campaign": "june", "format": "ndjson"}))
        ok(client.put(f"{SEND}/parts/0", json=part(1, 2)))
        [path] = (home / "sends").iterdir()
        with Folder(path).held():
            Folder(path).write("report.json", msgspec.json.encode(Report("june-1", "mail", "june", rows=7)))
            Folder(path).write("failed.json", msgspec.json.encode(Failure("of the last run", True)))

        with writing(engine):  # so nothing is decided yet
            ok(client.post(f"{SEND}/start"))
            begun = ok(client.get(SEND))
            ok(client.post(f"{SEND}/start"))
            late = client.put(f"{SEND}/parts/1", json=part(4))
        wait_for(lambda: ok(client.get(SEND))["state"] != "running", seconds=120)
        done = ok(client.get(SEND))

        assert (begun["state"], begun["report"]) == ("running", None)
        assert "being decided" in refused(late, 409)
        assert (done["state"], done["report"]["rows"], done["report"]["decided"]) == ("done", 2, 2)
        assert len(client.get(f"{SEND}/result").text.splitlines()) == 2
        assert ok(client.put(f"{SEND}/parts/1", json=part(4)))["state"] == "open"


def test_when_to_try_again_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many sends are refused with the time that it takes until there is room."""
    monkeypatch.setattr(folders, "SENDS", 0)
    full = client.put(SEND, json={"campaign": "june"})
    assert (full.headers["retry-after"], "are kept already" in refused(full, 429)) == ("3600", True)
    monkeypatch.undo()

    ok(client.put(SEND, json={"campaign": "june"}))
    ok(client.put(f"{SEND}/parts/0", json=part(1)))
    monkeypatch.setattr(operations, "SENDS", 0)
    busy = client.post(f"{SEND}/start")
    assert (busy.headers["retry-after"], "sends are being decided" in refused(busy, 429)) == ("10", True)
    assert ok(client.get(SEND))["state"] == "open"


def test_folders_are_private_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names tell nothing, only the owner looks in, and what nobody touched for its days is deleted, unless it runs."""
    settings = Settings(home=tmp_path)
    kept = Folders(tmp_path, load_secrets(settings), days=7)
    old, busy, new = (kept.create(Order(loop="mail", send=name, campaign="june")) for name in ("old", "busy", "new"))
    for folder in (old, busy):
        for path in (folder.path, *folder.path.iterdir()):
            os.utime(path, (time.time() - 8 * 86_400,) * 2)
    assert all(re.fullmatch(r"[0-9a-f]{32}", path.name) for path in (tmp_path / "sends").iterdir())
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "sends", old.path)} == {0}
    with busy.held():
        os.utime(busy.path / "lock", (time.time() - 8 * 86_400,) * 2)
        os.utime(busy.path, (time.time() - 8 * 86_400,) * 2)
        kept.sweep()

    assert [folder.path.exists() for folder in (old, busy, new)] == [False, True, True]
    monkeypatch.setattr(folders, "SENDS", 1)  # the busy one, left alone, is swept now
    with pytest.raises(TooMany):
        kept.create(Order(loop="mail", send="more", campaign="june"))


def test_sends_need_the_scope_of_choosing() -> None:
    """Everything about a send is for keys of scope rank, reading too; a loop that is called sends is no send."""
    for method in ("PUT", "POST", "GET"):
        assert scope_of(method, "/v1/loops/mail/sends/june-1/result") == "rank"
    assert scope_of("POST", "/v1/loops/sends/retrain") == "admin"
    assert scope_of("PUT", "/v1/loops/sends") == "admin"
