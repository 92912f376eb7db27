"""MLflow, behind a vocabulary of our own: the only module that imports it.

One experiment and one registered model per loop, one run per model version. MLflow is a mirror for people to read;
the database is the truth, so every call here can be repeated and nothing depends on its answer. What MLflow
raises when it is away becomes :class:`Unavailable`.

Bundles are uploaded as plain files and registered by their address: MLflow's own model flavours would pickle
them, and take seven seconds for it.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from infra.errors import Unavailable
from infra.services import prepare_environment
from infra.settings import Settings

VERSION_TAG = "rewardloop.version"
DIGEST_TAG = "rewardloop.record"
BUNDLE = "bundle"
"""Folder of the model's files among a run's artifacts."""

_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What the UI shows of an experiment: runs and models instead of traces and judges."""

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Record:
    """What is logged about one model version.

    ``digest`` changes when anything in the record does: a run that carries it is not logged again.
    ``files`` are artifacts by their path. ``at`` is the time of the run and of its metrics, in microseconds.
    """

    version: str
    digest: str
    description: str
    at: int
    dataset_digest: str
    as_of: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedRun:
    """A run that MLflow has."""

    run_id: str
    version: str
    digest: str


class Tracking:
    """MLflow at the URI of the settings. Opening it touches nothing yet."""

    def __init__(self, settings: Settings) -> None:
        prepare_environment(settings)
        self._uri = settings.tracking
        self._artifacts = None if settings.mlflow_tracking_uri else settings.home.resolve() / "mlflow" / "artifacts"
        self._opened: Any = None

    def runs(self, loop_id: str) -> dict[str, LoggedRun]:
        """The runs of a loop, by model version."""
        with _translated():
            found = self._client.search_runs([self._experiment(loop_id)], max_results=1_000)
        logged = [
            LoggedRun(run.info.run_id, run.data.tags[VERSION_TAG], run.data.tags.get(DIGEST_TAG, ""))
            for run in found
            if VERSION_TAG in run.data.tags
        ]
        return {run.version: run for run in logged}

    def log(self, loop_id: str, record: Record, run_id: str | None = None) -> str:
        """Log a record into ``run_id``, or into a new run, and register its bundle. Returns the run id.

        Repeating it changes nothing: parameters and metrics carry the record's own time. The tag with the
        record's digest is set last, so a run that was cut short is logged again.
        """
        with _translated():
            run_id = run_id or self._new_run(loop_id, record)
            self._log_values(run_id, record)
            self._log_files(run_id, record.files)
            self._register(loop_id, record, run_id)
            self._client.set_tag(run_id, DIGEST_TAG, record.digest)
            self._client.set_terminated(run_id, "FINISHED", end_time=record.at // 1_000)
        return run_id

    def point(self, loop_id: str, aliases: Mapping[Alias, str | None]) -> None:
        """Make the registered model's aliases name these versions; ``None`` removes an alias."""
        with _translated():
            numbers = self._numbers(loop_id)
            now = dict(self._client.get_registered_model(loop_id).aliases)
            for alias, version in aliases.items():
                number = numbers.get(version or "")
                if number is None and alias in now:
                    self._client.delete_registered_model_alias(loop_id, alias)
                elif number is not None and str(now.get(alias)) != number:
                    self._client.set_registered_model_alias(loop_id, alias, number)

    @property
    def _client(self) -> Any:
        if self._opened is None:
            from mlflow import MlflowClient  # costs two seconds and reads the environment: not at import

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            if self._artifacts is not None:
                self._artifacts.mkdir(parents=True, exist_ok=True)
            self._opened = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._opened

    def _experiment(self, loop_id: str) -> str:
        if (experiment := self._client.get_experiment_by_name(loop_id)) is not None:
            return str(experiment.experiment_id)
        location = None if self._artifacts is None else (self._artifacts / loop_id).as_uri()
        return str(self._client.create_experiment(loop_id, artifact_location=location, tags=_KIND))

    def _new_run(self, loop_id: str, record: Record) -> str:
        tags = {VERSION_TAG: record.version}
        run = self._client.create_run(
            self._experiment(loop_id), start_time=record.at // 1_000, tags=tags, run_name=record.version
        )
        return str(run.info.run_id)

    def _log_values(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, record.at // 1_000, 0) for name, value in record.metrics.items()],
            params=[Param(name, value) for name, value in record.parameters.items()],
            tags=[RunTag(name, value) for name, value in record.tags.items()]
            + [RunTag("mlflow.note.content", record.description)],
        )
        dataset = Dataset(
            name=f"as_of batch {record.as_of}",
            digest=record.dataset_digest[:36],  # MLflow's column is 36 wide; the whole digest is a tag
            source_type="rewardloop",
            source=f'{{"as_of": {record.as_of}, "digest": "{record.dataset_digest}"}}',
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run_id, folder)

    def _register(self, loop_id: str, record: Record, run_id: str) -> None:
        if not self._client.search_registered_models(f"name = '{loop_id}'"):
            self._client.create_registered_model(loop_id, description=f"Reward model of the loop {loop_id}")
        if record.version not in self._numbers(loop_id):
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{BUNDLE}"
            self._client.create_model_version(loop_id, source=source, run_id=run_id, tags={VERSION_TAG: record.version})

    def _numbers(self, loop_id: str) -> dict[str, str]:
        found = self._client.search_model_versions(f"name = '{loop_id}'")
        return {entry.tags.get(VERSION_TAG, ""): str(entry.version) for entry in found}


@contextmanager
def _translated() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise Unavailable(f"MLflow does not answer: {str(error).splitlines()[0]}") from error
