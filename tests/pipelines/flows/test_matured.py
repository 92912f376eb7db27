"""The event that enough outcomes matured: when it is told, to whom, and how often."""

import base64
import json
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.clock import DAY, HOUR
from infra.database import reading, writing
from infra.errors import Unavailable
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.loops import put_loop
from pipelines.flows import matured
from pipelines.flows.matured import EVENT, Herald
from pipelines.flows.steps.due import enough, look
from reward_models import registry
from tests.pipelines.flows.world import LOOP
from tests.pipelines.notifying.servers import Inbox, web
from tests.pipelines.worlds import NOW, definition, populate


@pytest.fixture
def busy(engine: Engine, secrets: Secrets, settings: Settings) -> Settings:
    """A loop of which a hundred decisions are new, where eighty are enough, beside one without decisions."""
    populate(engine, secrets, decisions=200, days=16)
    with writing(engine) as connection:
        put_loop(connection, definition(loop="empty"), NOW)
    return settings.model_copy(update={"retrain_outcomes": 80})


def register(engine: Engine, version: str, at: int) -> None:
    """A version that was judged."""
    with writing(engine) as connection:
        registry.register(
            connection, LOOP, version, digest="d", config_digest="c", loop_version=1, as_of=1, cutoff=0,
            kind="first", now=at,
        )  # fmt: skip
        registry.settle(connection, LOOP, version, "failed", {"champion": None, "sentence": ""})


def told(inbox: Inbox) -> list[dict[str, Any]]:
    """The events that a server was sent."""
    return [event for _, body in inbox.got for event in json.loads(body)]


@pytest.mark.parametrize("age", [None, 9 * DAY, 4 * DAY, HOUR])
@pytest.mark.parametrize("number", [20, 60, 100, 140])
def test_enough_is_what_the_count_says(
    engine: Engine, secrets: Secrets, settings: Settings, age: int | None, number: int
) -> None:
    """The cheap question has the answer of the full count, before the first version and after one of any age."""
    populate(engine, secrets, decisions=200, days=16)
    if age is not None:
        register(engine, "subjects-1", NOW - age)
    rules = settings.model_copy(update={"retrain_outcomes": number, "retrain_days": 1_000})
    with reading(engine) as connection:
        counted = look(connection, definition(), rules, NOW)
        found = enough(connection, definition(), rules, NOW)

    assert (found is not None) == counted.due
    assert found in (None, "" if age is None else "subjects-1")


def test_each_ripe_loop_is_told_once_per_version(
    engine: Engine, busy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event names the loop; looking again is silent until a newer version has its own new outcomes."""
    now = [NOW]
    with web(204) as prefect:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect.port}/api")
        herald = Herald(engine, busy, lambda: now[0])
        herald.look()
        herald.look()
        register(engine, "subjects-1", NOW - 8 * DAY)
        herald.look()
        register(engine, "subjects-2", NOW - HOUR)
        herald.look()
        herald.look()

    events = told(prefect)
    assert [event["payload"] for event in events] == [
        {"loop_id": LOOP, "newest_version": ""},
        {"loop_id": LOOP, "newest_version": "subjects-1"},
    ]
    assert {event["event"] for event in events} == {EVENT}
    assert {event["resource"]["prefect.resource.id"] for event in events} == {f"rewardloop.loop.{LOOP}"}
    assert len({event["id"] for event in events}) == 2


def test_several_processes_say_one_event(engine: Engine, busy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two replicas of the API find has one id, so that Prefect starts one run for it."""
    with web(204) as prefect:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect.port}/api")
        for _ in range(2):
            Herald(engine, busy, lambda: NOW).look()

    first, second = told(prefect)
    assert first["id"] == second["id"]


def test_a_server_that_refuses_is_told_again(engine: Engine, busy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that was not taken is not forgotten: the next look sends it."""
    with web(503, 204) as prefect:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect.port}/api")
        herald = Herald(engine, busy, lambda: NOW)
        with pytest.raises(Unavailable, match="503"):
            herald.look()
        herald.look()
        herald.look()

    assert len(told(prefect)) == 2


def test_without_a_server_nothing_is_asked(busy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without Prefect does not even read its database for it."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(matured, "reading", None)

    Herald(None, busy, lambda: NOW).look()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "value", "header"),
    [
        ("PREFECT_API_AUTH_STRING", "team:word", f"Basic {base64.b64encode(b'team:word').decode()}"),
        ("PREFECT_API_KEY", "pnu_1", "Bearer pnu_1"),
    ],
)
def test_it_signs_in_as_prefects_own_client_does(
    variable: str, value: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server behind a password, and Prefect's cloud, are told with the same variables that Prefect reads."""
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with web(204) as prefect:
        matured.tell(f"http://127.0.0.1:{prefect.port}/api", matured.event_of(LOOP, ""))

    assert {name.lower(): said for name, said in prefect.got[0][0].items()}["authorization"] == header
