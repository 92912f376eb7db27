"""The command line: what it prints, its exit codes, and that errors are one sentence."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from sqlalchemy import Text, func, select, type_coerce

from infra import tables
from infra.database import open_database, writing
from infra.errors import Unavailable
from pipelines import cli
from pipelines.commands import workspace
from reward_models.automatic import ESTIMATORS
from tests.ingestion.importing import EXAMPLES, FIXTURES, real
from tests.pipelines.commands import run

CUSTOMERS = ("--mapping", str(EXAMPLES / "hillstrom.toml"), str(FIXTURES / "customers.csv"))
HEADLINES = ("--mapping", str(EXAMPLES / "upworthy.toml"), str(FIXTURES / "headlines.csv"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an installation of its own."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")
    return tmp_path / "home"


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON that a command prints."""
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def commands() -> list[tuple[str, Any]]:
    """Every command with its path."""
    found = []
    waiting = [("", typer.main.get_command(cli.app))]
    while waiting:
        path, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{path} {name}".strip(), child) for name, child in command.commands.items()]
        else:
            found.append((path, command))
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize(("path", "command"), commands(), ids=[path for path, _ in commands()])
def test_every_command_has_an_example(path: str, command: Any) -> None:
    """The help of every command shows how it is called."""
    assert f"Example: rewardloop {path}" in command.help


def test_a_second_import_is_all_duplicates(capsys: pytest.CaptureFixture[str]) -> None:
    """Importing again finds every row already there."""
    first = document(capsys, "import", *CUSTOMERS)
    second = document(capsys, "import", *CUSTOMERS)

    assert first["tally"] == {"applied": 120, "duplicate": 0, "ignored": 0, "quarantined": 0}
    assert second["tally"] == {"applied": 0, "duplicate": 120, "ignored": 0, "quarantined": 0}


def test_a_dry_run_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run prints counts and that nothing was stored."""
    code, printed, _ = run(capsys, "import", "--dry-run", *HEADLINES)

    assert code == 0
    assert "Nothing was stored." in printed
    assert document(capsys, "loops", "list") == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("train", "nope"), 1, "No loop 'nope'"),
        (("import", "--mapping", "missing.toml", "x.csv"), 1, "The mapping missing.toml cannot be read"),
        (("import", "--mapping", str(EXAMPLES / "upworthy.toml"), CUSTOMERS[2]), 1, "Columns found: recency"),
        (("quarantine", "show", "7"), 1, "No quarantined record 7"),
        (("kill", "nope"), 1, "No loop 'nope'"),
        (("import",), 2, "Missing"),
        (("fly",), 2, "No such command"),
    ],
)
def test_an_error_is_a_sentence_and_a_code(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """What goes wrong is said on stderr, without a traceback, and the exit code tells its kind."""
    found, printed, complaint = run(capsys, *arguments)

    assert found == code
    assert sentence in complaint
    assert "Traceback" not in printed + complaint


def test_a_bad_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting stops the start with its name and value."""
    monkeypatch.setenv("REWARDLOOP_PORT", "many")

    code, _, complaint = run(capsys, "doctor")
    assert code == 1
    assert "REWARDLOOP_PORT='many'" in complaint


def test_a_dependency_that_is_down(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not answer is exit code 4: trying again may help."""

    def away(_: str) -> None:
        raise Unavailable("The database does not answer: connection refused")

    monkeypatch.setattr(workspace, "open_database", away)

    assert run(capsys, "doctor")[0] == 4


def test_a_mistake_of_ours_is_a_sentence_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is one sentence, and says how to see more."""

    def broken(_: str) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(workspace, "open_database", broken)
    code, _, complaint = run(capsys, "doctor")

    assert code == 1
    assert "Unexpected ZeroDivisionError" in complaint
    assert "Traceback" not in complaint


def test_the_kill_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """A killed loop is seen by the check-up until it is let go."""
    document(capsys, "import", *CUSTOMERS)
    run(capsys, "kill", "hillstrom", "--reason", "wrong prices")
    killed = {check["check"]: check["found"] for check in document(capsys, "doctor")}["kill switch"]
    run(capsys, "unkill", "hillstrom")
    free = {check["check"]: check["found"] for check in document(capsys, "doctor")}["kill switch"]

    assert (killed, free) == ("hillstrom", "no loop is killed")


def test_loops_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A loop is listed with what it holds, and shown as it is defined."""
    document(capsys, "import", *HEADLINES)
    (line,) = document(capsys, "loops", "list")
    _, printed, _ = run(capsys, "loops", "show", "upworthy")

    assert (line["loop"], line["campaigns"], line["past results"]) == ("upworthy", 24, 89)
    assert json.loads(printed)["reward"] == {"click": 1.0}


def test_quarantined_rows_are_seen_and_dropped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A rejected row is listed with its reason, shown with its bytes, refused by a replay, and given up on demand."""
    lines = (FIXTURES / "headlines.csv").read_text().splitlines()
    broken = lines[1].replace(",2863,", ",many,")
    (tmp_path / "broken.csv").write_text("\n".join([lines[0], broken]))
    document(capsys, "import", *HEADLINES[:2], str(tmp_path / "broken.csv"))
    (record,) = document(capsys, "quarantine", "list")
    shown = document(capsys, "quarantine", "show", str(record["id"]))
    replayed, printed, _ = run(capsys, "quarantine", "replay", str(record["id"]))
    run(capsys, "quarantine", "drop", str(record["id"]))

    assert record["reason"] == "impressions is 'many', no number"
    assert shown["raw"] == broken
    assert (replayed, "mended in its file" in printed) == (1, True)
    assert document(capsys, "quarantine", "list") == []


def test_bytes_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Control characters in a quarantined record do nothing to the terminal; `--json` has them all."""
    (tmp_path / "bad.json").write_bytes(b"{\x1b[2J not json")
    document(capsys, "import", "--format", "sendgrid", str(tmp_path / "bad.json"))
    (record,) = document(capsys, "quarantine", "list")
    _, printed, _ = run(capsys, "quarantine", "show", str(record["id"]))

    assert "{\ufffd[2J not json" in printed
    assert "\x1b" not in printed
    assert document(capsys, "quarantine", "show", str(record["id"]))["raw"] == "{\x1b[2J not json"


def test_tables_show_what_others_sent_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Brackets and control characters in a vendor's words are neither markup nor commands for the terminal."""
    (tmp_path / "one.json").write_text(json.dumps([{"event": "[/b] [red]x"}, {"event": "click", "timestamp": 1}]))
    code, printed, _ = run(capsys, "import", "--format", "sendgrid", "--dry-run", str(tmp_path / "one.json"))
    workspace.print_table("[/b]", ["a"], [["\x1b[31mred[/red]"]])

    assert (code, "[/b] [red]x" in printed) == (0, True)
    assert "\ufffd[31mred[/red]" in capsys.readouterr().out


def test_train_and_score(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A trained version scores candidate texts and says why; training again on the same data is the same version."""
    document(capsys, "import", *HEADLINES)
    trained = [document(capsys, "train", "upworthy")["version"] for _ in range(2)]
    (tmp_path / "in.csv").write_text("campaign,headline\nnew,Surprise: a garden\nnew,a garden\ntest-00,=1+1\n")
    document(capsys, "score", "upworthy", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv"), "--why")
    with (tmp_path / "out.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))

    texts = ("--text", "a garden", "--text", "Surprise: a garden", "--why")
    compared = document(capsys, "score", "upworthy", *texts)["scores"]
    code, printed, told = run(capsys, "score", "upworthy", *texts)

    assert code == 0, told
    assert trained == ["upworthy-1", "upworthy-1"]
    assert [one["rank"] for one in compared] == [2, 1]
    assert f"{compared[1]['expected']:.6g}" == rows[0]["expected_reward"]
    assert printed.index("Surprise") < printed.index("a garden")
    assert [row["rank"] for row in rows] == ["1", "2", "1"]
    assert float(rows[0]["expected_reward"]) > float(rows[1]["expected_reward"]) > 0
    assert rows[2]["headline"] == "'=1+1"
    assert " %" in rows[0]["why"]


def test_scoring_needs_a_model_and_the_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a model, or without a column, scoring says what is missing and writes nothing."""
    document(capsys, "import", *HEADLINES)
    (tmp_path / "in.csv").write_text("campaign,title\nnew,a\n")
    score = ("score", "upworthy", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv"))
    untrained = run(capsys, *score)
    document(capsys, "train", "upworthy")
    wrong = run(capsys, *score)
    both = run(capsys, *score, "--text", "a")

    assert (both[0], "either a file with --out" in both[2]) == (1, True)
    assert (untrained[0], "train one with: rewardloop train upworthy" in untrained[2]) == (1, True)
    assert (wrong[0], "no column 'headline'" in wrong[2]) == (1, True)
    assert not (tmp_path / "out.csv").exists()


def test_evaluate_decisions(capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions with known probabilities: log health, arms, every estimate and a verdict, with invented times named."""
    document(capsys, "import", *CUSTOMERS)
    found = document(capsys, "evaluate", "hillstrom", "--metric", "visit")
    with (FIXTURES / "customers.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    visits = [int(row["visit"]) for row in rows if row["segment"] == "Mens E-Mail"]
    arms = {arm["content_id"]: arm for arm in found["decisions"]["arms"]}

    assert found["times"] == "invented"
    assert arms["hillstrom-mens"]["n"] == len(visits)
    assert arms["hillstrom-mens"]["means"]["visit"] == pytest.approx(sum(visits) / len(visits))
    assert [value["name"] for value in found["decisions"]["metrics"][0]["values"]] == list(ESTIMATORS)
    assert found["decisions"]["metrics"][0]["chosen"] == "automatic"
    assert "automatic (chosen)" in run(capsys, "evaluate", "hillstrom", "--metric", "visit")[1]
    assert found["decisions"]["metrics"][0]["verdict"]["state"] in ("failed", "refused")
    assert (found["health"]["decisions"], found["health"]["refused"]) == (120, None)


def test_health_comes_before_any_number(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """A log with wrong probabilities: `health` says so with exit code 3, and `evaluate` makes no number of it."""
    document(capsys, "import", *CUSTOMERS)
    healthy = document(capsys, "health", "hillstrom")
    engine = open_database(f"sqlite:///{home / 'rewardloop.db'}")
    with writing(engine) as connection:
        candidates = tables.decisions.c.candidates
        wrong = func.replace(type_coerce(candidates, Text), '"behaviour_p":0.3', '"behaviour_p":0.4')
        connection.execute(tables.decisions.update().values(candidates=type_coerce(wrong, candidates.type)))
    engine.dispose()
    code, printed, _ = run(capsys, "health", "hillstrom")
    evaluated, numbers, reason = run(capsys, "evaluate", "hillstrom", "--metric", "visit")

    assert (healthy["refused"], sum(content["decisions"] for content in healthy["contents"])) == (None, 120)
    assert (code, "The log is not healthy: 120 of 120 decisions have probabilities" in printed) == (3, True)
    assert (evaluated, "DR" in numbers, "The log is not healthy" in reason) == (1, False, True)


def test_evaluate_lists(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """Lists of two are valued when a reader is named, with the model of the reader said; else the command says how."""
    document(capsys, "import", *CUSTOMERS)
    engine = open_database(f"sqlite:///{home / 'rewardloop.db'}")
    with writing(engine) as connection:
        c = tables.decisions.c
        for row in connection.execute(select(c.decision_id, c.candidates, c.chosen)).all():
            top = row.chosen[0] | {"position": 1}
            rest = [one for one in row.candidates if one["content_id"] != top["content_id"]]
            chance = rest[0]["behaviour_p"] / sum(one["behaviour_p"] for one in rest)
            below = {"position": 2, "content_id": rest[0]["content_id"], "propensity": chance}
            connection.execute(
                tables.decisions.update().where(c.decision_id == row.decision_id).values(chosen=[top, below])
            )
    engine.dispose()
    found = document(capsys, "evaluate", "hillstrom", "--metric", "visit", "--reader", "independent")["lists"]
    code, printed, _ = run(capsys, "evaluate", "hillstrom", "--metric", "visit", "--reader", "cascade")
    unnamed = run(capsys, "evaluate", "hillstrom", "--metric", "visit")[1]

    assert (found["reader"], found["positions"], found["lists"] + found["left_out"]) == ("independent", 2, 120)
    assert found["metrics"][0]["values"]["what ran"]["n"] > 0
    assert (code, "readers go from top to bottom" in printed, "what ran" in printed) == (0, True, True)
    assert "--reader standard, cascade, independent" in unnamed


def test_evaluate_results(capsys: pytest.CaptureFixture[str]) -> None:
    """Past results: how held-out campaigns are ranked, with the untrusted rows left out."""
    document(capsys, "import", *HEADLINES)
    found = document(capsys, "evaluate", "upworthy")["ranking"]
    with (FIXTURES / "headlines.csv").open(newline="") as lines:
        untrusted = sum(row["randomization_risk_week"] == "1" for row in csv.DictReader(lines))

    assert (found["rows"], found["untrusted"], found["campaigns"]) == (89, untrusted, 20)
    assert 0 <= found["pick_best"]["low"] <= found["pick_best"]["value"] <= found["pick_best"]["high"] <= 1


@pytest.mark.data
@pytest.mark.slow
def test_evaluate_the_real_customers(capsys: pytest.CaptureFixture[str]) -> None:
    """On the Hillstrom experiment the arms are the published ones and nothing beats the men's e-mail for visits."""
    document(capsys, "import", "--mapping", CUSTOMERS[1], str(real("hillstrom/hillstrom.csv")))
    code, printed, _ = run(capsys, "evaluate", "hillstrom", "--metric", "visit")

    assert code == 0
    for figure in ("21,307", "18.276 %", "1.253 %", "1.4226", "21,387", "15.140 %", "0.884 %", "1.0772"):
        assert figure in printed
    for figure in ("21,306", "10.617 %", "0.573 %", "0.6528"):
        assert figure in printed
    assert re.search(
        r"visit: not promoted. Choosing by customer (does not beat|is clearly worse than) hillstrom-mens", printed
    )
    assert "On this data nothing beats the best single arm." in printed
    assert "Event times were invented" in printed
