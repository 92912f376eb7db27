"""What a retraining leaves in a real MLflow store, read back with MLflow's own client."""

import json
import re
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest

from infra.database import open_database, reading
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tracking import Tracking, ask_judge
from pipelines.learning import Bench, Outcome, retrain
from pipelines.names import business, columns
from reward_models import bundle as bundles
from reward_models import registry
from tests.pipelines.worlds import NOW, definition, populate
from tests.stack.stub_llm import Say, StubLLM


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Outcome]:
    """An installation after one retraining that was promoted, with MLflow in its data folder."""
    patch = pytest.MonkeyPatch()
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "REWARDLOOP_HOME"):
        patch.setenv(name, "")
        patch.delenv(name)
    settings = Settings(home=tmp_path_factory.mktemp("mirrored"))
    engine = open_database(settings.database)
    migrate(engine)
    populate(engine, Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))}))
    outcome = retrain(Bench(settings, engine, lambda: NOW, Tracking(settings)), "subjects")
    patch.undo()
    return settings, outcome


@pytest.fixture
def client(retrained: tuple[Settings, Outcome]) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=retrained[0].tracking, registry_uri=retrained[0].tracking)


@pytest.fixture
def run(client: Any) -> Any:
    """The only run of the loop's experiment."""
    experiment = client.get_experiment_by_name("subjects")
    (only,) = client.search_runs([experiment.experiment_id])
    return only


def test_one_run_holds_the_figures_of_the_outcome(run: Any, client: Any, retrained: tuple[Settings, Outcome]) -> None:
    """The few figures a marketer reads are the run's metrics under their business names; all of them are a file."""
    figures = retrained[1].metrics
    kept = json.loads(Path(client.download_artifacts(run.info.run_id, "figures.json")).read_text())

    assert kept == figures
    assert run.data.metrics == business(figures, columns(definition().metrics))
    assert {"clicks per 1000", "expected gain per 1000 low", "customers judged"} <= set(run.data.metrics)
    assert len(run.data.metrics) < len(figures) / 2


def test_the_numbers_of_the_description_are_logged(run: Any) -> None:
    """What it would earn is told in numbers that are metrics of the run."""
    told = re.search(r"What it would earn\.\*\* (.+)", run.data.tags["mlflow.note.content"])
    assert told is not None
    numbers = re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?", told[1].replace("1,000 decisions", "").replace("95 %", ""))
    logged = {
        form.format(value)
        for value in run.data.metrics.values()
        for form in ("{:+,.0f}", "{:+,.2f}", "{:,.0f}", "{:,.2f}")
    }

    assert len(numbers) >= 5
    assert set(numbers) <= logged


def test_a_version_carries_its_verdict_and_what_it_would_have_earned(client: Any, run: Any) -> None:
    """In the registry each version says how it was judged and what it would have earned; the gate's report is a file."""
    (version,) = client.search_model_versions("name = 'subjects'")
    gate = json.loads(Path(client.download_artifacts(run.info.run_id, "gate.json")).read_text())

    assert version.tags["gate"] == "promoted"
    assert version.tags["would have earned"] in version.description
    assert gate["sentence"].startswith("Passed")


def test_anybody_can_load_the_trees_without_a_pickle(
    run: Any, retrained: tuple[Settings, Outcome], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow.pyfunc` loads a version by its alias and gives what LightGBM gives on the bundle's text; no file is a pickle."""
    import mlflow

    settings, _ = retrained
    files = {entry.path for entry in client.list_artifacts(run.info.run_id, "model")}
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(settings.tracking)
    model = mlflow.pyfunc.load_model("models:/subjects@champion")
    bundle = bundles.read(registry.path_of(settings.bundles, "subjects", "subjects-1"))
    names = bundles.manifest(bundle).feature_schema.names
    rows = np.random.default_rng(1).random((5, len(names)))
    expected = lgb.Booster(model_str=bundle["model.txt"].decode()).predict(rows)

    assert np.allclose(model.predict(pd.DataFrame(rows, columns=names)), expected)
    assert files == {"model/MLmodel", "model/model.lgb", "model/python_env.yaml"}


def test_the_description_is_at_the_top_and_quotes_the_metrics(run: Any) -> None:
    """The note tells the gain that was logged, and what is serving."""
    note, gain = run.data.tags["mlflow.note.content"], run.data.metrics["expected gain per 1000"]

    assert f"{gain:+,.0f} click per 1,000 decisions" in note
    assert "**What is serving now.** subjects-1." in note


def test_the_data_set_is_named_by_its_digest_and_batch(run: Any, retrained: tuple[Settings, Outcome]) -> None:
    """Dataset input and tags say which data, to the digit, the model learned from."""
    settings, _ = retrained
    with reading(open_database(settings.database)) as connection:
        stored = registry.version_of(connection, "subjects", "subjects-1")
    manifest = bundles.manifest(bundles.read(registry.path_of(settings.bundles, "subjects", "subjects-1")))

    assert run.data.tags["rewardloop.dataset_digest"] == manifest.training_digest
    assert run.inputs.dataset_inputs[0].dataset.name == f"as_of batch {stored.as_of}"
    assert run.info.run_id == stored.tracking_run


def test_plots_and_bundle_are_artifacts(client: Any, run: Any, retrained: tuple[Settings, Outcome]) -> None:
    """Three pictures, and the very files that are served."""
    settings, _ = retrained
    plots = {entry.path for entry in client.list_artifacts(run.info.run_id, "plots")}
    folder = Path(client.download_artifacts(run.info.run_id, "bundle"))

    assert plots == {"plots/reliability.png", "plots/policy_values.png", "plots/top_contents.png"}
    assert bundles.digest(bundles.read(folder)) == bundles.digest(
        bundles.read(registry.path_of(settings.bundles, "subjects", "subjects-1"))
    )


def test_the_registered_model_has_a_champion(client: Any, run: Any) -> None:
    """The alias names the version that serves, whose source is the run's bundle."""
    champion = client.get_model_version_by_alias("subjects", "champion")

    assert champion.tags["rewardloop.version"] == "subjects-1"
    assert champion.source == f"{run.info.artifact_uri}/model"
    assert dict(client.get_registered_model("subjects").aliases).keys() == {"champion"}


def test_parameters_say_how_it_was_learned(run: Any) -> None:
    """The configuration is there, flat."""
    assert (run.data.params["model.rounds"], run.data.params["policy.kind"], run.data.params["reward.click"]) == (
        "25",
        "posterior",
        "1.0",
    )


def test_nothing_that_is_asked_is_traced(
    client: Any, retrained: tuple[Settings, Outcome], llm: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a retraining nor a question to one of MLflow's judges leaves a trace or its words; a trace that is made is found."""
    import mlflow

    settings, _ = retrained
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking)
    mlflow.set_tracking_uri(settings.tracking)
    llm.answer(Say(json.dumps({"result": 4, "rationale": "plain"})))
    copy = {"subject": "a line that nobody else writes"}
    question = "Rate {{ outputs }} for {{ inputs }}"
    ask_judge(question, "a brief", copy, url=llm.url, model="stub-1", key="none", seconds=60, max_tokens=100)

    assert copy["subject"] in llm.calls[0].text
    assert traces(client) == 0
    assert copy["subject"].encode() not in b"".join(
        file.read_bytes() for file in settings.home.glob("mlflow/mlflow.db*")
    )
    with mlflow.start_span("made on purpose"):
        pass
    assert traces(client) == 1


def traces(client: Any) -> int:
    """How many the store has, in all experiments."""
    places = [each.experiment_id for each in client.search_experiments()]
    return len(client.search_traces(locations=places, flush=True))
