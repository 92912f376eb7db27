"""The commands behind links: tokens and redirect links made offline, and labels on events."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from infra.database import open_database, reading
from infra.secrets import load_secrets
from infra.settings import load_settings
from infra.tables import event_labels
from ingestion.links import Link, read_link
from ingestion.tokens import TokenContent, read_token
from pipelines import cli
from pipelines.commands.workspace import FAILED, OK
from tests.pipelines.api import click, define, rank, running, send, trace

SHOP = "https://shop.example.com/sale"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an installation of its own."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REWARDLOOP_REDIRECT_HOSTS", '["shop.example.com"]')
    monkeypatch.setenv("REWARDLOOP_PUBLIC_URL", "https://go.example.com/")
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")
    return tmp_path / "home"


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = OK) -> str:
    """What a command says."""
    capsys.readouterr()
    assert cli.run(arguments) == code
    captured = capsys.readouterr()
    return (captured.out + captured.err).strip()


def test_a_token_is_made_and_shown_offline(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """A token made at the command line is the server's, and nothing but the secrets file is needed or made."""
    token = said(capsys, "token", "make", "mail-1", "--position", "2")
    shown = json.loads(said(capsys, "token", "show", token, "--json"))

    assert read_token(load_secrets(load_settings()), token) == TokenContent("mail-1", 2)
    assert shown == {"decision": "mail-1", "position": 2}
    assert [path.name for path in home.iterdir()] == ["secrets.json"]


def test_a_link_is_made_and_shown_offline(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """A redirect link made at the command line is one the server follows, at its public address."""
    link = said(capsys, "token", "link", "mail-1", SHOP)
    signed = link.removeprefix("https://go.example.com/r/")
    shown = said(capsys, "token", "show", link)

    assert read_link(load_secrets(load_settings()), signed, ["shop.example.com"]) == Link("mail-1", None, SHOP)
    assert shown.split() == ["decision", "mail-1", "position", "not", "named", "leads", "to", SHOP]
    assert [path.name for path in home.iterdir()] == ["secrets.json"]


def test_a_direct_link_carries_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the vendor counts the clicks itself, the address goes without our redirect, with the token in its query."""
    url, _, token = said(capsys, "token", "link", "mail-1", f"{SHOP}?x=1", "--direct").partition("&rl=")

    assert url == f"{SHOP}?x=1"
    assert read_token(load_secrets(load_settings()), token) == TokenContent("mail-1", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("token", "link", "mail-1", "https://evil.example/"), "is not listed; add it to REWARDLOOP_REDIRECT_HOSTS"),
        (("token", "show", "1.abc.def"), "was not signed by this installation or was changed"),
        (("token", "show", "https://go.example.com/r/1.abc.def"), "was not signed by this installation or was changed"),
        (("events", "label", "http", "nothing"), "No event 'nothing' of source 'http'"),
        (("events", "unlabel", "http", "nothing"), "No event 'nothing' of source 'http'"),
    ],
)
def test_a_mistake_is_a_sentence(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str) -> None:
    """What cannot be done is said, with what to do."""
    assert sentence in said(capsys, *arguments, code=FAILED)


def test_a_label_is_put_on_and_taken_back(
    capsys: pytest.CaptureFixture[str], sqlite_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A labelled click does not count until somebody takes the label back; both words are kept with their reasons."""
    monkeypatch.setenv("REWARDLOOP_DATABASE_URL", sqlite_url)
    found = []
    with running(sqlite_url, home) as client:
        define(client)
        rank(client, decision_id="d1")
        send(client, click("e1", decision_id="d1"))
        for command in ("label", "unlabel"):
            said(capsys, "events", command, "http", "e1", "--label", "test", "--reason", f"because {command}")
            found.append((trace(client, "d1")["events"][0]["reason"], len(trace(client, "d1")["outcomes"])))
    engine = open_database(sqlite_url)
    with reading(engine) as connection:
        words = connection.execute(select(event_labels).order_by(event_labels.c.labelled_at)).all()
    engine.dispose()

    assert found == [("labelled", 0), (None, 1)]
    assert [(word.label, word.applies, word.reason) for word in words] == [
        ("test", True, "cli: because label"),
        ("test", False, "cli: because unlabel"),
    ]


@pytest.mark.parametrize("decision_id", ["", "d" * 257, "d\udcff"], ids=["empty", "long", "not UTF-8"])
@pytest.mark.parametrize("command", [("make",), ("link", SHOP)], ids=lambda command: command[0])
def test_a_token_for_no_decision_is_refused(
    capsys: pytest.CaptureFixture[str], decision_id: str, command: tuple[str, ...]
) -> None:
    """What /v1/rank never answers as a decision's id gets neither token nor link."""
    name, *rest = command

    assert "text of 1 to 256 characters" in said(capsys, "token", name, decision_id, *rest, code=FAILED)


@pytest.mark.parametrize("text", ["1.abc\udcff.sig", "1.abc.\udcff", "https://go.example.com/r/1.a.\udcff"])
def test_a_garbled_token_is_not_ours(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Bytes that are no text are answered like any other token we did not sign."""
    assert "not signed by this installation" in said(capsys, "token", "show", text, code=FAILED)
