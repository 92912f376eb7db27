"""What must never be seen: secrets in logs and answers, customers in clear anywhere at rest.

A real server with debug logging is driven through every call of its document, with good keys and bad ones, by customers
and vendors whose ids are known here; then everything it said and everything it left on disk is searched for them.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client, Response
from sqlalchemy import select

from infra.clock import format_time, system_clock
from infra.database import open_database, reading, writing
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tables import metadata
from ingestion.keys import create_key
from tests.ingestion.connectors.golden import FILES
from tests.pipelines.api import LOOP

CUSTOMER = "canary.customer+77@example.com"
WEBHOOK_KEYS = {name: f"canary-webhook-key-of-{name}" for name in ("shopify", "stripe", "segment", "sendgrid", "braze")}
WRONG = "rl_abcdefghijkl_" + "canary-of-a-wrong-key-".ljust(43, "x")
STARTED = re.compile(r"running on (http://127\.0\.0\.1:\d+).*Application startup complete", re.DOTALL)
"""The address is said when it is bound; it answers, and the database is there, once the start is complete."""
DEADLINE = 400.0


@dataclass
class Driven:
    """What was asked and answered, and what is left."""

    home: Path
    secrets: dict[str, str]
    """What nobody may see, by what it is."""
    answers: list[tuple[str, Response]] = field(default_factory=list)
    log: str = ""


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Driven:
    """An installation after a day of everything."""
    home = tmp_path_factory.mktemp("driven") / "home"
    settings = Settings(home=home, database_url="")  # as the server sees it, whatever this process was told
    made = load_secrets(settings)
    stored = json.loads(settings.secrets_path.read_text())
    webhooks: dict[str, Any] = {name: {"keys": [key], "signature": "bearer"} for name, key in WEBHOOK_KEYS.items()}
    webhooks |= {"native": {"unsigned": True}, "cloudevents": {"unsigned": True}}
    settings.secrets_path.write_text(json.dumps(stored | {"webhooks": webhooks}))
    with server(home) as (address, process, log):
        engine = open_database(settings.database)
        with writing(engine) as connection:
            everything = ["rank", "events", "content", "admin"]
            keys = {
                name: create_key(connection, made, name, scopes, [], "1000/second", 1)
                for name, scopes in (("boss", everything), ("site", ["signed"]))
            }
        engine.dispose()
        time.sleep(1.5)  # servers know a new key within a second
        found = Driven(
            home,
            {"master": stored["master"], "unit secret": stored["units"]["1"], "token secret": stored["tokens"]["1"]}
            | {f"webhook key of {name}": key for name, key in WEBHOOK_KEYS.items()}
            | {f"key of {name}": key.split("_", 2)[2] for name, key in keys.items()}
            | {"wrong key": WRONG.split("_", 2)[2]},
        )
        with Client(base_url=address, timeout=60) as client:
            drive(client, found, keys)
        process.terminate()
        process.wait(60)
        found.log = log.read_text()
    return found


class server:  # noqa: N801 (used like a function)
    """A real server with debug logging over ``home``: its address, process and log."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home.parent / "log"

    def __enter__(self) -> tuple[str, "subprocess.Popen[bytes]", Path]:
        ours = {"REWARDLOOP_HOME": str(self.home), "REWARDLOOP_PORT": "0", "REWARDLOOP_LOG_LEVEL": "debug"}
        ours |= {"REWARDLOOP_API_KEYS": "required", "REWARDLOOP_REDIRECT_HOSTS": '["shop.example.com"]'}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REWARDLOOP_")}
        with self.log.open("wb") as output:
            command = [sys.executable, "-m", "pipelines.app"]
            self.process = subprocess.Popen(command, env=kept | ours, stdout=output, stderr=subprocess.STDOUT)
        until = time.monotonic() + DEADLINE
        while not (running := STARTED.search(self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)
        return running[1], self.process, self.log

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def drive(client: Client, found: Driven, keys: dict[str, str]) -> None:
    """Every call with the customer and the keys in it, rightly and wrongly."""
    boss, site = ({"Authorization": f"Bearer {keys[name]}"} for name in ("boss", "site"))

    def ask(method: str, path: str, body: Any = None, headers: dict[str, str] = boss, **more: Any) -> Any:
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = client.request(method, path, headers=headers, **given, **more)
        found.answers.append((f"{method} {path}", answer))
        return answer.json() if answer.headers.get("content-type") == "application/json" else {}

    ask("PUT", "/v1/loops/mail", LOOP)
    contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "ab"]
    ask("POST", "/v1/campaigns", {"campaign": "june", "loop": "mail", "contents": contents})
    rank = {"loop": "mail", "campaign": "june", "unit": CUSTOMER, "links": {"shop": "https://shop.example.com/"}}
    chosen = ask("POST", "/v1/rank", rank)
    link = chosen["ranked"][0]["links"]["shop"]
    ask("GET", link[link.index("/r/") :], headers={})
    now = {"occurred_at": format_time(system_clock()), "unit": CUSTOMER}
    money = {"type": "purchase", "value": 5, "currency": "EUR", "order_id": "o1"}
    events = [
        {"event_id": "e1", "type": "click", **now},
        {"event_id": "e2", **money, **now},
        {"event_id": "e3", "type": "refund", "reverses": "o1", **now},
        {"event_id": "e4", "type": "unsubscribe", **now},
        {"event_id": "e5", "type": "click", "value": CUSTOMER, **now},
        {"event_id": "e6", "type": "click", **now, "occurred_at": CUSTOMER},
        {"event_id": "e7", "type": "click", **now, "token": keys["boss"]},
        {
            "event_id": "e8",
            "type": "click",
            **now,
            "properties": {"email": CUSTOMER, "url": "https://shop.example.com/"},
        },
    ]
    ask("POST", "/v1/events", {"events": events})
    ask("POST", "/v1/events", {"events": events}, site)
    ask("POST", "/v1/rank", rank, site)
    ask(
        "POST",
        "/v1/feedback",
        {"kind": "comment", "source": "HUMAN", "decision_id": chosen["decision_id"], "value": {"text": "ok"}},
    )
    for connector, headers, body in deliveries():
        sent = headers | {"Authorization": f"Bearer {WEBHOOK_KEYS.get(connector, 'none')}"}
        ask("POST", f"/v1/webhooks/{connector}", body, sent)
        ask("POST", f"/v1/webhooks/{connector}", body, headers | {"Authorization": f"Bearer {WRONG}"})
    personalizer = {"contextFeatures": [{"who": "x"}], "actions": [{"id": "a", "features": []}], "eventId": "p1"}
    ask("POST", "/personalizer/v1.0/rank", personalizer, {"Ocp-Apim-Subscription-Key": keys["boss"]})
    ask("GET", "/", headers={"Authorization": f"Bearer {keys['boss']}"})
    for method, path in calls(client):
        where = re.sub(r"\{\w+\}", "nowhere" if path.endswith("retrain") else "mail", path)  # a retrain is a process
        for headers in (boss, {"Authorization": f"Bearer {WRONG}"}, {"X-API-Key": WRONG}):
            bodies: tuple[Any, ...] = (
                {"unit": CUSTOMER, "units": [CUSTOMER], "actor": "ann", "key": keys["boss"]},
                b'{"unit": "' + CUSTOMER.encode(),
            )
            for body in bodies:
                ask(method, where, None if method == "GET" else body, headers | {"content-type": "application/json"})


def calls(client: Client) -> list[tuple[str, str]]:
    """Every call of the document."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def deliveries() -> Iterator[tuple[str, dict[str, str], bytes]]:
    """The corpus of vendors' deliveries."""
    for path in FILES:
        case = json.loads(path.read_text())
        yield path.parent.name, case["headers"], json.dumps(case["body"]).encode()


def customers() -> list[str]:
    """Ids of customers that were sent in clear: ours, and those in the corpus."""
    items = [item for path in FILES for item in json.loads(path.read_text())["items"]]
    known = {item["recognised"].get("unit") for item in items if "recognised" in item}
    return sorted({CUSTOMER, *(unit for unit in known if unit and len(unit) > 4)})


def seen(what: Sequence[str], where: str) -> list[str]:
    """Which of these stand there, as they are or as JSON and addresses write them."""
    return [one for one in what if any(form in where for form in (one, json.dumps(one)[1:-1], one.replace("@", "%40")))]


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_every_call_was_made(driven: Driven) -> None:
    """The drive means something: it was let in, refused, and understood; nothing broke; every vendor's delivery was read."""
    statuses = [answer.status_code for _, answer in driven.answers]
    assert {200, 401, 403, 404, 422} <= set(statuses)
    assert [name for name, answer in driven.answers if answer.status_code >= 500 and answer.status_code != 503] == []
    assert len(customers()) > 4
    assert "running on" in driven.log


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_no_secret_is_said(driven: Driven) -> None:
    """No secret, key or customer stands in the log at level debug, and no secret in any answer; a refusal does not
    repeat the customer either."""
    hidden = list(driven.secrets.values())
    assert seen([*hidden, *customers()], driven.log) == []
    for name, answer in driven.answers:
        assert seen(hidden, answer.text + str(answer.headers)) == [], name
        if answer.status_code >= 400:
            assert seen(customers(), answer.text + str(answer.headers)) == [], name


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_no_customer_is_kept_in_clear(driven: Driven) -> None:
    """No column of any table holds a customer's id, nor does any file below the data folder; neither as plain text nor
    as a hash without our key, which anybody could make of a list of addresses."""
    known = customers()
    plain = [sha256(one.encode()).hexdigest()[:32] for one in known]
    engine = open_database(Settings(home=driven.home).database)
    units: set[str] = set()
    with reading(engine) as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)).mappings():
                for column, value in row.items():
                    text = (
                        value.decode("latin-1") if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
                    )
                    assert seen([*known, *plain], text) == [], f"{table.name}.{column}"
                    units |= {value} if str(column) == "unit" and value else set()
    engine.dispose()
    assert len(units) > 5
    assert all(re.fullmatch(r"u1:[0-9a-f]{32}", unit) for unit in units)
    for path in driven.home.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert [one for one in known if one.encode() in found] == [], path
            if path.name != "secrets.json":
                assert [name for name, one in driven.secrets.items() if one.encode() in found] == [], path
