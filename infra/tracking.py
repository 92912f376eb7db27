"""MLflow, behind a vocabulary of our own: the only module that imports it.

One experiment and one registered model per loop, one run per model version and per weekly report. MLflow is a mirror for people to read;
the database is the truth, so every call here can be repeated and nothing depends on its answer. What MLflow
raises when it is away becomes :class:`Unavailable`.

Bundles are uploaded as plain files and registered by their address, beside an ``MLmodel`` that lets who wants to load
the trees by ``mlflow.pyfunc`` (LightGBM text, no pickle). Nothing here ever loads a model from MLflow.

What a person sets on a registered version, the tag ``approval`` or the alias ``approved``, is a request: ``requests``
finds it, ``answer`` puts what became of it where it was asked and takes the request away. MLflow does not say who asked, so
requests count only where it lets nobody in without a password: ``guarded``.
"""

import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from sqlalchemy.exc import SQLAlchemyError

from infra.errors import Unavailable
from infra.services import prepare_environment
from infra.settings import Settings

VERSION_TAG = "rewardloop.version"
REPORT_TAG = "rewardloop.report"
DIGEST_TAG = "rewardloop.record"
REQUEST_TAG, REQUEST_ALIAS, ANSWER_TAG = "approval", "approved", "approval.answer"
PROMPT = "prompt."
"""What the names of prompts begin with: models are in the same registry."""
BUNDLE = "bundle"
"""Folder of the model's files among a run's artifacts."""
MODEL = "model"
"""Folder of what MLflow can load."""
_TREES = "model.lgb"

_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What the UI shows of an experiment: runs and models instead of traces and judges."""

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Record:
    """What is logged about one model version, or a report: then ``version`` is the period it is filed under.

    ``name``: of the run; without one it is the version. ``summary``: what the registry says of the version. ``digest`` changes when anything in the record does: a run that carries it is not logged again.
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
    figures: Mapping[str, float] = field(default_factory=dict)
    """All figures by their own names, of which ``metrics`` are some; only the files hold them."""
    name: str = ""
    summary: str = ""
    verdict: Mapping[str, str] = field(default_factory=dict)
    """Tags of the registered version."""


@dataclass(frozen=True)
class Request:
    """What a person asked for in MLflow about a version."""

    version: str
    wants: Literal["approved", "rejected"]
    alias: bool
    """Asked by the alias, else by the tag."""


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
        """The runs of a loop's versions, by version."""
        return self._tagged(loop_id, VERSION_TAG)

    def reports(self, loop_id: str) -> dict[str, LoggedRun]:
        """The runs of a loop's reports, by period."""
        return self._tagged(loop_id, REPORT_TAG)

    def log(self, loop_id: str, record: Record, run_id: str | None = None) -> str:
        """Log a record into ``run_id``, or into a new run, and register its bundle. Returns the run id.

        Repeating it changes nothing: parameters and metrics carry the record's own time. The tag with the
        record's digest is set last, so a run that was cut short is logged again.
        """
        with _translated():
            run_id = run_id or self._new_run(loop_id, record, VERSION_TAG)
            self._log_values(run_id, record)
            self._log_files(run_id, record.files)
            self._register(loop_id, record, run_id)
            self._finish(run_id, record)
        return run_id

    def log_report(self, loop_id: str, record: Record) -> str:
        """Log a report into its period's run, which is made if there is none. Returns the run id."""
        known = self.reports(loop_id).get(record.version)
        with _translated():
            run_id = known.run_id if known else self._new_run(loop_id, record, REPORT_TAG)
            self._log_values(run_id, record)
            self._log_files(run_id, record.files)
            self._finish(run_id, record)
        return run_id

    def keep_prompt(self, prompt_id: str, version: int, template: str, tags: Mapping[str, str]) -> None:
        """Have a prompt's version in the prompt registry, as ``prompt.<id>``; a version that is there, by its tag, stays.
        Given in order from the first on, MLflow's numbers are ours."""
        name = f"{PROMPT}{prompt_id}"
        with _translated():
            if str(version) not in self._prompt_versions(name):
                self._client.register_prompt(
                    name, template, commit_message=f"version {version}", tags={**tags, VERSION_TAG: str(version)}
                )

    def requests(self, loop_id: str) -> list[Request]:
        """What people asked for, by version."""
        with _translated():
            if not self._client.search_registered_models(f"name = '{loop_id}'"):
                return []
            pointed = dict(self._client.get_registered_model(loop_id).aliases).get(REQUEST_ALIAS)
            found = []
            for entry in self._entries(loop_id):
                version, asked = entry.tags.get(VERSION_TAG, ""), entry.tags.get(REQUEST_TAG, "").strip().lower()
                if asked in ("approved", "approve", "yes", "rejected", "reject", "no"):
                    wants: Literal["approved", "rejected"] = "approved" if asked[0] in "ay" else "rejected"
                    found.append(Request(version, wants, alias=False))
                elif pointed is not None and str(entry.version) == str(pointed):
                    found.append(Request(version, "approved", alias=True))
        return sorted(found, key=lambda request: request.version)

    def answer(self, loop_id: str, request: Request, sentence: str) -> None:
        """Say what became of a request, on the version it was about, and take the request away."""
        with _translated():
            number = self._numbers(loop_id).get(request.version)
            if request.alias:
                self._client.delete_registered_model_alias(loop_id, REQUEST_ALIAS)
            elif number is not None:
                self._client.delete_model_version_tag(loop_id, number, REQUEST_TAG)
            if number is not None:
                self._client.set_model_version_tag(loop_id, number, ANSWER_TAG, sentence[:5_000])

    def guarded(self) -> bool:
        """Whether MLflow is a server that lets nobody in without a password: asked as a stranger would ask."""
        if not self._uri.startswith(("http://", "https://")):
            return False
        scheme, _, rest = self._uri.partition("://")
        address = (
            f"{scheme}://{rest.rpartition('@')[2].rstrip('/')}/api/2.0/mlflow/registered-models/search?max_results=1"
        )
        try:
            return httpx2.get(address, timeout=10.0, trust_env=False).status_code in (401, 403)
        except httpx2.HTTPError as error:
            raise Unavailable(f"MLflow does not answer: {error}") from error

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

    def _tagged(self, loop_id: str, tag: str) -> dict[str, LoggedRun]:
        found: dict[str, LoggedRun] = {}
        with _translated():
            where, page = [self._experiment(loop_id)], None
            while True:
                runs = self._client.search_runs(where, f"tags.`{tag}` != ''", max_results=1_000, page_token=page)
                for run in runs:
                    named = run.data.tags[tag]
                    found[named] = LoggedRun(run.info.run_id, named, run.data.tags.get(DIGEST_TAG, ""))
                if not (page := runs.token):
                    return found

    def _new_run(self, loop_id: str, record: Record, tag: str) -> str:
        run = self._client.create_run(
            self._experiment(loop_id),
            start_time=record.at // 1_000,
            tags={tag: record.version},
            run_name=record.name or record.version,
        )
        return str(run.info.run_id)

    def _finish(self, run_id: str, record: Record) -> None:
        self._client.set_tag(run_id, DIGEST_TAG, record.digest)
        self._client.set_terminated(run_id, "FINISHED", end_time=record.at // 1_000)

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
        number = self._numbers(loop_id).get(record.version)
        if number is None:
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL if _has_model(record) else BUNDLE}"
            made = self._client.create_model_version(
                loop_id, source=source, run_id=run_id, tags={VERSION_TAG: record.version}
            )
            number = str(made.version)
        if record.summary:
            self._client.update_model_version(loop_id, number, record.summary)
        for name, value in record.verdict.items():
            self._client.set_model_version_tag(loop_id, number, name, value)

    def _numbers(self, loop_id: str) -> dict[str, str]:
        return {entry.tags.get(VERSION_TAG, ""): str(entry.version) for entry in self._entries(loop_id)}

    def _prompt_versions(self, name: str) -> set[str]:
        """Our numbers of the versions that the prompt registry has."""
        if not self._client.search_prompts(f"name = '{name}'"):
            return set()
        found, page = set[str](), None
        while True:
            part = self._client.search_prompt_versions(name, max_results=100, page_token=page)
            found |= {entry.tags.get(VERSION_TAG, "") for entry in part}
            if not (page := part.token):
                return found

    def _entries(self, loop_id: str) -> list[Any]:
        """Every registered version of a loop."""
        found: list[Any] = []
        page = None
        while True:
            part = self._client.search_model_versions(f"name = '{loop_id}'", max_results=1_000, page_token=page)
            found += part
            if not (page := part.token):
                return found


def loadable(trees: str, columns: Sequence[str], version: str) -> dict[str, bytes]:
    """Files that ``mlflow.pyfunc.load_model`` and ``mlflow.lightgbm.load_model`` read: the booster's text and what says how.
    It gives the trees' own sums; the bundle beside it is what serves.
    """
    from mlflow import __version__ as mlflow_version

    signature = [{"type": "double", "name": name, "required": True} for name in columns]
    description = {
        "artifact_path": MODEL,
        "flavors": {
            "lightgbm": {"code": None, "data": _TREES, "model_class": "lightgbm.basic.Booster"},
            "python_function": {
                "loader_module": "mlflow.lightgbm",
                "data": _TREES,
                "env": {"virtualenv": "python_env.yaml"},
                "python_version": platform.python_version(),
            },
        },
        "metadata": {"rewardloop.version": version},
        "mlflow_version": mlflow_version,
        "signature": {"inputs": json.dumps(signature), "outputs": json.dumps([{"type": "double", "required": True}])},
    }
    needed = f"python: {platform.python_version()}\ndependencies:\n- lightgbm>=4.7\n- pandas\n- mlflow\n"
    files = {"MLmodel": json.dumps(description, indent=1), _TREES: trees, "python_env.yaml": needed}
    return {f"{MODEL}/{name}": text.encode() for name, text in files.items()}


def _has_model(record: Record) -> bool:
    return f"{MODEL}/MLmodel" in record.files


@contextmanager
def _translated() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise Unavailable(f"MLflow does not answer: {str(error).splitlines()[0]}") from error


def ask_judge(
    instructions: str,
    brief: str,
    copy: Mapping[str, str],
    *,
    url: str,
    model: str,
    key: str,
    seconds: int,
    max_tokens: int,
) -> tuple[Any, str]:
    """What one of MLflow's own judges says of copy: value and rationale. It is asked at any OpenAI-compatible ``url``.

    instructions: with the places ``{{ inputs }}`` (the brief) and ``{{ outputs }}`` (the copy); it fills them as data.
    seconds: how long the server may be silent; MLflow then asks again, up to ten times. max_tokens: of the answer.
    Raises ``ValueError`` for an answer that it cannot read, and when the server does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.genai.judges import make_judge

    surroundings = {
        "OPENAI_API_BASE": url,
        "OPENAI_API_KEY": key or "none",
        "MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS": str(seconds),
    }
    with _surroundings(**surroundings):
        try:
            judge = make_judge(
                "copy",
                instructions,
                model=f"openai:/{model}",
                feedback_value_type=int,
                inference_params={"max_tokens": max_tokens},
            )
            found: Any = judge(inputs={"brief": brief}, outputs=dict(copy))
        except (MlflowException, OSError) as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # what MLflow makes of a body that is no answer has no name in common
            raise ValueError(f"no chat completion ({type(error).__name__})") from error
    return found.value, found.rationale if isinstance(found.rationale, str) else ""


@contextmanager
def _surroundings(**values: str) -> Iterator[None]:
    """Variables of the environment that MLflow reads, as long as it reads them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
