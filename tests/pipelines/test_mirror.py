"""What a retraining leaves in a real MLflow store, read back with MLflow's own client."""

from pathlib import Path
from typing import Any

import pytest

from infra.database import open_database, reading
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tracking import Tracking
from pipelines.learning import Bench, Outcome, retrain
from reward_models import bundle as bundles
from reward_models import registry
from tests.pipelines.worlds import NOW, populate


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


def test_one_run_holds_the_figures_of_the_outcome(run: Any, retrained: tuple[Settings, Outcome]) -> None:
    """Every figure the outcome reports is a metric of the run, under its business name."""
    assert run.data.metrics == retrained[1].metrics
    assert {"click_per_1000", "expected_gain_per_1000_low", "calibration_error_per_1000"} <= set(run.data.metrics)


def test_the_description_is_at_the_top_and_quotes_the_metrics(run: Any) -> None:
    """The note tells the gain that was logged, and what is serving."""
    note, gain = run.data.tags["mlflow.note.content"], run.data.metrics["expected_gain_per_1000"]

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
    assert champion.source == f"{run.info.artifact_uri}/bundle"
    assert dict(client.get_registered_model("subjects").aliases).keys() == {"champion"}


def test_parameters_say_how_it_was_learned(run: Any) -> None:
    """The configuration is there, flat."""
    assert (run.data.params["model.rounds"], run.data.params["policy.kind"], run.data.params["reward.click"]) == (
        "25",
        "posterior",
        "1.0",
    )
