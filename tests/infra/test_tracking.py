"""Tracking: what MLflow holds after a record was logged, once or twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Unavailable
from infra.settings import Settings
from infra.tracking import Record, Request, Tracking

RECORD = Record(
    version="subjects-1",
    digest="d1",
    description="# What happened",
    at=1_700_000_000_000_000,
    dataset_digest="ab" * 32,
    as_of=12,
    parameters={"rounds": "120"},
    metrics={"clicks_per_1000": 21.5},
    tags={"rewardloop.as_of": "12"},
    files={"bundle/model.txt": b"tree", "plots/values.png": b"png"},
)


@pytest.fixture(scope="module")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose MLflow store is made once for this file: making it takes seconds."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture
def tracking(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """Tracking over a SQLite store; environment variables are put back afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "REWARDLOOP_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return Tracking(Settings(home=mlflow_home))


def client(home: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_record_becomes_a_run_with_everything_in_it(tracking: Tracking, mlflow_home: Path) -> None:
    """Parameters, metrics, description, data set and files of a record are the run's."""
    run = client(mlflow_home).get_run(tracking.log("whole", RECORD))
    artifacts = {entry.path for entry in client(mlflow_home).list_artifacts(run.info.run_id, "plots")}

    assert run.data.params == {"rounds": "120"}
    assert run.data.metrics == {"clicks_per_1000": 21.5}
    assert run.data.tags["mlflow.note.content"] == "# What happened"
    assert run.data.tags["rewardloop.as_of"] == "12"
    assert (
        client(mlflow_home).get_experiment_by_name("whole").tags["mlflow.experimentKind"] == "custom_model_development"
    )
    assert (run.inputs.dataset_inputs[0].dataset.name, run.inputs.dataset_inputs[0].dataset.digest) == (
        "as_of batch 12",
        ("ab" * 32)[:36],
    )
    assert artifacts == {"plots/values.png"}
    assert run.info.artifact_uri.startswith((mlflow_home / "mlflow" / "artifacts" / "whole").as_uri())
    assert run.info.status == "FINISHED"


def test_logging_a_record_twice_changes_nothing(tracking: Tracking, mlflow_home: Path) -> None:
    """A run that is logged again after a crash keeps one value per metric and one model version."""
    run_id = tracking.log("twice", RECORD)
    assert tracking.log("twice", RECORD, run_id) == run_id

    assert len(client(mlflow_home).get_metric_history(run_id, "clicks_per_1000")) == 1
    assert len(client(mlflow_home).search_model_versions("name = 'twice'")) == 1


def test_runs_are_found_by_their_version(tracking: Tracking) -> None:
    """What was logged is known again by version and digest; an unknown loop has no runs."""
    run_id = tracking.log("found", RECORD)

    found = tracking.runs("found")["subjects-1"]
    assert (found.run_id, found.digest) == (run_id, "d1")
    assert tracking.runs("unknown") == {}


def test_aliases_move_and_disappear(tracking: Tracking, mlflow_home: Path) -> None:
    """`champion` names the version that was pointed to last; an alias pointed to nothing is removed."""
    tracking.log("aliased", RECORD)
    tracking.log("aliased", replace(RECORD, version="subjects-2"))
    tracking.point("aliased", {"champion": "subjects-1", "challenger": "subjects-2"})
    tracking.point("aliased", {"champion": "subjects-2", "challenger": None})

    champion = client(mlflow_home).get_model_version_by_alias("aliased", "champion")
    assert champion.tags["rewardloop.version"] == "subjects-2"
    assert dict(client(mlflow_home).get_registered_model("aliased").aliases) == {"champion": champion.version}


def test_the_registered_model_points_at_the_bundle(tracking: Tracking, mlflow_home: Path) -> None:
    """A model version's source is the folder of the bundle's files among the run's artifacts."""
    run_id = tracking.log("sourced", RECORD)

    version = client(mlflow_home).search_model_versions("name = 'sourced'")[0]
    assert version.source == client(mlflow_home).get_run(run_id).info.artifact_uri + "/bundle"


def test_reports_have_a_run_per_period(tracking: Tracking, mlflow_home: Path) -> None:
    """A report of the same period replaces the values of its run; it is no version, and nothing is registered."""
    first = tracking.log_report("weekly", replace(RECORD, version="2026-11-15-7d", name="week to 2026-11-15"))
    second = tracking.log_report(
        "weekly", replace(RECORD, version="2026-11-15-7d", at=RECORD.at + 10**6, metrics={"a": 2.0})
    )
    run = client(mlflow_home).get_run(first)

    assert (first, run.info.run_name, run.data.metrics["a"]) == (second, "week to 2026-11-15", 2.0)
    assert tracking.reports("weekly").keys() == {"2026-11-15-7d"}
    assert tracking.runs("weekly") == {}
    assert client(mlflow_home).search_registered_models("name = 'weekly'") == []


def test_requests_are_found_and_answered(tracking: Tracking, mlflow_home: Path) -> None:
    """A tag or an alias of a version asks for it; an answer stands on the version, and the request is gone."""
    for name in ("asked-1", "asked-2", "asked-3"):
        tracking.log("asked", replace(RECORD, version=name))
    client(mlflow_home).set_model_version_tag("asked", "1", "approval", "Rejected")
    client(mlflow_home).set_registered_model_alias("asked", "approved", "2")
    client(mlflow_home).set_model_version_tag("asked", "3", "approval", "maybe")
    found = tracking.requests("asked")
    for request in found:
        tracking.answer("asked", request, "Done.")

    assert found == [Request("asked-1", "rejected", alias=False), Request("asked-2", "approved", alias=True)]
    assert tracking.requests("asked") == []
    assert tracking.requests("unknown") == []
    assert [client(mlflow_home).get_model_version("asked", number).tags.get("approval.answer") for number in "123"] == [
        "Done.",
        "Done.",
        None,
    ]


def test_every_version_of_a_prompt_is_kept_once_with_its_own_text(tracking: Tracking, mlflow_home: Path) -> None:
    """Whatever is there already, each version gets in with its text and its number as a tag, and the same again is nothing."""
    for version in (1, 2, 1, 2):
        tracking.keep_prompt("story", version, f"Tell it {version} times", {"rewardloop.strategy": "story"})
    tracking.keep_prompt("late", 2, "Second", {})
    tracking.keep_prompt("late", 1, "First", {})

    assert prompts(client(mlflow_home), "story") == {"1": (1, "Tell it 1 times"), "2": (2, "Tell it 2 times")}
    assert prompts(client(mlflow_home), "late") == {"2": (1, "Second"), "1": (2, "First")}


def prompts(of: Any, name: str) -> dict[str, tuple[int, str]]:
    """MLflow's number and the text of each of our versions."""
    found = of.search_prompt_versions(f"prompt.{name}")
    kept = {one.tags["rewardloop.version"]: (int(one.version), one.template) for one in found}
    assert len(kept) == len(found)
    return kept


def test_a_store_without_a_server_is_not_guarded(tracking: Tracking) -> None:
    """A file asks nobody for a password."""
    assert not tracking.guarded()


def test_an_absent_mlflow_is_unavailable(tmp_path: Path) -> None:
    """A store that cannot be opened raises the retriable error, not MLflow's own."""
    blocked = tmp_path / "mlflow"
    blocked.write_text("a file where the folder should be")

    with pytest.raises(Unavailable, match="MLflow does not answer"):
        Tracking(Settings(home=tmp_path)).log("away", RECORD)
