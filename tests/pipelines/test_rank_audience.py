"""``rewardloop rank-audience``: an audience in, stored decisions out, once and for all."""

import csv
import json
import multiprocessing
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from infra import tables
from infra.clock import system_clock
from infra.database import open_database, reading
from infra.secrets import load_secrets
from infra.settings import Settings
from pipelines import cli
from pipelines.audiences import deciding
from tests.pipelines.api import define, ok, rank, running, trace

Said = Any


@pytest.fixture
def home(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that the commands find."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated_file, home / "rewardloop.db")
    monkeypatch.setenv("REWARDLOOP_HOME", str(home))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")
    monkeypatch.setenv("REWARDLOOP_PUBLIC_URL", "https://go.example.com")
    monkeypatch.setenv("REWARDLOOP_REDIRECT_HOSTS", '["shop.example.com"]')
    return home


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    """The API of that installation, with a running campaign; nothing is counted meanwhile."""
    with running(f"sqlite:///{home / 'rewardloop.db'}", home, tick_seconds=60) as client:
        define(client, holdout=0.2, no_send=True)
        yield client


@pytest.fixture
def audience(tmp_path: Path) -> Path:
    """Forty customers, two of them twice, and two rows that cannot be used."""
    rows = [f"u{n % 38},{20 + n % 38},{'gold' if n % 38 % 2 else ''},n{n}" for n in range(40)]
    path = tmp_path / "customers.csv"
    path.write_text("\n".join(["unit,age,plan,name", *rows[:10], ",1,x,nobody", *rows[10:], "u99,1"]) + "\n")
    return path


def command(capsys: pytest.CaptureFixture[str], audience: Path, output: Path, *more: str, code: int = 0) -> Said:
    """The JSON that the command prints, or its sentence when it fails."""
    capsys.readouterr()
    given = ("rank-audience", "--campaign", "june", "--input", str(audience), "--output", str(output), "--send", "s1")
    assert cli.run([*given, *more, "--json"]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return json.loads(captured.out) if code == 0 else captured.err


def stored(home: Path) -> int:
    """How many decisions are stored."""
    engine = open_database(f"sqlite:///{home / 'rewardloop.db'}")
    with reading(engine) as connection:
        found = connection.scalar(select(func.count()).select_from(tables.decisions))
    engine.dispose()
    return int(found or 0)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of an output, numbers as numbers, nothing as None."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    if path.suffix == ".ndjson":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        found: list[dict[str, Any]] = [
            {name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)
        ]
    return [row | {"line": int(row["line"]), "propensity": float(row["propensity"])} for row in found]


def test_everybody_is_decided_once_and_written(
    client: TestClient, home: Path, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is in the output or among the rejects; each customer has one stored decision that replays, with the token
    and the links; the counts add up."""
    output = tmp_path / "sends.csv"
    report = command(capsys, audience, output, "--keep", "name", "--link", "shop=https://shop.example.com/june")
    rows = rows_of(output)
    rejects = [json.loads(line) for line in (tmp_path / "sends.csv.rejected.ndjson").read_text().splitlines()]

    assert [row["name"] for row in rows] == [f"n{n}" for n in range(40)]
    assert [row["line"] for row in rows] == [*range(2, 12), *range(13, 43)]
    assert [(one["line"], one["raw"]) for one in rejects] == [(12, ",1,x,nobody"), (43, "u99,1")]
    assert (report["rows"], report["decided"], report["repeated"], report["rejected"]) == (42, 38, 2, 2)
    assert report["complaints"] == {one["reason"]: {"rows": 1, "first_line": one["line"]} for one in rejects}
    assert sum(report["contents"].values()) == 40
    assert stored(home) == 38
    assert rows[38] | {"line": 0, "name": ""} == rows[0] | {"line": 0, "name": ""}
    for row in rows[:6]:
        found = trace(client, row["decision_id"])
        chosen = found["decision"]["chosen"][0]
        assert (row["content_id"], row["propensity"]) == (chosen["content_id"], chosen["propensity"])
        assert found["replay"]["choice"] == "exact"
        sent = row["content_id"] != "no_send"
        assert (row["token"] is not None, row["link.shop"] is not None) == (sent, sent)


def test_it_is_what_rank_answers(
    client: TestClient, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for the same customer, context and id, /v1/rank answers the stored choice: the send made the same call."""
    output = tmp_path / "sends.ndjson"
    command(capsys, audience, output, "--keep", "name")
    for row, context in zip(rows_of(output)[:2], ({"age": 20}, {"age": 21, "plan": "gold"}), strict=True):
        again = rank(client, decision_id=row["decision_id"], unit=row["unit"], context=context)

        assert again["token"] == row["token"] or row["content_id"] == "no_send"
        assert (again["ranked"][0]["content_id"], again["group"]) == (row["content_id"], row["group"])
        assert again["ranked"][0]["propensity"] == row["propensity"]


def test_again_is_the_same(
    client: TestClient, home: Path, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A send that was begun needs --resume; then it stores nothing and writes the same bytes, in every format the same."""
    output = tmp_path / "sends.csv"
    command(capsys, audience, output)
    first = output.read_bytes()
    output.unlink()

    assert "--resume" in command(capsys, audience, output, code=1)
    assert not output.exists()
    again = command(capsys, audience, output, "--resume")
    assert (again["decided"], again["stored_before"], again["repeated"]) == (0, 38, 2)
    assert output.read_bytes() == first
    assert stored(home) == 38
    command(capsys, audience, tmp_path / "sends.ndjson", "--resume")
    command(capsys, audience, tmp_path / "sends.parquet", "--resume")
    assert rows_of(tmp_path / "sends.ndjson") == rows_of(tmp_path / "sends.parquet")
    plain = [{**row, "unit": row["unit"]} for row in rows_of(output)]
    assert rows_of(tmp_path / "sends.ndjson") == plain


def test_chunks_change_nothing(
    client: TestClient,
    home: Path,
    audience: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An audience decided seven at a time gets the choices that it gets at once: also who is in it twice."""
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    command(capsys, audience, tmp_path / "at_once.csv")
    monkeypatch.setattr(deciding, "CHUNK", 7)
    monkeypatch.setenv("REWARDLOOP_HOME", str(copy))
    report = command(capsys, audience, tmp_path / "sevens.csv")

    assert (tmp_path / "sevens.csv").read_bytes() == (tmp_path / "at_once.csv").read_bytes()
    assert (report["decided"], report["repeated"]) == (38, 2)


def test_a_dry_run_stores_and_writes_nothing(
    client: TestClient, home: Path, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run tells shares, holdout and rejects, and leaves nothing behind."""
    before = sorted(tmp_path.iterdir())
    report = command(capsys, audience, tmp_path / "sends.csv", "--dry-run")

    assert (report["dry_run"], report["rows"], report["decided"], report["rejected"]) == (True, 42, 38, 2)
    assert 0 < report["holdout"] < 40
    assert stored(home) == 0
    assert sorted(tmp_path.iterdir()) == before


def test_who_must_not_be_sent_anything_gets_nothing(
    client: TestClient, home: Path, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who unsubscribed gets no_send with the reason, no token and no link; who did so after the decision, too."""
    unsubscribed = {"event_id": "e1", "type": "unsubscribe", "unit": "u3", "occurred_at": "2026-11-20T00:00:00Z"}
    ok(client.post("/v1/events", json={"events": [unsubscribed]}))
    links = ("--link", "shop=https://shop.example.com/june")
    report = command(capsys, audience, tmp_path / "sends.csv", *links)
    row = next(row for row in rows_of(tmp_path / "sends.csv") if row["unit"] == "u3")

    assert (row["content_id"], row["reason"]) == ("no_send", "suppressed: unsubscribe")
    assert (row["token"], row["link.shop"]) == (None, None)
    assert report["nothing_because"] == {"suppressed: unsubscribe": 1}

    sent = next(row for row in rows_of(tmp_path / "sends.csv") if row["content_id"] != "no_send")
    ok(client.post("/v1/events", json={"events": [unsubscribed | {"event_id": "e2", "unit": sent["unit"]}]}))
    command(capsys, audience, tmp_path / "again.ndjson", "--resume", *links)
    for row in rows_of(tmp_path / "again.ndjson"):
        if row["unit"] in ("u3", sent["unit"]):
            assert (row["content_id"], row["reason"]) == ("no_send", "suppressed: unsubscribe")
            assert (row["token"], row["link.shop"]) == (None, None)


def test_capped_customers_without_a_way_out_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a cap is reached and the loop does not allow sending nothing, nothing is decided, and the row says so."""
    audience = tmp_path / "customers.csv"
    audience.write_text("unit\nu1\nu2\n")
    with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
        define(client, frequency=[{"most": 1, "window": "7d"}])
        rank(client, unit="u1")
        report = command(capsys, audience, tmp_path / "sends.ndjson", "--link", "s=https://shop.example.com/")
    rows = rows_of(tmp_path / "sends.ndjson")

    assert (report["decided"], report["refused"]) == (1, 1)
    assert (rows[0]["content_id"], rows[0]["decision_id"], rows[0]["link.s"]) == ("no_send", None, None)
    assert "frequency cap" in rows[0]["reason"]
    assert rows[1]["decision_id"] is not None


REFUSED: Sequence[tuple[Sequence[str], str]] = (
    (("--loop", "other"), "belongs to loop 'mail'"),
    (("--keep", "token"), "column 'token' of its own"),
    (("--keep", "surname"), "no column 'surname' to keep"),
    (("--keep", "name", "--keep", "name"), "once"),
    (("--unit", "mail"), "no column 'mail'"),
    (("--link", "shop"), "not NAME=ADDRESS"),
    (("--link", "shop=https://elsewhere.example.org/"), "not listed"),
    (("--output", "sends.xlsx"), "must end in"),
    (("--send", "a/b"), "cannot name a send"),
    (("--campaign", "july"), "No campaign 'july'"),
)


def test_what_cannot_be_sent_is_refused_before_anything_is_decided(
    client: TestClient, home: Path, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong name, address, ending or campaign is said in a sentence; nothing is stored, no file is left."""
    before = sorted(tmp_path.iterdir())
    for more, words in REFUSED:
        assert words in " ".join(command(capsys, audience, tmp_path / "sends.csv", *more, code=1).split())

    assert stored(home) == 0
    assert sorted(tmp_path.iterdir()) == before


def test_budgets_hold_within_a_send(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A content whose budget is used up in the middle of a send is sent no more, though no server counts meanwhile."""
    audience = tmp_path / "customers.csv"
    audience.write_text("unit\n" + "".join(f"u{n}\n" for n in range(1_000)))
    with running(f"sqlite:///{home / 'rewardloop.db'}", home, tick_seconds=60) as client:
        define(client, limits={"a": {"budget": 150}}, policy={"kind": "uniform"})
        report = command(capsys, audience, tmp_path / "sends.csv")

    assert report["decided"] == 1_000
    assert 150 <= report["contents"]["a"] <= 150 + deciding.LEAST


def test_a_name_belongs_to_one_campaign(
    client: TestClient, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A send's name that was used for another campaign of the loop is refused, also with --resume."""
    contents = [{"id": "x", "slots": {"subject": "X"}}]
    ok(client.post("/v1/campaigns", json={"campaign": "july", "loop": "mail", "contents": contents}))
    command(capsys, audience, tmp_path / "sends.csv")
    more = ("--campaign", "july", "--resume")

    assert "was decided for campaign 'june'" in command(capsys, audience, tmp_path / "july.csv", *more, code=1)
    assert not (tmp_path / "july.csv").exists()


def test_people_see_shares_and_rejects(
    client: TestClient, audience: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --json: shares per content, rows by what became of them, reasons with their first line."""
    given = ("rank-audience", "--campaign", "june", "--input", str(audience), "--send", "s1")
    assert cli.run([*given, "--output", str(tmp_path / "sends.csv")]) == 0
    said = capsys.readouterr().out

    for words in ("Send s1 of june", "share", "rejected", "the row names no customer", "in the holdout", "sends.csv"):
        assert words in said


@pytest.mark.stack
def test_a_killed_send_goes_on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment and started again until it ends: nobody is decided twice, and the output is the bytes that an
    undisturbed run writes."""
    with running(f"sqlite:///{home / 'rewardloop.db'}", home, tick_seconds=60) as client:
        define(client, holdout=0.2)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(home, undisturbed)
    monkeypatch.setattr(deciding, "CHUNK", 300)
    draw = random.Random(5)
    audience = tmp_path / "customers.ndjson"
    lines = [{"unit": f"u{draw.randrange(4_000)}", "age": draw.randrange(80)} for _ in range(5_000)]
    audience.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    decided_for(undisturbed, audience, tmp_path / "expected.csv")

    output, kills = tmp_path / "sends.csv", 0
    while not output.exists():
        process = multiprocessing.get_context("fork").Process(target=decided_for, args=(home, audience, output))
        process.start()
        floor = stored(home) + draw.randrange(1, 1_200)
        while process.is_alive() and (kills == 3 or stored(home) < floor):
            time.sleep(0.01)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()

    assert kills == 3
    assert output.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert stored(home) == len({line["unit"] for line in lines})
    assert not list(tmp_path.glob("*.part"))


def decided_for(home: Path, audience: Path, output: Path) -> None:
    """The send, decided in the process that asks for it."""
    settings = Settings(home=home)
    engine = open_database(settings.database)
    desk = deciding.Desk(engine, load_secrets(settings), settings, system_clock)
    deciding.decide(desk, deciding.Send("s1", "june", audience, output, resume=True), lambda *_: None)
    engine.dispose()
