"""Who approved, promoted, switched or defined what: every such call leaves a line with a name, and the lines stay."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.database import reading, writing
from ingestion.audit import Entry, read_audit
from ingestion.keys import create_key
from pipelines import cli
from reward_models import registry
from tests.pipelines.api import LOOP, inside, keys_of, ok, running


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """An API that requires keys; its database is the one the commands see."""
    with running(sqlite_url, tmp_path, api_keys="required") as client:
        yield client


def lines(client: TestClient) -> list[Entry]:
    """The audit so far."""
    with reading(inside(client).serving.engine) as connection:
        return read_audit(connection, limit=1_000)


def version_that_passed(client: TestClient) -> None:
    """A version of loop ``mail`` that may be promoted."""
    with writing(inside(client).serving.engine) as connection:
        model: dict[str, Any] = {"digest": "d", "config_digest": "c", "loop_version": 1, "as_of": 1, "cutoff": 1}
        registry.register(connection, "mail", "mail-1", **model, kind="first", now=1)
        registry.settle(connection, "mail", "mail-1", "passed", {"champion": None})


def test_every_privileged_call_leaves_its_line(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call adds one line: who by which key, what, on what, and when; lines before it are as they were."""
    serving = inside(client).serving
    with writing(serving.engine) as connection:
        key = create_key(
            connection, serving.secrets, "console", ["admin", "content"], [], "100/second", serving.clock()
        )
    keys_of(client).refresh()
    headers = {"Authorization": f"Bearer {key}"}
    contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "ab"]
    campaign = {"campaign": "june", "loop": "mail"}
    calls: list[tuple[str, str, Any, tuple[str, str] | None]] = [
        ("PUT", "/v1/loops/mail", LOOP, ("define_loop", "mail")),
        ("PUT", "/v1/loops/mail", LOOP, None),
        ("PUT", "/v1/loops/mail", LOOP | {"holdout": 0.2, "approval": "manual"}, ("define_loop", "mail")),
        ("POST", "/v1/campaigns", campaign | {"contents": contents}, None),
        ("POST", "/v1/contents/a/approval", {"approval": "approved", "actor": "ann"}, ("approval", "a")),
        ("POST", "/v1/contents/b/approval", {"approval": "rejected", "actor": "ann"}, ("approval", "b")),
        ("POST", "/v1/campaigns", campaign | {"state": "running"}, ("campaign.start", "june")),
        ("POST", "/v1/loops/mail/kill", {"killed": True, "actor": "ann"}, ("kill", "mail")),
        ("POST", "/v1/loops/mail/kill", {"killed": False, "actor": "ann"}, ("unkill", "mail")),
        ("POST", "/v1/loops/mail/promote", {"version": "mail-1", "actor": "ann"}, ("promote", "mail-1")),
        ("POST", "/v1/campaigns", campaign | {"state": "ended"}, ("campaign.end", "june")),
    ]
    paths = ok(client.get("/openapi.json"))["paths"]
    assert [path for path in paths if "audit" in path] == []  # nothing there can change a line
    before = lines(client)
    for method, path, body, expected in calls:
        if path.endswith("promote"):
            version_that_passed(client)
        ok(client.request(method, path, json=body, headers=headers))
        now = lines(client)
        assert now[: len(before)] == before
        added = [(entry.action, entry.subject) for entry in now[len(before) :]]
        assert added == ([] if expected is None else [expected]), path
        assert all(entry.actor.startswith("console: ") and entry.at > 0 for entry in now[len(before) :])
        before = now
    assert [entry.details for entry in before if entry.action == "promote"] == [
        {"loop": "mail", "revision": 1, "replaces": None}
    ]

    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("REWARDLOOP_DATABASE_URL", str(serving.engine.url))
    capsys.readouterr()
    assert cli.run(["audit", "--actor", "console", "--action", "approval", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(line["actor"], line["subject"], line["details"]["to"]) for line in shown] == [
        ("console: ann", "a", "approved"),
        ("console: ann", "b", "rejected"),
    ]
    assert cli.run(["audit", "--subject", "nothing"]) == 0
    assert "Nothing of this kind" in capsys.readouterr().out
