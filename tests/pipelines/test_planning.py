"""``rewardloop plan`` and ``rewardloop best`` over an installation with a running campaign."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines import cli
from tests.pipelines.api import click, define, ok, rank, running, send


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The API and the commands on one installation."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("REWARDLOOP_HOME", str(home))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")
    with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
        yield client


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The JSON that a command prints, or its sentence when it fails."""
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out) if code == 0 else captured.err


def shown(client: TestClient, decisions: int) -> None:
    """That many choices; whoever sees ``a`` clicks every second time."""
    chosen = [rank(client, decision_id=f"d{n}")["ranked"][0]["content_id"] for n in range(decisions)]
    send(client, *(click(f"k{n}", decision_id=f"d{n}") for n, name in enumerate(chosen) if name == "a" and n % 2))


def test_a_send_is_planned(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Test and rest add up to the send, shares to one, and the policy's shares are the test's."""
    define(client)
    shown(client, 60)
    found = said(capsys, "plan", "june", "--emails", "20000")

    assert found["test"] + found["rest"] == 20_000
    assert sum(content["share"] for content in found["contents"]) == pytest.approx(1.0)
    assert sum(content["test"] for content in found["contents"]) == found["test"]
    assert found["value"]["plan"] >= found["value"]["at_once"] >= found["value"]["even"]


def test_nothing_known_cannot_be_planned(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an outcome and without a model the command says what to do first."""
    define(client)

    assert "Nothing is known yet" in said(capsys, "plan", "june", "--emails", "100", code=1)


def test_the_best_is_told_and_the_beaten_retired(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """A content that half of its readers click beats one that nobody clicks, once each was shown often enough."""
    define(client, policy={"kind": "uniform"})
    shown(client, 40)
    early = said(capsys, "best", "june")
    more = [rank(client, decision_id=f"e{n}")["ranked"][0]["content_id"] for n in range(300)]
    send(client, *(click(f"m{n}", decision_id=f"e{n}") for n, name in enumerate(more) if name == "a" and n % 2))
    late = said(capsys, "best", "june", "--retire")

    assert (early["leader"], early["winner"]) == ("a", None)
    assert (late["winner"], late["retired"]) == ("a", ["b"])
    states = {one["content_id"]: one["approval"] for one in ok(client.get("/v1/contents?campaign=june"))["contents"]}
    assert states == {"a": "approved", "b": "retired"}
