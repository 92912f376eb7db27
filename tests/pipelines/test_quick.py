"""The quick way through POST /v1/rank, against the long one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from reward_models.serving import routes
from tests.pipelines.api import define, ok, rank, refused, running

LONG = {"explain": False}
"""Said aloud, it changes no answer, and takes the long way."""


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The API with a loop and two contents."""
    with running(sqlite_url, tmp_path / "home") as client:
        define(client, holdout=0.3)
        yield client


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"unit": "jane", "context": {"age": 31, "tier": "gold", "new": True, "spent": 2.5, "unknown": None}},
        {"candidates": ["b", "a"], "slots": 2},
        {"candidates": ["a", "nobody"], "excluded": ["b"], "defer_activation": True},
    ],
)
def test_both_ways_give_one_answer(client: TestClient, question: dict[str, Any]) -> None:
    """What was stored the quick way is answered by the long way, and the other way round, field for field."""
    first = rank(client, decision_id="d1", **question)
    second = rank(client, decision_id="d2", **question, **LONG)

    assert rank(client, decision_id="d1", **question, **LONG) == first
    assert rank(client, decision_id="d2", **question) == second
    assert first.keys() == second.keys()


def test_plain_questions_take_the_quick_way(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain question never reaches the long way's handler; any other does."""

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(routes, "_decide", never)
    rank(client, unit="jane")
    assert "Something broke" in refused(client.post("/v1/rank", json={"loop": "mail", "campaign": "june"} | LONG), 500)


def test_a_replay_of_the_quick_way_is_exact(client: TestClient) -> None:
    """What was drawn on the event loop is drawn again from its stored row, to the last bit."""
    rank(client, decision_id="d1", unit="jane", context={"age": 31}, slots=2)
    replay = ok(client.get("/v1/decisions/d1"))["replay"]

    assert (replay["choice"], replay["scores"]) == ("exact", "exact")


def test_faults_are_explained_by_the_long_way(client: TestClient) -> None:
    """An id that is stored with another body, an unknown campaign and a wrong field are problems, as ever."""
    rank(client, decision_id="d1", unit="jane")
    body = {"loop": "mail", "campaign": "june"}
    other = client.post("/v1/rank", json=body | {"decision_id": "d1"})

    assert "is stored with another body" in refused(other, 409)
    assert "No campaign 'july'" in refused(client.post("/v1/rank", json=body | {"campaign": "july"}), 404)
    assert "'slots'" in refused(client.post("/v1/rank", json=body | {"slots": 0}), 422)
