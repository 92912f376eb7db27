"""Judges from the command line: ratings stored once and never as outcomes, a judge that misleads found out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from infra import tables
from infra.database import open_database, reading
from ingestion.events import Content
from pipelines.cli import run
from pipelines.generation.judge import COPY
from reward_models.features import build_schema, content_rows
from reward_models.judging.ratings import load_ratings
from tests.pipelines.api import LOOP, ok, running
from tests.stack.stub_llm import Call, Reply, Say, StubLLM

ITEMS = 60
MAPPING = """
kind = "results"
import = "past"
[loop]
loop = "mail"
reward = { click = 1.0 }
metrics = [{ name = "click", event = "click" }]
[results]
campaign = "campaign"
content = "content"
slots = { subject = "subject" }
exposures = "exposures"
metrics = { click = "click" }
"""


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server on an empty database, which the command line finds too."""
    monkeypatch.setenv("REWARDLOOP_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    with running(sqlite_url, tmp_path) as client:
        yield client


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubLLM]:
    """A judge to ask."""
    with StubLLM() as stub:
        monkeypatch.setenv("REWARDLOOP_GENERATOR_URL", stub.url)
        monkeypatch.setenv("REWARDLOOP_GENERATOR_MODEL", "stub-1")
        yield stub


def define(client: TestClient, count: int = 6) -> None:
    """The loop ``mail`` with one campaign; content k says ``quality k``."""
    ok(client.put("/v1/loops/mail", json=LOOP))
    contents = [
        {"id": f"c{place}", "slots": {"subject": f"quality {place}"}, "generator": f"g{place % 2}"}
        for place in range(count)
    ]
    ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "brief": "Sale", "contents": contents}))


def rating(call: Call) -> Reply:
    """A judge who rates content k with 1 + k mod 5, and breaks its answer for content 3."""
    mark, data, _ = call.last.split("\n")
    number = int(json.loads(data)["copy"]["subject"].split()[-1])
    scores = dict.fromkeys([criterion.name for criterion in COPY.criteria], 9 if number == 3 else 1 + number % 5)
    return Say(json.dumps({"mark": mark, "scores": scores, "reason": "so it is"}))


def test_ratings_are_feedback(
    client: TestClient, stub: StubLLM, sqlite_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Each content is rated once by each judge, an answer off the scale is counted and not stored, and nothing of it is an
    outcome; a second run asks only for what is missing."""
    monkeypatch.setenv("REWARDLOOP_GENERATOR_RETRIES", "1")
    define(client)
    stub.reply = rating
    assert run(["judges", "run", "mail", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["judges", "run", "mail", "--campaign", "june", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    with reading(open_database(sqlite_url)) as connection:
        stored = connection.execute(select(tables.feedback)).all()
        outcomes = connection.scalar(select(func.count()).select_from(tables.outcomes))
        ratings = load_ratings(connection, "mail")

    assert (first["rated"], first["not rated"], first["asked again"]) == (5, {"malformed": 1}, 1)
    assert again["rated"] == 0
    assert {row.source for row in stored} == {"LLM_JUDGE"}
    assert outcomes == 0
    assert {name: one.rating for name, one in ratings[COPY.by("stub-1")].items()} == {
        "c0": 1.0,
        "c1": 2.0,
        "c2": 3.0,
        "c4": 5.0,
        "c5": 1.0,
    }


def test_without_a_judge(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server to ask, without ratings or with an unknown campaign the command says what to do."""
    define(client, 2)
    assert run(["judges", "run", "mail"]) == 1
    assert "REWARDLOOP_GENERATOR_URL" in capsys.readouterr().err
    assert run(["judges", "calibrate", "mail"]) == 1
    assert "No judge has rated" in capsys.readouterr().err


@pytest.mark.parametrize(("sign", "state", "code"), [(1, "trusted", 0), (-1, "misleading", 3)])
def test_a_judge_meets_money(
    client: TestClient, capsys: pytest.CaptureFixture[str], tmp_path: Path, sign: int, state: str, code: int
) -> None:
    """Ratings that come over the API are held against past results: a good judge is trusted, one that says the contrary
    misleads, loses all weight and ends the command with exit code 3."""
    rng = np.random.default_rng(1)
    lines = ["campaign,content,subject,exposures,click"]
    worth = {f"k{place}": float(rng.standard_normal()) for place in range(ITEMS)}
    for place, (name, value) in enumerate(worth.items()):
        clicks = rng.binomial(4_000, 0.05 * np.exp(0.25 * value))
        lines.append(f"test-{place % 6},{name},Line {name},4000,{clicks}")
    (tmp_path / "past.csv").write_text("\n".join(lines))
    (tmp_path / "past.toml").write_text(MAPPING)
    assert run(["import", "--mapping", str(tmp_path / "past.toml"), str(tmp_path / "past.csv")]) == 0
    for name, value in worth.items():
        said = {"rating": 3 + sign * value + float(rng.normal(0, 0.5)), "judge": "critic"}
        body = {"kind": "rating", "source": "LLM_JUDGE", "loop": "mail", "content_id": name, "value": said}
        ok(client.post("/v1/feedback", json=body))
    capsys.readouterr()

    assert run(["judges", "calibrate", "mail", "--by", "campaign_id", "--json"]) == code
    found = json.loads(capsys.readouterr().out)["judges"]["critic"]
    assert found["state"] == state
    assert (found["weight"] == 0.0) == (sign < 0)
    assert set(found["groups"]) == {f"test-{number}" for number in range(6)}
    assert run(["judges", "calibrate", "mail"]) == code
    assert state in capsys.readouterr().out


def test_a_rating_is_a_feature_if_it_was_there_before() -> None:
    """A rating that a content was registered with is a column of the model, empty for copy without one; a rating that came as
    feedback is none."""
    rated = Content(content_id="a", campaign_id="june", slots={"subject": "Hi"}, features={"judge_brand": 4.25})
    later = Content(content_id="b", campaign_id="june", slots={"subject": "Ho"})
    schema = build_schema([{}], [rated, later])
    place = [column.name for column in schema.content].index("content.judge_brand")
    rows = content_rows(schema, [rated, later], np.zeros(2))

    assert rows[0, place] == 4.25
    assert np.isnan(rows[1, place])
