"""What a customer may be sent, and why a content was chosen: over HTTP and by command, against a real store."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ingestion.http.access import scope_of
from pipelines.cli import run
from reward_models import registry
from tests.pipelines.api import away, click, define, inside, ok, rank, refused, running, send, trace
from tests.reward_models.serving.models import registered, trained

IDS = itertools.count()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """The data folder of the installation."""
    home = tmp_path_factory.mktemp("sending")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    return home


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    """An API with a loop without and one with a frequency cap and ``no_send``; ``mail`` has a model."""
    model = trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_verified", lambda *_, **__: model)
        with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
            define(client)
            serving = inside(client).serving
            version = registered(serving.engine, serving.settings.bundles, model, "mail")
            ok(client.post("/v1/loops/mail/promote", json={"version": version}))
            yield client


def name() -> str:
    """A customer nobody has met."""
    return f"customer {next(IDS)}"


def capped_loop(client: TestClient, **fields: Any) -> str:
    """A loop of its own with a campaign; returns their name."""
    loop = f"loop-{next(IDS)}"
    metrics = [{"name": "click", "event": "click"}]
    body = {"metrics": metrics, "reward": {"click": 1}, "approval": "automatic", "holdout": 0} | fields
    ok(client.put(f"/v1/loops/{loop}", json=body))
    contents = [{"id": f"{loop}-{each}", "slots": {"subject": each}} for each in "ab"]
    ok(client.post("/v1/campaigns", json={"campaign": loop, "loop": loop, "contents": contents}))
    return loop


def look(client: TestClient) -> None:
    """What a server does every second."""
    inside(client).serving.snapshots.refresh()


def chosen(answer: Any) -> list[str]:
    return [one["content_id"] for one in answer["ranked"]]


@pytest.mark.parametrize("way", [{}, {"dry_run": True}], ids=["quick", "long"])
def test_an_unsubscribe_ends_all_sending(client: TestClient, way: dict[str, Any]) -> None:
    """Who unsubscribes by a token is answered ``no_send`` with the reason, until lifted; a click changes nothing. The
    decision is stored in the customer's group and does not start, so that it earns nothing and takes nobody's credit."""
    jane, john = name(), name()
    token = rank(client, unit=jane)["token"]
    send(client, click(f"e{next(IDS)}", type="unsubscribe", token=token), click(f"e{next(IDS)}", unit=john))
    look(client)
    answer = rank(client, unit=jane, **way)
    assert (chosen(answer), answer["withheld"], answer["group"]) == (
        ["no_send"],
        "suppressed: unsubscribe",
        "treatment",
    )
    assert answer["ranked"][0]["propensity"] == 1.0
    assert rank(client, unit=john, **way)["withheld"] is None
    if not way:
        found = trace(client, answer["decision_id"])
        assert (found["started_at"], found["decision"]["constraints"]["withheld"]) == (None, "suppressed: unsubscribe")
        assert (found["replay"]["choice"], found["replay"]["scores"]) == ("exact", "exact")

    lifted = ok(client.request("DELETE", "/v1/suppressions", json={"units": [jane, john]}))
    assert lifted == {"changed": 1, "unchanged": 1}
    assert rank(client, unit=jane, **way)["withheld"] is None


def test_a_list_holds_in_its_loop_and_without_the_database(client: TestClient) -> None:
    """A customer of one loop's list is sent nothing there, also while the database is away, and others are."""
    jane, loop = name(), capped_loop(client)
    body = {"units": [jane, jane], "loop": loop, "reason": "asked by phone"}
    assert ok(client.put("/v1/suppressions", json=body)) == {"changed": 1, "unchanged": 0}
    assert ok(client.put("/v1/suppressions", json=body)) == {"changed": 0, "unchanged": 1}
    serving = inside(client).serving
    with away(serving.engine, serving.decisions.engine):
        answer = rank(client, unit=jane, loop=loop, campaign=loop)
    assert (chosen(answer), answer["durable"], answer["withheld"]) == (["no_send"], False, "suppressed: asked by phone")
    assert rank(client, unit=jane)["withheld"] is None
    refused(client.put("/v1/suppressions", json={"units": [jane], "loop": "unknown"}), 404)
    assert scope_of("PUT", "/v1/suppressions") == scope_of("DELETE", "/v1/suppressions") == "events"


def test_lists_by_command(client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Files and ids are put on the list and taken off it; the list says who is on it, and since when."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(home))
    jane, john = name(), name()
    path = home / "people.csv"
    path.write_text(f"id,e-mail\n1,{jane}\n2,{john}\n")
    assert run(["suppress", "add", "--file", str(path), "--column", "e-mail", "--reason", "old list"]) == 0
    assert run(["suppress", "remove", john]) == 0
    capsys.readouterr()
    assert run(["suppress", "list", jane, john]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "customer,loop,reason,since"
    assert [row.split(",")[:3] for row in rows] == [[jane, "", "old list"]]
    assert run(["suppress", "add", "--file", str(path), "--column", "phone"]) == 1
    look(client)
    assert rank(client, unit=jane)["withheld"] == "suppressed: old list"


def test_a_customer_is_sent_no_more_than_the_cap(client: TestClient) -> None:
    """The sends of a customer are counted at once; beyond the cap the answer is ``no_send``, where the loop allows it, else
    a conflict. A repeated id gets its stored answer, and other customers are sent as ever."""
    cap = [{"most": 2, "window": "1h"}]
    loop, strict = capped_loop(client, frequency=cap, no_send=True), capped_loop(client, frequency=cap)
    for each in (loop, strict):
        for number in range(2):
            body: dict[str, Any] = {"unit": "jane", "loop": each, "campaign": each, "decision_id": f"{each}-{number}"}
            body["excluded"] = ["no_send"]
            first = rank(client, **body)
            assert first["withheld"] is None
        assert rank(client, **body) == first
        assert rank(client, unit=name(), loop=each, campaign=each)["withheld"] is None
    answer = rank(client, unit="jane", loop=loop, campaign=loop)
    assert (chosen(answer), answer["withheld"]) == (["no_send"], "frequency cap: at most 2 sends in 1h")
    assert trace(client, answer["decision_id"])["started_at"] is None
    body = {"unit": "jane", "loop": strict, "campaign": strict}
    assert "may not be sent anything before" in refused(client.post("/v1/rank", json=body), 409)


def test_a_capped_content_makes_way_for_others(client: TestClient) -> None:
    """A content a customer has seen often enough is excluded, with the reason; the others are drawn."""
    loop = capped_loop(client, frequency=[{"most": 1, "window": "1h", "per": "content"}])
    seen = chosen(rank(client, unit="jane", loop=loop, campaign=loop))[0]
    answer = rank(client, unit="jane", loop=loop, campaign=loop)
    reason = "frequency cap: at most 1 sends of this content in 1h"
    assert answer["excluded"] == [{"content_id": seen, "reason": reason}]
    assert chosen(answer) != [seen]


@pytest.mark.parametrize("way", [{}, {"dry_run": True}], ids=["quick", "long"])
def test_must_include(client: TestClient, way: dict[str, Any]) -> None:
    """A slate holds what it has to; what cannot be is refused with what to do."""
    for number in range(4):
        answer = rank(client, unit=f"u{number}", must_include=["b"], slots=2, **way)
        assert sorted(chosen(answer)) == ["a", "b"]
    assert chosen(rank(client, must_include=["b"], **way)) == ["b"]
    base = {"loop": "mail", "campaign": "june"} | way
    assert "2 contents for 1 slots" in refused(client.post("/v1/rank", json=base | {"must_include": ["a", "b"]}), 422)
    assert "is not eligible" in refused(client.post("/v1/rank", json=base | {"must_include": ["x"]}), 409)


def test_reasons_add_up_to_the_score(client: TestClient) -> None:
    """Every candidate's lines sum to its score: when it is chosen, later by the trace, and of texts that are only scored."""
    answer = rank(client, context={"age": 60}, explain=True)
    assert {one["content_id"] for one in answer["candidates"]} == {"a", "b"}
    for one in answer["candidates"]:
        assert sum(line["effect"] for line in one["reasons"]) == pytest.approx(one["score"], abs=1e-9, rel=0)
        assert {"campaign", "context"} <= {line["kind"] for line in one["reasons"]}

    for _ in range(12):
        shown = rank(client, decision_id=f"seen-{next(IDS)}", candidates=["a"])
        send(client, click(f"e{next(IDS)}", decision_id=shown["decision_id"]))
    look(client)
    again = rank(client, context={"age": 60}, explain=True)["candidates"][0]
    assert "observed" in {line["kind"] for line in again["reasons"]}
    assert sum(line["effect"] for line in again["reasons"]) == pytest.approx(again["score"], abs=1e-9, rel=0)

    found = ok(client.get(f"/v1/decisions/{answer['decision_id']}?explain=true"))["reasons"]
    scores = {one["content_id"]: one["score"] for one in answer["candidates"]}
    assert {one["content_id"]: one["score"] for one in found} == scores
    for one in found:
        assert sum(line["effect"] for line in one["reasons"]) == pytest.approx(one["score"], abs=1e-9, rel=0)
    assert trace(client, answer["decision_id"])["reasons"] is None

    texts = {"loop": "mail", "texts": ["Is it you?", "Buy now!"], "context": {"age": 60}}
    for one in ok(client.post("/v1/score", json=texts | {"explain": True}))["scores"]:
        assert sum(line["effect"] for line in one["reasons"]) == pytest.approx(one["expected"], abs=1e-9, rel=0)
    assert [one["reasons"] for one in ok(client.post("/v1/score", json=texts))["scores"]] == [None, None]
