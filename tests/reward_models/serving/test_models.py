"""Serving a model: promotion, verified loading, the last good one, fallback, scores, replay of both stages."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from ingestion.loops import PolicySettings
from reward_models import registry
from reward_models.boosted import RewardModel
from reward_models.serving import snapshot
from reward_models.verification import Verifier
from tests.pipelines.api import click, define, inside, ok, rank, refused, running, send, trace
from tests.reward_models.serving.models import registered, trained


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """One small model for the whole file."""
    return trained()


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    """One sacrificial process for the file: starting one takes seconds."""
    with Verifier() as running_one:
        yield running_one


@pytest.fixture(autouse=True)
def _verified_by(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_verified", partial(registry.load_verified, verifier=verifier))


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The API with a loop, a campaign and no model yet."""
    with running(sqlite_url, tmp_path / "home") as client:
        define(client)
        yield client


def register(client: TestClient, model: RewardModel, state: registry.State = "passed") -> str:
    """A version of loop ``mail``."""
    serving = inside(client).serving
    engine: Engine = serving.engine
    return registered(engine, serving.settings.bundles, model, "mail", state)


def promote(client: TestClient, version: str, **fields: Any) -> Any:
    """The answer to a promotion."""
    return ok(client.post("/v1/loops/mail/promote", json={"version": version} | fields))


def health(client: TestClient) -> dict[str, Any]:
    """How loop ``mail`` is served."""
    found: dict[str, Any] = ok(client.get("/readyz"))["loops"]["mail"]
    return found


def damage(client: TestClient, version: str) -> None:
    """Change one byte of a version's model file."""
    path = registry.path_of(inside(client).serving.settings.bundles, "mail", version) / "model.txt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def test_a_promoted_model_chooses_at_once(client: TestClient, model: RewardModel) -> None:
    """The next choice after a promotion is made with the model, and its prediction is stored and replays."""
    assert promote(client, register(client, model)) == {"loop": "mail", "version": "mail-1", "revision": 1}
    answer = rank(client, decision_id="d1", context={"age": 60}, explain=True)
    found = trace(client, "d1")

    assert answer["model_version"] == "mail-1"
    assert all(candidate["expected"] > 0 for candidate in answer["candidates"])
    assert found["decision"]["feature_schema"] == model.schema.hash
    assert (found["replay"]["scores"], found["replay"]["choice"]) == ("exact", "exact")


def test_the_prediction_is_the_models(client: TestClient, model: RewardModel) -> None:
    """``expected`` is the model's own score of each candidate in the request's context."""
    promote(client, register(client, model))
    answer = rank(client, context={"age": 60}, explain=True)
    contents = inside(client).serving.snapshots.current.campaigns["june"].contents

    expected = model.grid([{"age": 60}], [contents["a"], contents["b"]])[0].tolist()

    assert [candidate["expected"] for candidate in answer["candidates"]] == pytest.approx(expected, abs=1e-12)


def test_clicks_still_shift_a_models_choice(client: TestClient, model: RewardModel) -> None:
    """Observed against expected: contents that earn more than the model says gain on the others."""
    promote(client, register(client, model))
    before = rank(client, dry_run=True, explain=True)["candidates"]
    for number in range(30):
        rank(client, decision_id=f"a{number}", candidates=["a"])
        rank(client, decision_id=f"b{number}", candidates=["b"])
    send(client, *(click(f"e{number}", decision_id=f"b{number}") for number in range(25)))
    inside(client).serving.snapshots.refresh()
    after = rank(client, dry_run=True, explain=True)["candidates"]

    assert after[1]["expected"] == before[1]["expected"]
    assert after[1]["mean"] - after[0]["mean"] > before[1]["mean"] - before[0]["mean"]


def test_another_policy_waits_for_the_gate(sqlite_url: str, tmp_path: Path, model: RewardModel) -> None:
    """The champion chooses with the settings it was judged under; the definition's wait, but for a higher floor."""
    with running(sqlite_url, tmp_path / "home", tick_seconds=60) as client:  # no choice is counted before the next
        define(client)
        choose_under_three_policies(client, model)


def choose_under_three_policies(client: TestClient, model: RewardModel) -> None:
    promote(client, register(client, model))
    before = rank(client, decision_id="d1", context={"age": 60}, explain=True)
    own = PolicySettings().floor
    define(client, policy={"kind": "uniform", "floor": 0.0})
    after = rank(client, decision_id="d2", context={"age": 60}, explain=True)
    define(client, policy={"kind": "uniform", "floor": 0.4})
    floored = rank(client, decision_id="d3", context={"age": 60}, explain=True)
    found = [trace(client, f"d{number}") for number in (1, 2, 3)]

    assert after["policy_version"] == before["policy_version"] != floored["policy_version"]
    assert after["candidates"] == before["candidates"]
    assert [one["decision"]["floor"] for one in found] == [own, own, 0.4]
    assert min(candidate["policy_p"] for candidate in floored["candidates"]) >= 0.4
    assert [one["decision"]["loop_version"] for one in found] == [1, 2, 3]
    assert [one["replay"]["choice"] for one in found] == ["exact"] * 3


def test_another_learning_mode_holds_at_once(client: TestClient, model: RewardModel) -> None:
    """What makes a loop safer needs no gate: an apprentice answers the baseline from the next choice on."""
    promote(client, register(client, model))
    define(client, learning_mode="apprentice")

    assert rank(client)["learning_mode"] == "apprentice"


def test_counts_are_worth_what_the_model_predicts(client: TestClient, model: RewardModel) -> None:
    """Another weight waits for a model that predicts it; once a metric is another one, the prediction stands alone."""
    promote(client, register(client, model))
    for number in range(30):
        rank(client, decision_id=f"b{number}", candidates=["b"])
    send(client, *(click(f"e{number}", decision_id=f"b{number}") for number in range(25)))
    serving = inside(client).serving

    def means() -> list[tuple[float, float]]:
        serving.snapshots.refresh()
        found = rank(client, dry_run=True, explain=True)["candidates"]
        return [(candidate["mean"], candidate["expected"]) for candidate in found]

    before = means()
    define(client, reward={"click": 100})
    weighted = means()
    define(client, metrics=[{"name": "click", "event": "click", "window": "1d"}])
    measured = means()

    assert weighted == before
    assert all(mean != expected for mean, expected in before)
    assert all(mean == expected for mean, expected in measured)


def test_promotion_is_compare_and_swap(client: TestClient, model: RewardModel) -> None:
    """A version that was not gated, and a promotion that expects another champion, are refused."""
    failed, first, second = (register(client, model, state) for state in ("failed", "passed", "passed"))
    promote(client, first)

    assert "is failed; only a version that passed" in refused(
        client.post("/v1/loops/mail/promote", json={"version": failed}), 422
    )
    assert f"serves '{first}', not '{second}'" in refused(
        client.post("/v1/loops/mail/promote", json={"version": second, "replaces": second}), 409
    )
    assert promote(client, second, replaces=first)["revision"] == 2


def test_a_damaged_model_never_replaces_a_good_one(
    client: TestClient, model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A champion whose files do not have their digest is refused: the last good one serves, until it is mended."""
    monkeypatch.setattr(snapshot, "RETRY_SECONDS", 0.0)
    first, second = register(client, model), register(client, model)
    promote(client, first)
    good = (registry.path_of(inside(client).serving.settings.bundles, "mail", second) / "model.txt").read_bytes()
    damage(client, second)
    promote(client, second)

    assert rank(client)["model_version"] == first
    state = health(client)
    assert (state["champion"], state["serving"], state["state"]) == (second, first, "last_good")
    assert "do not have the digest" in state["reason"]

    (registry.path_of(inside(client).serving.settings.bundles, "mail", second) / "model.txt").write_bytes(good)
    inside(client).serving.snapshots.refresh()
    assert rank(client)["model_version"] == second
    assert health(client)["state"] == "choosing"


def test_no_usable_model_is_fallback(client: TestClient, model: RewardModel, sqlite_url: str, tmp_path: Path) -> None:
    """A process that starts with a damaged champion answers the baseline, stores it, and says so."""
    version = register(client, model)
    promote(client, version)
    damage(client, version)
    with running(sqlite_url, tmp_path / "home") as restarted:
        answer = rank(restarted)
        ready = ok(restarted.get("/readyz"))

    assert (answer["learning_mode"], answer["model_version"], answer["durable"]) == ("fallback", None, True)
    assert (ready["status"], ready["loops"]["mail"]["state"]) == ("degraded", "fallback")


def test_an_earlier_models_decisions_replay(client: TestClient, model: RewardModel) -> None:
    """A decision of the version before still replays both stages, from the version's own files; lost ones say so."""
    first, second = register(client, model), register(client, model)
    promote(client, first)
    rank(client, decision_id="d1", context={"age": 50})
    promote(client, second)

    assert trace(client, "d1")["replay"]["scores"] == "exact"
    inside(client).serving.snapshots._earlier.clear()
    damage(client, first)
    assert trace(client, "d1")["replay"]["scores"] == "not possible"


def test_scores(client: TestClient, model: RewardModel) -> None:
    """Texts are scored with an interval, best first by rank, relative to the loop's mean; nothing is stored."""
    promote(client, register(client, model))
    body = {"loop": "mail", "texts": ["Ready for june?", "Ready for june!"], "context": {"age": 65}}
    answer = ok(client.post("/v1/score", json=body))
    scores = answer["scores"]

    assert sorted(score["rank"] for score in scores) == [1, 2]
    for score in scores:
        assert score["low"] < score["expected"] < score["high"]
        assert score["relative"] == pytest.approx(score["expected"] - answer["loop_mean"])
    both = {"loop": "mail", "texts": ["x"], "contents": [{"slots": {"subject": "x"}}]}
    for wrong in (both, {"loop": "mail"}, {"loop": "mail", "texts": []}, {"loop": "mail", "texts": ["x" * 30_000]}):
        refused(client.post("/v1/score", json=wrong), 422)
