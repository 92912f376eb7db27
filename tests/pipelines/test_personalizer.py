"""Azure Personalizer's clients against a loop: Microsoft's own SDK, unmodified, over HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.cognitiveservices.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
from fastapi import FastAPI
from httpx2 import Client, Response
from hypothesis import given, settings
from hypothesis import strategies as st
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import HttpOperationError
from sqlalchemy import select

from infra import tables
from infra.database import reading, writing
from infra.settings import Settings
from ingestion.contents import add_contents, set_approval
from ingestion.events import Content
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


@pytest.fixture(scope="module")
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
        (
            {"slots": [{"id": name} for name in "abc"], "excludedActions": ["pasta"]},
            "3 slots and 2 actions that are not excluded",
        ),
        ({"slots": [{"id": "a"}], "excludedActions": ["pasta", "salad", "ice cream"]}, "All actions are excluded"),
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


@contextmanager
def apprentice(app: FastAPI) -> Iterator[None]:
    """The loop in apprentice mode, until the end of the block."""
    serving = app.state.serving

    def learn(mode: str) -> None:
        with writing(serving.engine) as connection:
            definition = parse_definition({"loop": "food", "learning_mode": mode} | PERSONALIZER)
            put_loop(connection, definition, serving.clock())
        serving.snapshots.refresh()

    learn("apprentice")
    try:
        yield
    finally:
        learn("online")


def test_an_apprentice_answers_the_callers_own_choice(app: FastAPI, client: PersonalizerClient, http: Client) -> None:
    """In apprentice mode the first action that is not excluded is answered, and in slots the baseline action of each: what
    the caller would have shown. Its probability is 1, and the stored decision replays."""
    with apprentice(app):
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


def test_copy_that_is_known_under_another_id(app: FastAPI, http: Client) -> None:
    """Somebody registered an action as a content of their own: it is ranked, left out and taken as the baseline by the
    caller's id, as any other, and asked again it is the same."""
    actions = [{"id": "lasagne"}, {"id": "risotto"}]
    serving = app.state.serving
    ok = http.post("/personalizer/v1.0/rank", json={"actions": actions[1:]})
    assert ok.status_code == 201
    with writing(serving.engine) as connection:
        known = Content(content_id="theirs", campaign_id="food-actions", slots={"action": "lasagne"})
        add_contents(connection, "food-actions", [known], 10_000, serving.clock())

    asked = {"actions": actions, "eventId": "theirs"}
    ranked, again = (http.post("/personalizer/v1.0/rank", json=asked) for _ in range(2))
    assert {one["id"] for one in ranked.json()["ranking"]} == {"lasagne", "risotto"}
    assert ranked.json() == again.json()
    left = http.post("/personalizer/v1.0/rank", json={"actions": actions, "excludedActions": ["lasagne"]}).json()
    assert left["ranking"] == [{"id": "risotto", "probability": 1.0}, {"id": "lasagne", "probability": 0.0}]
    filled = slots(http, actions=actions, slots=[{"id": "a"}, {"id": "b"}]).json()["slots"]
    assert {one["rewardActionId"] for one in filled} == {"lasagne", "risotto"}
    with apprentice(app):
        answer = http.post("/personalizer/v1.0/rank", json={"actions": actions}).json()
        assert answer["rewardActionId"] == "lasagne"


def test_a_slot_is_never_left_out(app: FastAPI, http: Client) -> None:
    """Where an action was retired, fewer slots are asked for or it is a 400, and nothing is stored; in a ranking it has
    probability 0."""
    serving = app.state.serving
    actions = [{"id": "kale"}, {"id": "leek"}]
    assert slots(http, actions=actions, slots=[{"id": "a"}, {"id": "b"}]).status_code == 201
    with writing(serving.engine) as connection:
        names = {row.slots["action"]: row.content_id for row in connection.execute(select(tables.contents))}
        set_approval(connection, names["kale"], "retired", "test", "", serving.clock())
    serving.snapshots.look()

    refused = slots(http, actions=actions, slots=[{"id": "a"}, {"id": "b"}], eventId="kale")
    assert (refused.status_code, "1 of the contents may be chosen" in refused.json()["error"]["message"]) == (400, True)
    with reading(serving.engine) as connection:
        stored = select(tables.decisions.c.decision_id).where(tables.decisions.c.decision_id == "kale")
        assert connection.execute(stored).first() is None
    ranking = http.post("/personalizer/v1.0/rank", json={"actions": actions}).json()["ranking"]
    assert ranking == [{"id": "leek", "probability": 1.0}, {"id": "kale", "probability": 0.0}]


WORDS = st.text(st.characters(exclude_categories=()), max_size=9)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(WORDS, part, max_size=3))
FEATURES = st.lists(st.dictionaries(WORDS, JSON, max_size=3), max_size=2)
IDS = st.sampled_from("abcde")
JSON_TYPE = {"Content-Type": "application/json"}


def bodies(wild: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Bodies of Personalizer's calls, in which any part may be ``wild`` instead."""
    features = FEATURES | wild
    some = st.lists(IDS | wild, max_size=2) | wild
    action = st.fixed_dictionaries({"id": IDS | wild}, optional={"features": features})
    slot = st.fixed_dictionaries(
        {"id": IDS | wild},
        optional={"baselineAction": IDS | wild, "excludedActions": some, "features": features},
    )
    return st.fixed_dictionaries(
        {"actions": st.lists(action, min_size=1, max_size=5, unique_by=lambda one: repr(one["id"])) | wild},
        optional={
            "contextFeatures": features,
            "excludedActions": some,
            "eventId": WORDS | wild,
            "deferActivation": st.booleans() | wild,
            "slots": st.lists(slot, min_size=1, max_size=3) | wild,
        },
    )


@settings(max_examples=150, deadline=None)
@given(body=bodies(st.nothing()) | bodies(JSON) | JSON, call=st.sampled_from(("rank", "multislot/rank")))
def test_any_body_is_answered_or_told_what_is_wrong(http: Client, body: Any, call: str) -> None:
    """Whatever a body holds: a whole answer, or a refusal with a sentence, in Personalizer's form but for texts that are
    refused everywhere; nothing ever breaks."""
    answer = http.post(f"/personalizer/v1.1-preview.3/{call}", content=json.dumps(body).encode(), headers=JSON_TYPE)
    found = answer.json()
    if answer.status_code != 201:
        assert 400 <= answer.status_code < 500, answer.text
        assert (found["error"]["message"] if "error" in found else found["detail"]).strip()
        return
    names, excluded = {one["id"] for one in body["actions"]}, set(body.get("excludedActions") or ())
    if call == "rank":
        assert {one["id"] for one in found["ranking"]} == names
        assert sum(one["probability"] for one in found["ranking"]) == pytest.approx(1.0)
        assert found["rewardActionId"] in names - excluded
    else:
        chosen = [one["rewardActionId"] for one in found["slots"]]
        assert [one["id"] for one in found["slots"]] == [one["id"] for one in body["slots"]]
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= names - excluded


@pytest.mark.parametrize(("depth", "status"), [(10, 201), (200, 422), (20_000, 422)])
def test_however_deep_features_are(http: Client, depth: int, status: int) -> None:
    """Features within features are flattened, or refused with a sentence."""
    deep = '{"a":' * depth + "1" + "}" * depth
    answer = http.post(
        "/personalizer/v1.0/rank", content=f'{{"actions":[{{"id":"a"}}],"contextFeatures":[{deep}]}}', headers=JSON_TYPE
    )
    assert answer.status_code == status
