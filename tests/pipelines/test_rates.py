"""Rates between currencies: by command and over HTTP, against a real store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from infra.clock import DAY, format_time, system_clock
from infra.database import reading, writing
from ingestion.audit import read_audit
from ingestion.http.access import scope_of
from ingestion.keys import create_key
from pipelines.cli import run
from tests.pipelines.api import LOOP, click, define, inside, keys_of, ok, rank, refused, running, send, trace

REVENUE = {"name": "revenue", "event": "purchase", "aggregate": "sum", "currency": "EUR", "convert": True}
TODAY = format_time(system_clock() - DAY)


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """An API whose loop converts; its database is the one the commands see."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    with running(sqlite_url, tmp_path) as client:
        define(client, metrics=[LOOP["metrics"][0], REVENUE])
        yield client


def rates(*words: str, source: str = "bank") -> dict[str, object]:
    """A body that says what a dollar is worth, since yesterday."""
    each = {"from_currency": "USD", "to_currency": "EUR", "valid_from": TODAY}
    return {"source": source, "rates": [each | {"rate": word} for word in words]}


def test_a_purchase_in_dollars_counts_once_a_rate_is_there(client: TestClient) -> None:
    """Before, the trace names the missing rate; after, it shows what the purchase is worth in the metric's currency."""
    decision = rank(client)["decision_id"]
    bought = click("p", type="purchase", decision_id=decision, value=12.5, currency="USD")
    send(client, bought)
    assert [event["reason"] for event in trace(client, decision)["events"]] == ["no_rate USD/EUR"]

    found = ok(client.post("/v1/exchange-rates", json=rates("0.8")))
    assert (found["new"], found["known"], found["restated"]) == (1, 0, 1)
    now = trace(client, decision)
    assert [(event["used"], event["value"]) for event in now["events"]] == [(True, 10.0)]
    assert [outcome["value"] for outcome in now["outcomes"]] == [10.0]
    assert ok(client.post("/v1/exchange-rates", json=rates("0.80")))["known"] == 1

    listed = ok(client.get("/v1/exchange-rates", params={"from_currency": "USD", "to_currency": "EUR"}))["rates"]
    assert [(one["rate"], one["source"], one["imported_by"]) for one in listed] == [("0.8", "bank", "api")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (rates("0,8"), "plain decimal"),
        (rates("0.8", "0.9"), "keep one of them"),
        (rates(), "at least 1"),
        ({"rates": [{"from_currency": "USD", "to_currency": "USD", "valid_from": TODAY, "rate": "1"}]}, "itself"),
        ({"rates": [{"from_currency": "USD", "to_currency": "EUR", "valid_from": TODAY, "rate": 0.8}]}, "rate"),
    ],
)
def test_what_is_no_rate_is_refused_whole(client: TestClient, body: dict[str, object], said: str) -> None:
    """The sentence says what to do; a number that is no text is refused too, because it would be a binary fraction."""
    assert said in refused(client.post("/v1/exchange-rates", json=body), 422)


def test_rates_need_an_administrator(sqlite_url: str, tmp_path: Path) -> None:
    """A key for events may not say what money is worth; nor one that is limited to a loop, because rates are everybody's."""
    with running(sqlite_url, tmp_path) as client:
        define(client)
    with running(sqlite_url, tmp_path, api_keys="required") as client:
        serving = inside(client).serving
        with writing(serving.engine) as connection:
            made = [
                create_key(connection, serving.secrets, name, scopes, loops, "100/second", serving.clock())
                for name, scopes, loops in (
                    ("shop", ["events"], []),
                    ("desk", ["admin"], ["mail"]),
                    ("root", ["admin"], []),
                )
            ]
        keys_of(client).refresh()
        answers = [
            client.post("/v1/exchange-rates", json=rates("0.8"), headers={"Authorization": f"Bearer {key}"}).status_code
            for key in made
        ]
        assert answers == [403, 403, 200]
        with reading(serving.engine) as connection:
            assert [entry.actor for entry in read_audit(connection, action="import_rates")] == ["root: api"]
    assert scope_of("GET", "/v1/exchange-rates") == "admin"


def test_a_file_is_imported_and_listed(client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the same changes nothing; a corrected rate is listed with the one it corrects."""
    path = tmp_path / "ecb.csv"
    path.write_text(f"from,to,valid_from,rate\nUSD,EUR,{TODAY},0.8\nUSD,EUR,2026-01-01,0.9\n")
    assert run(["rates", "import", str(path), "--source", "central bank"]) == 0
    assert "2 rates are new" in capsys.readouterr().out
    assert run(["rates", "import", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "new": 0,
        "known": 2,
        "restated": 0,
        "batch_no": None,
        "loops": ["mail"],
    }

    path.write_text("from,to,valid_from,rate\nUSD,EUR,2026-01-01,0.95\n")
    assert run(["rates", "import", str(path)]) == 0
    capsys.readouterr()
    assert run(["rates", "list", "--to", "EUR", "--every", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["rate"], one["source"], one["imported_by"]) for one in listed] == [
        ("0.95", "ecb.csv", "cli"),
        ("0.9", "central bank", "cli"),
        ("0.8", "central bank", "cli"),
    ]
    assert run(["rates", "list"]) == 0
    assert "0.95" in capsys.readouterr().out
    assert run(["rates", "list", "--from", "GBP"]) == 0
    assert "no such rates" in capsys.readouterr().out


def test_a_wrong_file_is_told_line_by_line(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every wrong line is printed, nothing is imported, and the command fails."""
    path = tmp_path / "rates.csv"
    path.write_text("from,to,valid_from,rate\nUSD,EUR,2026-01-01,0.9\nUSD,EUR,yesterday,1\nUSD,EUR,2026-01-02,[bold]\n")
    assert run(["rates", "import", str(path)]) == 1
    said = capsys.readouterr().err
    assert "line 3: valid_from 'yesterday' is not a time" in said
    assert "line 4: rate '[bold]' is not a plain decimal" in said
    assert run(["rates", "list"]) == 0
    assert "no such rates" in capsys.readouterr().out


def test_without_a_metric_that_converts_it_is_said(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rates alone change nothing, so whoever imports them is told what is missing."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    path = tmp_path / "rates.csv"
    path.write_text("from,to,valid_from,rate\nUSD,EUR,2026-01-01,0.9\n")
    assert run(["rates", "import", str(path)]) == 0
    assert 'add "convert": true' in capsys.readouterr().out
