"""Marketers' choices from the API to a model that serves: what is accepted, what is learned, who may let it serve."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from infra.database import open_database, reading
from infra.settings import Settings
from pipelines.cli import run
from pipelines.simulator import draw_customers, true_values
from reward_models import registry
from reward_models.demonstrations.choices import load_demonstrations
from tests.pipelines.api import LOOP, ok, running
from tests.reward_models.demonstrations.worlds import WORLD, by_worth, copy_of


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server on an empty database, which the command line finds too."""
    monkeypatch.setenv("REWARDLOOP_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    with running(sqlite_url, tmp_path) as client:
        yield client


def define(client: TestClient, count: int = 16, **changes: Any) -> list[str]:
    """The loop ``mail`` with one campaign of contents with factors."""
    ok(client.put("/v1/loops/mail", json=LOOP | changes))
    contents = copy_of(np.random.default_rng(0), count)
    bodies = [
        {"id": one.content_id, "slots": {"subject": "A line"}, "features": dict(one.features)} for one in contents
    ]
    ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "contents": bodies}))
    return [one.content_id for one in contents]


def choose(client: TestClient, count: int, seed: int = 1) -> None:
    """Choices of marketers who know what copy is worth."""
    rng = np.random.default_rng(seed)
    for one in by_worth(rng, copy_of(np.random.default_rng(0), 16), count, sharpness=2.0):
        names = [content.content_id for content in one.candidates]
        value = {"candidates": names, "chosen": names[one.chosen], "context": one.context}
        body = {"kind": "demonstration", "loop": "mail", "annotator": one.by, "value": value}
        ok(client.post("/v1/feedback", json=body))


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        ({"chosen": 0, "candidates": [0, 1]}, 201, ""),
        ({"slots": {"subject": "Mine"}}, 201, ""),
        ({"text": "nice"}, 422, "needs 'slots'"),
        ({"chosen": 0}, 422, "list of content ids"),
        ({"chosen": 0, "candidates": [0]}, 422, "2 to 500"),
        ({"chosen": 0, "candidates": [0, 0]}, 422, "each named once"),
        ({"chosen": 2, "candidates": [0, 1]}, 422, "one of the candidates"),
        ({"chosen": 0, "candidates": [0, 99]}, 404, "No content"),
        ({"chosen": 0, "candidates": [0, 1], "context": {"a": [1]}}, 422, "'context' must be"),
    ],
)
def test_what_a_demonstration_holds(client: TestClient, value: dict[str, Any], status: int, said: str) -> None:
    """A demonstration is copy that was written or a choice among registered contents; anything else is refused in a
    sentence that says what to do."""
    names = {**dict(enumerate(define(client, 3))), 99: "nobody"}
    named = {
        key: names[given]
        if isinstance(given, int)
        else [names[each] for each in given]
        if key == "candidates"
        else given
        for key, given in value.items()
    }
    answer = client.post("/v1/feedback", json={"kind": "demonstration", "loop": "mail", "value": named})

    assert answer.status_code in (200, 201) if status == 201 else answer.status_code == status
    assert said in answer.text


def test_a_choice_names_its_loop(client: TestClient) -> None:
    """Without its loop, or in a loop that its contents are not of, a choice is refused."""
    names = define(client, 3)
    ok(client.put("/v1/loops/push", json=LOOP))
    value = {"chosen": names[0], "candidates": names}

    assert "made in" in client.post("/v1/feedback", json={"kind": "demonstration", "value": value}).text
    other = client.post("/v1/feedback", json={"kind": "demonstration", "loop": "push", "value": value})
    assert "one campaign of loop 'push'" in other.text


def test_choices_start_a_loop(
    client: TestClient, sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop without outcomes learns from choices: the model serves on a person's word, the audit says so, and copy that
    is worth more to a customer is chosen far more often than by chance. It cannot be done twice."""
    define(client, holdout=0.1)
    choose(client, 150)
    assert run(["demonstrations", "fit", "mail", "--usual", "0.1", "--serve", "--actor", "ada", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert run(["demonstrations", "fit", "mail", "--serve"]) == 1

    engine = open_database(sqlite_url)
    with reading(engine) as connection:
        serving = registry.champion(connection, "mail")
        version = registry.version_of(connection, "mail", report["version"])
        stored = load_demonstrations(connection, "mail")
    assert serving is not None
    assert serving.version == version.version
    sentence = (version.gate or {})["sentence"]
    assert sentence == "learned from 150 choices of marketers; no outcome has judged it, ada let it serve"
    assert (report["by outcomes"], report["share of choices in what is learned"]) == ("unjudged", 1.0)
    assert len(stored) == 150
    folder = registry.path_of(Settings(home=tmp_path).bundles, "mail", version.version)
    model = registry.load_verified(folder, version.digest)
    contents = copy_of(np.random.default_rng(0), 16)
    customers = draw_customers(WORLD, np.random.default_rng(9), 200)
    truth = true_values(WORLD, customers, [one.features for one in contents]).click
    picked = model.grid([one.context for one in customers], contents).argmax(axis=1)
    assert truth[np.arange(200), picked].mean() > 1.3 * truth.mean()


def test_nobody_held_out_nothing_served(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Choices do not let a model serve in a loop where nobody could see whether it helps."""
    define(client, holdout=0)
    choose(client, 30)

    assert run(["demonstrations", "fit", "mail", "--serve"]) == 1
    assert "holds nobody out" in capsys.readouterr().err


def test_choices_are_shown(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says how well choices are foretold and what each feature is worth, for the customers asked for; too
    few choices and a context that cannot be read are refused."""
    define(client)
    assert run(["demonstrations", "show", "mail"]) == 1
    choose(client, 150)
    capsys.readouterr()
    assert run(["demonstrations", "show", "mail", "--context", '{"tier": "gold"}', "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    worth = {weight["name"]: weight["weight"] for weight in report["weights"]}

    assert report["agreement"] > report["agreement by chance"] + 0.1
    assert worth["personal"] > 0 > worth["discount"]
    assert run(["demonstrations", "show", "mail", "--context", "gold"]) == 1
    assert run(["demonstrations", "show", "mail"]) == 0
    assert "2.7 times as likely" in capsys.readouterr().out


def test_choices_come_in_by_file(
    client: TestClient, tmp_path: Path, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row is one choice, with whose it is and for whom, as JSON or in columns; the same row again changes nothing; a bad
    row is named, with its number and what to do."""
    first, second, third = define(client, 3)
    path = tmp_path / "chosen.csv"
    path.write_text(
        "chosen,candidates,annotator,context,context.tier,context.days\n"
        f'{first},{first} | {second},ann,"{{""device"": ""mobile""}}",gold,30\n'
        f"{third},{first}|{second}|{third},bob,,,\n"
    )
    for new in (2, 0):
        assert run(["demonstrations", "import", str(path), "--loop", "mail", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"rows": 2, "new": new, "already there": 2 - new}
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, f"{second},{first}|{second},cem,,,", *rows]))
    assert run(["demonstrations", "import", str(path), "--loop", "mail", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 3, "new": 1, "already there": 2}
    with reading(open_database(sqlite_url)) as connection:
        shown = {one.by: one for one in load_demonstrations(connection, "mail")}

    assert shown["ann"].context == {"device": "mobile", "tier": "gold", "days": 30.0}
    assert (shown["ann"].chosen, shown["bob"].chosen, len(shown["bob"].candidates), shown["bob"].context) == (
        0,
        2,
        3,
        {},
    )
    for text, said in (
        (f"chosen,candidates\n{first},{second}|{third}\n", "row 1: "),
        (f"chosen,candidates,context\n{first},{first}|{second},gold\n", "row 1: The column context is JSON"),
        ("winner,loser\na,b\n", "no column 'chosen'"),
    ):
        path.write_text(text)
        assert run(["demonstrations", "import", str(path), "--loop", "mail"]) == 1
        assert said in " ".join(capsys.readouterr().err.split())
