"""Calls with API keys: who may do what, how often, and on which loops."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from infra import tables
from infra.database import reading, writing
from infra.errors import Unavailable
from ingestion.http.access import scope_of
from ingestion.keys import create_key
from tests.pipelines.api import LOOP, click, inside, keys_of, ok, refused, running

MakeKey = Callable[..., dict[str, str]]
RANK = {"loop": "mail", "campaign": "june"}


@pytest.fixture(scope="module")
def client(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An API that requires keys, with loops ``mail`` and ``push`` and a campaign in each."""
    home = tmp_path_factory.mktemp("access")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{home / 'rewardloop.db'}", home, api_keys="required") as client:
        admin = key(client, "admin", ["admin", "content"])
        for loop, campaign in (("mail", "june"), ("push", "july")):
            ok(client.put(f"/v1/loops/{loop}", json=LOOP, headers=admin))
            contents = [{"id": f"{loop}-{name}", "slots": {"subject": f"Line {name}"}} for name in ("a", "b")]
            body = {"campaign": campaign, "loop": loop, "contents": contents}
            ok(client.post("/v1/campaigns", json=body, headers=admin))
        yield client


def key(
    client: TestClient, name: str, scopes: list[str], loops: tuple[str, ...] = (), rate: str = "1000/second"
) -> dict[str, str]:
    """The header of a new key, which the server knows."""
    serving, keyring = inside(client).serving, keys_of(client)
    with writing(serving.engine) as connection:
        made = create_key(connection, serving.secrets, name, scopes, loops, rate, serving.clock())
    keyring.refresh()
    return {"Authorization": f"Bearer {made}"}


CALLS: list[tuple[str, str, Any, str]] = [
    ("POST", "/v1/rank", RANK, "rank"),
    ("POST", "/v1/score", {"loop": "mail", "texts": ["x"]}, "rank"),
    ("GET", "/v1/decisions/some/thing", None, "rank"),
    ("POST", "/v1/decisions/some/thing/activate", {}, "rank"),
    ("POST", "/v1/events", {"events": []}, "events"),
    ("POST", "/v1/feedback", {}, "events"),
    ("GET", "/v1/campaigns", None, "content"),
    ("GET", "/v1/campaigns/june/results", None, "content"),
    ("POST", "/v1/contents", {}, "content"),
    ("POST", "/v1/contents/mail-a/approval", {}, "admin"),
    ("PUT", "/v1/loops/mail", LOOP, "admin"),
    ("POST", "/v1/loops/mail/kill", {"killed": False}, "admin"),
    ("POST", "/v1/loops/mail/promote", {}, "admin"),
]


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS)
def test_every_call_needs_its_scope(client: TestClient, method: str, path: str, body: Any, scope: str) -> None:
    """Without a key a call is 401, with every other scope 403, with its own scope it reaches its handler."""
    assert "rewardloop keys create" in refused(client.request(method, path, json=body), 401)
    others = [name for name in ("rank", "events", "content", "admin") if name != scope]
    sentence = refused(client.request(method, path, json=body, headers=key(client, "others", others)), 403)
    assert f"needs the scope {scope!r}" in sentence
    status = client.request(method, path, json=body, headers=key(client, "own", [scope])).status_code
    assert status not in (401, 403, 429)


def test_every_route_under_v1_is_guarded(client: TestClient) -> None:
    """No call of the API but webhooks answers a stranger, and calls nobody listed need the scope ``admin``."""
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    calls = [(method.upper(), path) for path, methods in paths.items() for method in methods if path.startswith("/v1/")]
    assert len(calls) > 15
    for method, path in calls:
        status = client.request(method, path.replace("{", "").replace("}", "")).status_code
        assert (status == 401) == (not path.startswith("/v1/webhooks/")), path
    assert scope_of("POST", "/v1/something/new") == "admin"
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "Ocp-Apim-Subscription-Key"])
def test_where_a_key_may_be(client: TestClient, header: str) -> None:
    """A key travels as a bearer token or in one of two headers; a wrong one is 401 in each, and tells how."""
    value = key(client, "anywhere", ["rank"])["Authorization"].removeprefix("Bearer ")
    prefix = "bearer " if header == "Authorization" else ""
    ok(client.post("/v1/rank", json=RANK, headers={header: prefix + value}))
    answer = client.post("/v1/rank", json=RANK, headers={header: prefix + value[:-1]})
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert value[:-1] not in refused(answer, 401)


def test_a_key_has_a_rate(client: TestClient) -> None:
    """Requests beyond a key's rate are 429 with a time to wait; another key is not slowed down."""
    slow, other = key(client, "slow", ["rank"], rate="3/hour"), key(client, "other", ["rank"])
    statuses = [client.post("/v1/rank", json=RANK, headers=slow).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    answer = client.post("/v1/rank", json=RANK, headers=slow)
    assert 1 <= int(answer.headers["Retry-After"]) <= 3_600
    assert "3 per 1 hour" in refused(answer, 429)
    ok(client.post("/v1/rank", json=RANK, headers=other))


def test_a_rate_holds_under_load(client: TestClient) -> None:
    """Of many calls at once exactly as many pass as the rate names; the others are told when the next will."""
    burst = key(client, "burst", ["rank"], rate="7/hour")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/v1/loops", headers=burst), range(40)))
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 33}
    waits = {int(answer.headers["Retry-After"]) for answer in answers if answer.status_code == 429}
    assert waits <= set(range(500, 516))


def test_a_key_may_be_limited_to_loops(client: TestClient) -> None:
    """Such a key works on its loops, by whatever name a call reaches them, and on no other."""
    everything = ["rank", "content", "admin"]
    limited = key(client, "limited", everything, ("mail",))
    free = key(client, "free", everything)
    decided = {
        loop: ok(client.post("/v1/rank", json=body, headers=free))["decision_id"] for loop, body in BODIES.items()
    }
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/rank", lambda loop: BODIES[loop]),
        ("GET", "/v1/loops/{loop}", None),
        ("POST", "/v1/loops/{loop}/kill", lambda _: {"killed": False}),
        ("GET", "/v1/campaigns?loop={loop}", None),
        ("GET", "/v1/campaigns/{campaign}/results", None),
        ("GET", "/v1/contents?campaign={campaign}", None),
        ("POST", "/v1/contents/{loop}-a/approval", lambda _: {"approval": "approved", "actor": "ann"}),
        ("GET", "/v1/decisions/{decision}", None),
        ("POST", "/v1/decisions/{decision}/activate", lambda _: {}),
    ]
    for method, path, body in calls:
        for loop, campaign in (("mail", "june"), ("push", "july")):
            where = path.format(loop=loop, campaign=campaign, decision=decided[loop])
            answer = client.request(method, where, json=body(loop) if body else None, headers=limited)
            if loop == "mail":
                ok(answer)
            else:
                assert "limited to loops 'mail', not 'push'" in refused(answer, 403), where
    mixed = client.post("/v1/rank", json={"loop": "mail", "campaign": "july"}, headers=limited)
    assert "not 'push'" in refused(mixed, 403)
    hidden = client.post("/v1/score?loop=mail", json={"loop": "push", "texts": ["x"]}, headers=limited)
    assert "not 'push'" in refused(hidden, 403)
    twice = client.get("/v1/campaigns?loop=push&loop=mail", headers=limited)
    assert "not 'push'" in refused(twice, 403)
    for path in ("/v1/loops", "/v1/campaigns", "/v1/contents", "/v1/decisions/unknown"):
        assert "name one of them" in refused(client.get(path, headers=limited), 403)


BODIES = {"mail": RANK, "push": {"loop": "push", "campaign": "july"}}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/%0A"),
        ("POST", "/v1/contents/mail-a/approval%0A"),
        ("GET", "/v1/decisions/x%0A?loop=mail"),
        ("GET", "/campaigns/%00"),
        ("GET", "/v1/campaigns?loop=mail&campaign=%00"),
    ],
)
def test_addresses_with_control_characters_are_refused(client: TestClient, method: str, path: str) -> None:
    """A newline ends a route's pattern: such an address is nobody's, with and without a key."""
    body = {"approval": "approved", "actor": "ann"} if method == "POST" else None
    for headers in ({}, key(client, "any", ["content", "rank"]), key(client, "own", ["rank", "content"], ("mail",))):
        assert "control character" in refused(client.request(method, path, json=body, headers=headers), 422)


@pytest.mark.parametrize(
    "path", ["/v1/loops?loop=mail", "/v1/contents?loop=mail", "/v1/campaigns?campaign=june", "/v1/campaigns"]
)
def test_a_limited_key_sees_no_list_of_all(client: TestClient, path: str) -> None:
    """Only what filters a list is a limit: another parameter, or a body that is not read, shows nothing."""
    limited = key(client, "limited", ["content", "admin"], ("mail",))
    for body in (None, {"loop": "mail", "campaign": "june"}):
        assert "name one of them" in refused(client.request("GET", path, json=body, headers=limited), 403)
    ok(client.request("GET", "/v1/loops/mail", content=b"no json", headers=limited))


def test_a_browsers_password_opens_pages_only(client: TestClient) -> None:
    """A key as a browser's password, which it sends with other sites' forms, changes nothing."""
    bearer = key(client, "browser", ["admin", "content", "rank"])["Authorization"].removeprefix("Bearer ")
    basic = {"Authorization": "Basic " + base64.b64encode(f"x:{bearer}".encode()).decode()}
    assert client.get("/", headers=basic).status_code == 200
    form = basic | {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/v1/loops/mail/kill", "/v1/loops/mail/retrain"):
        refused(client.post(path, headers=form), 401)


def test_a_limited_key_gets_the_baseline_without_a_database(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away a campaign that the server knows is answered as for any other key."""
    limited = key(client, "limited", ["rank"], ("mail",))

    def away(*_: object) -> NoReturn:
        raise Unavailable("The database does not answer")

    for place in ("ingestion.http.access.reading", "reward_models.serving.routes.reading"):
        monkeypatch.setattr(place, away)
    answer = client.post("/v1/rank", json=RANK | {"decision_id": "away"}, headers=limited)
    assert ok(answer)["learning_mode"] in ("online", "fallback")
    lost = client.get("/v1/decisions/x", headers=limited)
    assert lost.headers["Retry-After"] == "1"
    assert "does not answer" in refused(lost, 503)


def test_a_loops_actions_are_its_own(client: TestClient) -> None:
    """No campaign of one loop takes the name of another's actions; an activation's source is the connection."""
    admin = key(client, "boss", ["admin", "content", "rank"])
    taken = client.post("/v1/campaigns", json={"campaign": "push-actions", "loop": "mail"}, headers=admin)
    assert "hold a loop's actions" in refused(taken, 422)
    decided = ok(client.post("/v1/rank", json=RANK, headers=admin))["decision_id"]
    ok(client.post(f"/v1/decisions/{decided}/activate", headers=admin))
    with reading(inside(client).serving.engine) as connection:
        events = tables.events.c
        assert connection.scalars(select(events.source).where(events.decision_id == decided)).all() == ["boss"]


def test_events_are_their_senders(client: TestClient) -> None:
    """An event sent with a key has the connection's name as its source, and cannot name another."""
    sender = key(client, "newsletter", ["events"])
    sent = [click("k1", unit="ann"), click("k2", unit="ann", source="http")]
    answer = ok(client.post("/v1/events", json={"events": sent}, headers=sender))
    assert [one["event_id"] for one in answer["rejected"]] == ["k2"]
    with reading(inside(client).serving.engine) as connection:
        events = tables.events.c
        assert connection.scalars(select(events.source).where(events.event_id == "k1")).all() == ["newsletter"]


def test_the_audit_names_the_key(client: TestClient) -> None:
    """Who changed something is the person the caller names, behind the name of the key."""
    admin = key(client, "console", ["admin"])
    ok(client.post("/v1/loops/mail/kill", json={"killed": False, "actor": "ann"}, headers=admin))
    with reading(inside(client).serving.engine) as connection:
        audit = tables.audit.c
        last = connection.scalars(select(audit.actor).where(audit.action == "unkill").order_by(audit.id.desc())).first()
    assert last == "console: ann"
