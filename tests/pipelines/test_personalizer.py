"""Azure Personalizer's clients against a loop: Microsoft's own SDK, unmodified, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.cognitiveservices.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
from fastapi import FastAPI
from httpx2 import Client, Response
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import HttpOperationError
from sqlalchemy import select

from infra import tables
from infra.database import reading, writing
from infra.settings import Settings
from ingestion.keys import create_key
from ingestion.loops import parse_definition, put_loop
from pipelines.app import create_app
from reward_models.serving.trace import trace
from tests.pipelines.serving import served

PERSONALIZER = {
    "metrics": [
        {"name": "reward", "event": "reward", "aggregate": "sum", "window": "10m"},
        {"name": "penalty", "event": "penalty", "aggregate": "sum", "window": "10m"},
    ],
    "reward": {"reward": 1, "penalty": -1},
    "approval": "automatic",
    "lateness": "0s",
}
ACTIONS = [
    RankableAction(id="pasta", features=[{"taste": "salty", "spice": {"level": "medium"}}, {"nutrition": 7}]),
    RankableAction(id="ice cream", features=[{"taste": "sweet", "spice": {"level": "none"}}, {"nutrition": 2}]),
    RankableAction(id="salad", features=[{"taste": "salty", "spice": {"level": "low"}}, {"nutrition": 8}]),
]
CONTEXT = [{"time": "morning"}, {"device": {"type": "mobile", "tags": ["new", "wifi"]}}]


@pytest.fixture(scope="module")
def app(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An installation that requires keys."""
    home = tmp_path_factory.mktemp("personalizer")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    return create_app(
        Settings(
            home=home,
            database_url=f"sqlite:///{home / 'rewardloop.db'}",
            api_keys="required",
            refresh_seconds=0.1,
            tick_seconds=0.1,
        )
    )


@pytest.fixture(scope="module")
def endpoint(app: FastAPI) -> Iterator[str]:
    """Its address, with the loop ``food`` defined as a Personalizer resource would be."""
    with served(app) as address:
        with writing(app.state.serving.engine) as connection:
            for loop in ("food", "other"):
                put_loop(connection, parse_definition({"loop": loop} | PERSONALIZER), 0)
        app.state.serving.snapshots.refresh()
        yield address


def subscription(app: FastAPI, loop: str = "food") -> str:
    """A key for one loop, which the server knows: what was the resource's key."""
    serving = app.state.serving
    with writing(serving.engine) as connection:
        key = create_key(connection, serving.secrets, f"{loop}-app", ["rank"], [loop], "1000/second", serving.clock())
    app.state.keyring.refresh()
    return key


@pytest.fixture(scope="module")
def client(app: FastAPI, endpoint: str) -> PersonalizerClient:
    """Microsoft's client of that resource."""
    return PersonalizerClient(endpoint, CognitiveServicesCredentials(subscription(app)))


def outcomes(app: FastAPI, event_id: str) -> dict[str, int]:
    """What is stored of an event, by metric, in millionths."""
    with reading(app.state.serving.engine) as connection:
        outcome = tables.outcomes.c
        rows = connection.execute(select(outcome.metric, outcome.value).where(outcome.decision_id == event_id))
        return dict(map(tuple, rows))


def test_rank_and_reward(app: FastAPI, client: PersonalizerClient) -> None:
    """The SDK gets every action with its probability, the chosen one first; rewards, of either sign, become outcomes."""
    answer = client.rank(RankRequest(context_features=CONTEXT, actions=ACTIONS, event_id="round-1"))
    assert answer.event_id == "round-1"
    assert {one.id for one in answer.ranking} == {"pasta", "ice cream", "salad"}
    assert sum(one.probability for one in answer.ranking) == pytest.approx(1.0)
    assert answer.reward_action_id == answer.ranking[0].id

    client.events.reward("round-1", 0.75)
    client.events.reward("round-1", -0.5)
    assert outcomes(app, "round-1") == {"reward": 750_000, "penalty": 500_000}


def test_the_same_event_gets_the_same_answer(client: PersonalizerClient) -> None:
    """Repeating a call under its event id changes nothing; without one every call is a new event."""
    asked = RankRequest(context_features=CONTEXT, actions=ACTIONS, event_id="again")
    first, second = client.rank(asked), client.rank(asked)
    assert first.reward_action_id == second.reward_action_id
    fresh = [client.rank(RankRequest(actions=ACTIONS)).event_id for _ in range(2)]
    assert len(set(fresh)) == 2


def test_excluded_actions_are_listed_last(client: PersonalizerClient) -> None:
    """An excluded action keeps its place in the answer, with probability 0, and is never chosen."""
    answer = client.rank(RankRequest(actions=ACTIONS, excluded_actions=["pasta", "salad"]))
    assert answer.reward_action_id == "ice cream"
    assert {one.id: one.probability for one in answer.ranking} == {"ice cream": 1.0, "pasta": 0.0, "salad": 0.0}


def test_a_deferred_event_counts_once_activated(app: FastAPI, client: PersonalizerClient) -> None:
    """The reward of a deferred event counts after it was activated, and not before."""
    client.rank(RankRequest(actions=ACTIONS, event_id="later", defer_activation=True))
    client.events.reward("later", 1.0)
    assert outcomes(app, "later") == {}
    client.events.activate("later")
    assert outcomes(app, "later") == {"reward": 1_000_000}


def test_an_action_with_other_features_is_another_content(app: FastAPI, client: PersonalizerClient) -> None:
    """The caller keeps its id; what was known at each decision is kept as it was."""
    for price in (1, 2, 1):
        answer = client.rank(RankRequest(actions=[RankableAction(id="soup", features=[{"price": price}])]))
        assert answer.reward_action_id == "soup"
    with reading(app.state.serving.engine) as connection:
        contents = tables.contents.c
        stored = connection.execute(select(contents.slots, contents.features)).all()
    assert sorted(row.features["price"] for row in stored if row.slots["action"] == "soup") == [1, 2]


def test_features_are_flattened(app: FastAPI, client: PersonalizerClient) -> None:
    """Nested features get dotted names; each word of a list is a feature of its own."""
    client.rank(RankRequest(context_features=CONTEXT, actions=ACTIONS, event_id="flat"))
    with reading(app.state.serving.engine) as connection:
        decision = connection.execute(select(tables.decisions).where(tables.decisions.c.decision_id == "flat")).one()
    assert decision.context == {
        "time": "morning",
        "device.type": "mobile",
        "device.tags.new": True,
        "device.tags.wifi": True,
    }


def test_errors_are_those_the_sdk_reads(app: FastAPI, endpoint: str, client: PersonalizerClient) -> None:
    """What is wrong reaches the SDK's own exception, as code and sentence; a wrong key is refused."""
    twice = [ACTIONS[0], ACTIONS[0]]
    with pytest.raises(ErrorResponseException) as caught:
        client.rank(RankRequest(actions=twice))
    problem = caught.value.error
    assert problem is not None
    assert problem.error.code == "BadRequest"
    assert "'pasta' is given twice" in problem.error.message
    stranger = PersonalizerClient(endpoint, CognitiveServicesCredentials("nobody"))
    with pytest.raises(HttpOperationError):
        stranger.events.reward("round-1", 1.0)
    other = PersonalizerClient(endpoint, CognitiveServicesCredentials(subscription(app, "other")))
    assert other.rank(RankRequest(actions=ACTIONS)).reward_action_id in ("pasta", "ice cream", "salad")
    client.rank(RankRequest(actions=ACTIONS, event_id="mine"))
    with pytest.raises(HttpOperationError, match="Not Found"):
        other.events.reward("mine", 1.0)
    assert outcomes(app, "mine") == {}


@pytest.fixture
def http(app: FastAPI, endpoint: str) -> Iterator[Client]:
    """A plain client with the key in Azure's header."""
    with Client(base_url=endpoint, headers={"Ocp-Apim-Subscription-Key": subscription(app)}) as client:
        yield client


def slots(http: Client, **fields: Any) -> Response:
    """A multi-slot rank."""
    actions = [{"id": action.id, "features": action.features} for action in ACTIONS]
    return http.post("/personalizer/v1.1-preview.3/multislot/rank", json={"actions": actions} | fields)


def test_slots_are_filled_and_rewarded(app: FastAPI, http: Client) -> None:
    """Every slot gets another action; a slot's reward is the outcome of the action in it."""
    answer = slots(http, slots=[{"id": "hero"}, {"id": "side"}], eventId="page")
    assert answer.status_code == 201
    filled = {one["id"]: one["rewardActionId"] for one in answer.json()["slots"]}
    assert set(filled) == {"hero", "side"}
    assert filled["hero"] != filled["side"]

    earned = {"reward": [{"slotId": "side", "value": 0.5}]}
    assert http.post("/personalizer/v1.1-preview.3/multislot/events/page/reward", json=earned).status_code == 204
    with reading(app.state.serving.engine) as connection:
        outcome = tables.outcomes.c
        query = select(outcome.content_id, outcome.value).where(outcome.decision_id == "page")
        rows = [tuple(row) for row in connection.execute(query)]
        contents = tables.contents.c
        actions = {
            row.content_id: row.slots["action"]
            for row in connection.execute(select(contents.content_id, contents.slots))
        }
    ((action, value),) = [(actions[content_id], value) for content_id, value in rows]
    assert (action, value) == (filled["side"], 500_000)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slots": [{"id": "a"}, {"id": "a"}]}, "same id"),
        ({"slots": [{"id": name} for name in "abcd"]}, "4 slots and 3 actions"),
        ({"slots": [{"id": "a", "excludedActions": ["pasta"]}]}, "for all slots or for none"),
        ({"slots": []}, "slots"),
    ],
)
def test_slots_that_cannot_be_filled(http: Client, fields: dict[str, Any], words: str) -> None:
    """What cannot be done is a 400 with a sentence."""
    answer = slots(http, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"contextFeatures": [{"q": "x" * 1_001}]},
        {"contextFeatures": [{"q": 2**60}]},
        {"contextFeatures": [{f"f{number}": 1 for number in range(201)}]},
        {"actions": [{"id": "a", "features": [{"q": "x" * 1_001}]}]},
        {"actions": []},
        {"actions": [{"id": str(number)} for number in range(51)]},
    ],
)
def test_what_is_too_large_is_refused(http: Client, fields: dict[str, Any]) -> None:
    """Features and actions beyond the limits are a 400 with a sentence."""
    answer = http.post("/personalizer/v1.0/rank", json={"actions": [{"id": "a"}]} | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_nobody_rewards_what_was_not_ranked(http: Client) -> None:
    """A reward of an event nobody knows is a 404: another loop may rank it later."""
    assert http.post("/personalizer/v1.0/events/unknown/reward", json={"value": 1}).status_code == 404
    answer = http.post("/personalizer/v1.0/rank", json={}, headers={"Ocp-Apim-Subscription-Key": "wrong"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "Unauthorized")


@pytest.mark.parametrize("value", [1.5, -2, "much", None])
def test_rewards_are_between_minus_one_and_one(http: Client, value: Any) -> None:
    """Any other reward is a 400, and nothing is stored."""
    answer = http.post("/personalizer/v1.0/events/round-9/reward", json={"value": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadRequest"


def test_an_apprentice_answers_the_callers_own_choice(app: FastAPI, client: PersonalizerClient, http: Client) -> None:
    """In apprentice mode the first action that is not excluded is answered, and in slots the baseline action of each: what
    the caller would have shown. Its probability is 1, and the stored decision replays."""
    with writing(app.state.serving.engine) as connection:
        put_loop(connection, parse_definition({"loop": "food", "learning_mode": "apprentice"} | PERSONALIZER), 1)
    app.state.serving.snapshots.refresh()
    try:
        for order in (ACTIONS, ACTIONS[::-1]):
            answer = client.rank(RankRequest(actions=order, context_features=CONTEXT))
            assert answer.reward_action_id == order[0].id
            assert {one.id: one.probability for one in answer.ranking}[order[0].id] == 1.0
        answer = client.rank(RankRequest(actions=ACTIONS, excluded_actions=["pasta"], event_id="learning"))
        assert answer.reward_action_id == "ice cream"
        page = [{"id": "hero", "baselineAction": "salad"}, {"id": "side"}]
        filled = slots(http, slots=page).json()["slots"]
        assert [one["rewardActionId"] for one in filled] == ["salad", "pasta"]
        twice = slots(http, slots=[{"id": name, "baselineAction": "salad"} for name in ("hero", "side")])
        assert (twice.status_code, "baselineAction" in twice.json()["error"]["message"]) == (400, True)
        with reading(app.state.serving.engine) as connection:
            found = trace(connection, "learning", app.state.serving.snapshots, app.state.serving.clock())
        assert (found.replay.choice, found.decision["learning_mode"]) == ("exact", "apprentice")
    finally:
        with writing(app.state.serving.engine) as connection:
            put_loop(connection, parse_definition({"loop": "food"} | PERSONALIZER), 2)
        app.state.serving.snapshots.refresh()
