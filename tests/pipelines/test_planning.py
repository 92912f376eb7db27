"""``rewardloop plan`` and ``rewardloop best`` over an installation with a running campaign."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines import cli
from tests.pipelines.api import click, define, ok, rank, running, send, trace


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


def test_recipients_are_decided_and_stored(
    client: TestClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every row gets a stored decision that replays; the same send again gives the same file; another customer clashes."""
    define(client, limits={"a": {"least": 0.6, "most": 0.7}})
    file, done = tmp_path / "customers.csv", tmp_path / "sends.csv"
    file.write_text("unit,tier,age\n" + "".join(f"u{n},gold,{n}\n" for n in range(12)))
    plan = ("plan", "june", "--recipients", str(file), "--out", str(done), "--name", "s1")
    first = said(capsys, *plan)
    written = done.read_text()
    rows = list(csv.DictReader(written.splitlines()))

    assert first["decisions"] == len(rows) == 12
    for row in rows:
        stored = trace(client, row["decision_id"])
        chosen = stored["decision"]["chosen"][0]
        assert (row["content_id"], float(row["propensity"])) == (chosen["content_id"], chosen["propensity"])
        assert stored["replay"]["choice"] == "exact"
        assert stored["decision"]["context"] == {"tier": "gold", "age": int(row["age"])}
    assert said(capsys, *plan) == first
    assert done.read_text() == written

    file.write_text("unit,tier,age\nsomebody-else,gold,1\n")
    assert "another --name" in said(capsys, *plan, code=1)


def test_a_file_without_customers_is_refused(
    client: TestClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The column that names the customer is missed by name; half of the options are not enough."""
    define(client)
    file = tmp_path / "customers.csv"
    file.write_text("customer\nu1\n")
    plan = ("plan", "june", "--recipients", str(file))

    assert "no column 'unit'" in said(capsys, *plan, "--out", str(tmp_path / "o.csv"), "--name", "s", code=1)
    assert "--name" in said(capsys, *plan, code=1)
    assert "either --emails" in said(capsys, "plan", "june", code=1)


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
