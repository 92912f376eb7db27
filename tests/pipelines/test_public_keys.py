"""A key that the public can read, stolen: what it can do, and what it cannot."""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra import tables
from infra.database import writing
from ingestion import keys, store
from ingestion.events import Batch
from ingestion.http.access import Access
from ingestion.keys import create_key
from pipelines import cli
from tests.ingestion.tables import rows
from tests.pipelines.api import LOOP, click, inside, keys_of, ok, refused, running

RANK = {"loop": "mail", "campaign": "june"}
REVENUE = {"name": "revenue", "event": "purchase", "aggregate": "sum", "currency": "EUR", "cap": 100}
WATCHED = (tables.outcomes, tables.attributions, tables.content_stats, tables.event_labels, tables.decisions)


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """An API that requires keys, with a loop whose revenue is capped."""
    with running(sqlite_url, tmp_path, api_keys="required") as client:
        admin = key(client, "admin", "admin", "content", "rank", "events")
        ok(client.put("/v1/loops/mail", json=LOOP | {"metrics": [LOOP["metrics"][0], REVENUE]}, headers=admin))
        contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "ab"]
        ok(client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "contents": contents}, headers=admin))
        client.headers.update(admin)
        yield client


def key(client: TestClient, name: str, *scopes: str) -> dict[str, str]:
    """The header of a new key, which the server knows."""
    serving, keyring = inside(client).serving, keys_of(client)
    with writing(serving.engine) as connection:
        made = create_key(connection, serving.secrets, name, scopes, (), "1000/second", serving.clock())
    keyring.refresh()
    return {"Authorization": f"Bearer {made}"}


def everything(client: TestClient) -> dict[str, Any]:
    """What learning and reporting read, row for row, once every decision is counted."""
    serving = inside(client).serving
    store.apply(serving.engine, Batch(), serving.secrets, serving.clock())
    return {table.name: rows(serving.engine, table) for table in WATCHED}


def forged(decision_id: str, unit: str) -> list[dict[str, Any]]:
    """What a thief would send who knows ids of decisions, customers and orders, but has no token."""
    money = {"value": 9_999, "currency": "EUR"}
    return [
        click("f1", decision_id=decision_id),
        click("f2", unit=unit),
        click("f3", token="1.ZmFrZQ.AAAAAAAAAAAAAAAAAAAAAA"),
        click("f4", unit=unit) | money | {"type": "purchase", "order_id": "order-2"},
        click("f5", decision_id=decision_id) | {"type": "activation"},
        click("f6", unit=unit) | {"type": "refund", "reverses": "order-1"},
    ]


def test_without_a_token_a_stolen_public_key_moves_nothing(client: TestClient) -> None:
    """Forged clicks, purchases, refunds and activations that name decisions, customers and orders change no row that
    learning or the lift reads; they lie in quarantine."""
    decided = ok(client.post("/v1/rank", json=RANK | {"unit": "ann"}))
    honest = click("p", unit="ann") | {"type": "purchase", "value": 20, "currency": "EUR", "order_id": "order-1"}
    ok(client.post("/v1/events", json={"events": [honest]}))
    public = key(client, "website", "signed")
    before = everything(client)
    stored = len(rows(inside(client).serving.engine, tables.events))
    answer = ok(client.post("/v1/events", json={"events": forged(decided["decision_id"], "ann")}, headers=public))
    assert (answer["accepted"], len(answer["rejected"])) == (0, 6)
    assert everything(client) == before
    assert len(rows(inside(client).serving.engine, tables.events)) == stored


def test_with_a_token_it_moves_that_decision_up_to_the_cap(client: TestClient) -> None:
    """A thief with the token of one message moves this decision's outcome, by at most each metric's bound, and no
    other's; what concerns others (customers, orders, refunds) is not taken, token or not."""
    mine, others = (ok(client.post("/v1/rank", json=RANK | {"unit": unit})) for unit in ("thief", "ann"))
    bought = click("p", unit="ann") | {"type": "purchase", "value": 20, "currency": "EUR", "order_id": "order-1"}
    ok(client.post("/v1/events", json={"events": [bought]}))
    public, token = key(client, "website", "signed"), {"token": mine["token"]}
    money = {"type": "purchase", "value": 10**9, "currency": "EUR"}
    attack = [click(f"c{n}", **token) for n in range(50)] + [click(f"m{n}", **token) | money for n in range(50)]
    beyond = [
        click("b1", **token, unit="ann"),
        click("b2", **token) | money | {"order_id": "order-1"},
        click("b3", **token) | {"type": "refund", "reverses": "order-1"},
        click("b4", **token, decision_id=others["decision_id"]),
    ]
    answer = ok(client.post("/v1/events", json={"events": attack + beyond}, headers=public))
    assert [one["event_id"] for one in answer["rejected"]] == ["b1", "b2", "b3", "b4"]
    found = {(row[0], row[2]): row[4] / 1e6 for row in rows(inside(client).serving.engine, tables.outcomes)}
    assert found == {
        (mine["decision_id"], "click"): 1.0,
        (mine["decision_id"], "revenue"): 100.0,
        (others["decision_id"], "revenue"): 20.0,
    }


def test_a_public_key_sends_events_and_nothing_else(client: TestClient) -> None:
    """It can neither choose nor read nor give feedback."""
    public = key(client, "website", "signed")
    for method, path in (
        ("POST", "/v1/rank"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/decisions/x"),
        ("GET", "/v1/contents"),
        ("POST", "/v1/loops/mail/kill"),
        ("GET", "/v1/loops"),
        ("GET", "/v1/loops/mail"),
        ("GET", "/v1/loops/mail/lift"),
        ("GET", "/v1/loops/mail/approvals"),
        ("POST", "/personalizer/v1.0/events/x/reward"),
    ):
        assert client.request(method, path, json={}, headers=public).status_code == 403, path


def test_a_replay_from_quarantine_is_no_way_round(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forged event that a person replays is refused again, for the same reason."""
    decided = ok(client.post("/v1/rank", json=RANK | {"unit": "ann"}))
    public = key(client, "website", "signed")
    ok(client.post("/v1/events", json={"events": [click("f", decision_id=decided["decision_id"])]}, headers=public))
    engine = inside(client).serving.engine
    (held,) = rows(engine, tables.quarantine)
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("REWARDLOOP_DATABASE_URL", str(engine.url))
    capsys.readouterr()
    assert cli.run(["quarantine", "replay", str(held[0])]) == 1
    assert "with the token of /v1/rank only" in capsys.readouterr().out
    assert rows(engine, tables.events) == []


def test_unknown_and_wrong_keys_take_the_same_steps(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose id nobody has and one with a wrong secret cost one hash and one comparison each, get the same answer,
    and are remembered nowhere."""
    made = key(client, "shop", "rank")["Authorization"].removeprefix("Bearer ")
    wrong = made[:-1] + ("A" if made[-1] != "A" else "B")
    unknown = "rl_aaaaaaaaaaaa_" + made[16:]
    steps: list[str] = []

    def noted(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            steps.append(step)
            return function(*given)

        return call

    monkeypatch.setattr(keys, "_hash", noted("hash", keys._hash))
    monkeypatch.setattr(hmac, "compare_digest", noted("compare", hmac.compare_digest))
    answers = []
    for guess in (wrong, unknown):
        steps.clear()
        answers.append(client.post("/v1/rank", json=RANK, headers={"Authorization": f"Bearer {guess}"}))
        assert steps == ["hash", "compare"]
    assert refused(answers[0], 401) == refused(answers[1], 401)
    assert dict(answers[0].headers) == dict(answers[1].headers)


def test_strangers_take_no_memory() -> None:
    """A thousand calls with keys that nobody has leave no bucket behind."""

    class Nobody:
        def find(self, key: str) -> None:
            return None

    sent: list[Any] = []

    async def ask(access: Access, number: int) -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        state = type("State", (), {"keyring": Nobody()})()
        app = type("App", (), {"state": state})()
        headers = [(b"authorization", f"Bearer rl_{number:012}_{'x' * 43}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/rank", "query_string": b"", "headers": headers}
        await access(scope | {"app": app}, None, send)  # type: ignore[arg-type]

    async def all_of_them(access: Access) -> None:
        for number in range(1_000):
            await ask(access, number)

    access = Access(None)  # type: ignore[arg-type]
    asyncio.run(all_of_them(access))
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [401] * 1_000
    assert len(access._buckets) == 0
