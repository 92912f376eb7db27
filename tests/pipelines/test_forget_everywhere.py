"""The canary: a customer goes every way into an installation, is forgotten, and is looked for everywhere."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from infra import tables
from infra.clock import format_time, system_clock
from infra.database import open_database, reading
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings
from ingestion.http.access import scope_of
from ingestion.http.redirects import click_of
from ingestion.ledger import conservation
from ingestion.links import Link
from ingestion.people.erasing import erase
from ingestion.people.mentions import Mentions
from ingestion.spool import Spool
from pipelines import cli
from pipelines.audiences.deciding import Desk
from pipelines.audiences.folders import Folder
from tests.pipelines.api import click, define, ok, rank, running, send
from tests.pipelines.sends import decided_at_once
from tests.pipelines.test_app import wait_for

CANARY = "canary-4711"
NEIGHBOUR = "canary-47110"
KEPT = {"forgotten_units", "suppressions"}


@pytest.fixture
def settings(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with everything below one folder."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated_file, home / "rewardloop.db")
    monkeypatch.setenv("REWARDLOOP_HOME", str(home))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")
    found = Settings(home=home)
    load_secrets(found)
    stored = json.loads(found.secrets_path.read_text())
    found.secrets_path.write_text(json.dumps(stored | {"webhooks": {"native": {"unsigned": True}}}))
    return found


@pytest.fixture
def made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same after a day of everything for two customers whose ids begin alike."""
    desk = Desk(open_database(settings.database), load_secrets(settings), settings, system_clock)
    decided_at_once(monkeypatch, desk)
    with running(settings.database, settings.home) as client:
        define(client)
        decided = {who: drive(client, who) for who in (CANARY, NEIGHBOUR)}
    desk.engine.dispose()
    spool = Spool(settings.spool, 1_000_000)
    for decision_id in decided.values():
        clicked = click_of(Link(decision_id, None, "https://shop.example.com/"), "GET", {}, system_clock())
        spool.append(json.dumps({"event": {"decision_id": clicked.event.decision_id}, "labels": []}).encode())
    spool.close()
    exports = settings.home / "exports"
    exports.mkdir()
    rows = {"customer": [CANARY, NEIGHBOUR], "age": [30, 31]}
    pyarrow.parquet.write_table(pyarrow.table(rows), exports / "audience.parquet")
    (exports / "sent.csv").write_text(f'customer,note\n{CANARY},"two\nlines"\n{NEIGHBOUR},"two\n{NEIGHBOUR} lines"\n')
    (settings.home / "logs").mkdir(exist_ok=True)
    (settings.home / "logs" / "other.log").write_text(f"asked for {CANARY} once\nasked for {NEIGHBOUR} once\n")
    return settings


def drive(client: TestClient, who: str) -> str:
    """Decisions, events, a vendor, quarantine, feedback and a send for a customer; returns a decision's id."""
    decided = rank(client, unit=who, context={"age": 3}, decision_id=f"mail/{who}")
    named = {"token": decided["token"]}
    money = {"type": "purchase", "value": 5, "currency": "EUR", "order_id": f"order-{who}"}
    now = {"occurred_at": format_time(system_clock())}
    send(
        client,
        click(f"{who}-1", unit=who),
        click(f"{who}-2", **named),
        {"event_id": f"{who}-3", **money, **now, **named},
    )
    send(client, click(f"{who}-4", unit=who, occurred_at=who), click(f"{who}-1", decision_id="another"))
    ok(client.post("/v1/webhooks/native", json={"events": [click(f"{who}-5", unit=who), {"unit": who}]}))
    said = {
        "kind": "comment",
        "source": "HUMAN",
        "decision_id": decided["decision_id"],
        "value": {"text": f"{who}: ok"},
    }
    ok(client.post("/v1/feedback", json=said))
    ok(client.put("/v1/suppressions", json={"units": [who], "loop": "mail", "reason": "asked"}))
    letters = f"/v1/loops/mail/sends/to-{len(who)}"
    ok(client.put(letters, json={"campaign": "june", "format": "csv"}))
    recipients = [
        {"unit": who, "context": {"age": 3}},
        {"unit": "somebody", "context": {"age": 4}},
        {"unit": "", "x": who},
    ]
    ok(client.put(f"{letters}/parts/0", json={"recipients": recipients}))
    ok(client.post(f"{letters}/start"))
    return str(decided["decision_id"])


def found_in(settings: Settings, words: list[str]) -> tuple[set[str], set[str]]:
    """Tables and files in which one of the words stands by itself, encrypted bytes decrypted by nobody."""
    engine = open_database(settings.database)
    look = Mentions(load_secrets(settings), words, (), ())
    held = set()
    with reading(engine) as connection:
        for table in tables.metadata.sorted_tables:
            text = json.dumps([list(row) for row in connection.execute(select(table))], default=repr)
            held |= {table.name} if look.named(text.encode()) else set()
    engine.dispose()
    files = {path.name for path in settings.home.rglob("*") if path.is_file() and look.named(path.read_bytes())}
    return held, files


def test_a_forgotten_customer_is_nowhere(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """No table and no file of the data folder names the customer in clear, and the hash stands where it is needed to keep
    the customer out; the other customer's rows are all there, and the ledger is whole."""
    secrets = load_secrets(made)
    gone, there = [CANARY, secrets.unit(CANARY)], [NEIGHBOUR, secrets.unit(NEIGHBOUR)]
    before = found_in(made, there)
    assert {"decisions", "events", "outcomes", "feedback", "quarantine"} <= found_in(made, gone)[0]
    assert {"part-00000.ndjson", "result.csv", "sent.csv", "other.log"} <= found_in(made, gone)[1]

    assert cli.run(["forget", "--user", CANARY, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)

    assert found_in(made, [CANARY]) == (set(), set())
    assert found_in(made, gone) == (KEPT, {"rewardloop.db"})
    assert found_in(made, there) == before
    assert (done["decisions"], done["feedback"], done["files"], done["left"]) == (2, 1, 7, {})
    assert pyarrow.parquet.read_table(made.home / "exports" / "audience.parquet")["customer"].to_pylist() == [NEIGHBOUR]
    assert (made.home / "exports" / "sent.csv").read_text() == f'customer,note\n{NEIGHBOUR},"two\n{NEIGHBOUR} lines"\n'
    engine = open_database(made.database)
    assert conservation(engine) == 0
    engine.dispose()
    assert cli.run(["forget", "--user", CANARY]) == 0
    assert "0 decisions, 0 events, 0 quarantined records, 0 pieces of feedback and 0 rows" in capsys.readouterr().out


def test_nobody_comes_back(made: Settings) -> None:
    """Whoever was forgotten is answered `no_send` and kept nowhere: not by a choice, an event, or a click on an old link."""
    secrets = load_secrets(made)
    with running(made.database, made.home) as client:
        assert ok(client.post("/v1/forget", json={"units": [CANARY]}))["decisions"] == 2
        wait_for(lambda: ok(client.post("/v1/forget", json={"units": [CANARY]}))["left"] == 0)  # files may be in use
        answer = rank(client, unit=CANARY)
        late = send(client, click("late-1", unit=CANARY), click("late-2", decision_id=f"mail/{CANARY}"))

        assert [one["content_id"] for one in answer["ranked"]] == ["no_send"]
        assert (late["accepted"], late["pending"], late["rejected"]) == (0, 0, [])
        engine = open_database(made.database)
        wait_for(lambda: "decisions" not in found_in(made, [CANARY, secrets.unit(CANARY)])[0])
        assert found_in(made, [CANARY, secrets.unit(CANARY)])[0] == KEPT
        assert conservation(engine) == 0
        engine.dispose()


def test_only_an_admin_may_forget() -> None:
    """The call needs the highest scope."""
    assert scope_of("POST", "/v1/forget") == "admin"


@pytest.mark.parametrize(("name", "text"), [("model.txt", "canary-4711"), ("note.md", "for canary-4711")])
def test_what_cannot_be_mended_is_named(tmp_path: Path, secrets: Secrets, name: str, text: str) -> None:
    """A file that rows cannot be taken out of stays as it is, and is reported."""
    (tmp_path / name).write_text(text)
    found = erase(Mentions(secrets, [CANARY], (), ()), tmp_path, (), dry_run=False)

    assert found.left.keys() == {str(tmp_path / name)}
    assert (tmp_path / name).read_text() == text


def test_a_dry_run_changes_no_file(tmp_path: Path, secrets: Secrets) -> None:
    """It counts what it would take out, also outside the data folder where that is asked for."""
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text(f"customer\n{CANARY}\nann\n")
    plan = erase(Mentions(secrets, [CANARY], (), ()), tmp_path / "home", [elsewhere], dry_run=True)
    assert (plan.rows, elsewhere.read_text()) == (1, f"customer\n{CANARY}\nann\n")

    done = erase(Mentions(secrets, [CANARY], (), ()), tmp_path / "home", [elsewhere], dry_run=False)
    assert (done.rows, elsewhere.read_text()) == (1, "customer\nann\n")


def test_a_send_under_way_is_left(tmp_path: Path, secrets: Secrets) -> None:
    """Its files are being written; the next try takes the rows."""
    folder = tmp_path / "sends" / "one"
    folder.mkdir(parents=True)
    (folder / "part-00000.ndjson").write_text(f'{{"unit":"{CANARY}"}}\n')
    look = Mentions(secrets, [CANARY], (), ())
    with Folder(folder).held():
        assert "in use" in next(iter(erase(look, tmp_path, (), dry_run=False).left.values()))
    assert erase(look, tmp_path, (), dry_run=False).rows == 1
