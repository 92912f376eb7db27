"""MLflow made to look like the database and the report folders: a mirror for people, mended whenever it is looked at.

    <home>/reports/<loop>/<digest>/report.json, *.png      written before a version is registered

``mirror`` goes over the versions of a loop: 1 a version whose run is missing, was cut short or tells an older
state is logged (again), 2 the run is noted in the database, 3 the aliases ``champion`` and ``challenger`` are set.
With MLflow away nothing of this happens, one warning is logged, and the next call catches up.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import msgspec
from sqlalchemy import Engine, update

from infra import tables
from infra.database import canonical_json, reading, writing
from infra.errors import ModelRefused, Unavailable
from infra.logs import log
from infra.settings import Settings
from infra.tracking import BUNDLE, Record, Tracking, loadable
from pipelines.names import WORDS, business
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.registry import Version
from reward_models.report import Bar, Story, describe, earnings

_FILE = "report.json"
_TOLD_AS = 2
"""Raised when versions are told otherwise: every run is then logged again."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a version when it is registered; the gate's verdict is added from the database."""

    loop_id: str
    dataset_digest: str
    words: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    changed: list[str]
    cautions: list[str]
    top: list[str]
    """Copy of the best contents, best first."""
    columns: dict[str, str] = msgspec.field(default_factory=lambda: dict(WORDS))
    """Figures that are columns in MLflow, and what they are called there."""


def keep(settings: Settings, digest: str, report: Report, pictures: Mapping[str, bytes]) -> None:
    """Write a report for the bundle of this digest; a reader finds all of it or nothing."""
    folder = _folder(settings, report.loop_id, digest)
    if folder.exists():
        return
    draft = folder.with_name(f"{folder.name}.{uuid4().hex}")
    draft.mkdir(parents=True)
    for name, content in pictures.items():
        (draft / name).write_bytes(content)
    (draft / _FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    try:
        os.rename(draft, folder)
    except OSError:  # another run was first: its report is of the same bundle
        if not folder.exists():
            raise


def load_report(settings: Settings, loop_id: str, digest: str) -> Report | None:
    """The report of a bundle; None where there is none: an imported or trained-by-hand version."""
    path = _folder(settings, loop_id, digest) / _FILE
    return msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None


def story_of(report: Report, version: Version, champion: str | None) -> Story:
    """The description's words, from the report and from what the database says now."""
    gate = version.gate or {}
    return Story(
        loop_id=report.loop_id,
        version=version.version,
        kind=version.kind,
        state=version.state,
        verdict=gate.get("sentence", "The gate has not judged it yet."),
        serving=f"{champion}." if champion else "The baseline: no model has been promoted yet.",
        changed=report.changed,
        cautions=report.cautions,
        top=[Bar(text, 0.0, 0.0, 0.0) for text in report.top],
    )


def mirror(settings: Settings, engine: Engine, tracking: Tracking, loop_id: str) -> bool:
    """Bring MLflow up to date with a loop. False, and a warning in the log, when MLflow is away."""
    with reading(engine) as connection:
        versions = registry.versions(connection, loop_id)[::-1]
        serving = registry.champion(connection, loop_id)
    champion = serving.version if serving else None
    try:
        logged = tracking.runs(loop_id)
        for version in versions:
            known = logged.get(version.version)
            if known is not None and known.digest == digest_of(version):
                continue
            if (record := record_of(settings, version, champion)) is not None:
                run_id = tracking.log(loop_id, record, known.run_id if known else None)
                _note_run(engine, version, run_id)
        if versions:
            tracking.point(loop_id, {"champion": champion, "challenger": _challenger(versions, champion)})
    except Unavailable as error:
        log.warning("not mirrored to MLflow; the next run tries again", loop=loop_id, reason=str(error))
        return False
    return True


def digest_of(version: Version) -> str:
    """SHA-256 of what is told about a version: a run that carries it needs no further word."""
    told = [_TOLD_AS, version.digest, version.state, version.gate or {}, version.approvals]
    return hashlib.sha256(canonical_json(told)).hexdigest()


def record_of(settings: Settings, version: Version, champion: str | None) -> Record | None:
    """What MLflow should hold about a version; None where no report was kept."""
    report = load_report(settings, version.loop_id, version.digest)
    if report is None:
        return None
    gate = version.gate or {}
    serving = version.version if version.state == "promoted" else gate.get("champion") or champion
    figures = report.metrics | {"gate_passed": float(version.state in ("passed", "promoted"))}
    description = describe(story_of(report, version, serving), figures, report.words)
    files = _files(settings, version) | {
        "figures.json": msgspec.json.format(msgspec.json.encode(figures)),
        "gate.json": msgspec.json.format(msgspec.json.encode(gate)),
    }
    return Record(
        version=version.version,
        digest=digest_of(version),
        description=description,
        at=version.created_at,
        dataset_digest=report.dataset_digest,
        as_of=version.as_of,
        parameters=report.parameters,
        metrics=business(figures, report.columns),
        figures=figures,
        tags={
            "rewardloop.loop": version.loop_id,
            "rewardloop.kind": version.kind,
            "rewardloop.state": version.state,
            "rewardloop.as_of": str(version.as_of),
            "rewardloop.dataset_digest": report.dataset_digest,
            "rewardloop.bundle_digest": version.digest,
        },
        files=files,
        summary=description,
        verdict={"gate": version.state, "would have earned": earnings(figures, report.words)},
    )


def _files(settings: Settings, version: Version) -> dict[str, bytes]:
    pictures = sorted(_folder(settings, version.loop_id, version.digest).glob("*.png"))
    bundle = sorted(path for path in bundle_path(settings, version).rglob("*") if path.is_file())
    files = {f"plots/{path.name}": path.read_bytes() for path in pictures}
    files |= {f"{BUNDLE}/{path.relative_to(bundle_path(settings, version))}": path.read_bytes() for path in bundle}
    return files | (_loadable(files, version) if bundle else {})


def _loadable(files: Mapping[str, bytes], version: Version) -> dict[str, bytes]:
    """What MLflow itself can load, from the bundle's own text; nothing for a bundle of another format."""
    try:
        schema = bundles.manifest({bundles.MANIFEST: files[f"{BUNDLE}/{bundles.MANIFEST}"]}).feature_schema
        return loadable(files[f"{BUNDLE}/{bundles.MODEL}"].decode(), schema.names, version.version)
    except (KeyError, ModelRefused):
        return {}


def bundle_path(settings: Settings, version: Version) -> Path:
    """Folder of a version's bundle."""
    return registry.path_of(settings.bundles, version.loop_id, version.version)


def _folder(settings: Settings, loop_id: str, digest: str) -> Path:
    return settings.home / "reports" / loop_id / digest


def _challenger(versions: Sequence[Version], champion: str | None) -> str | None:
    newest = versions[-1]
    return None if newest.version == champion or newest.state == "promoted" else str(newest.version)


def _note_run(engine: Engine, version: Version, run_id: str) -> None:
    c = tables.model_versions.c
    with writing(engine) as connection:
        connection.execute(
            update(tables.model_versions)
            .where(c.loop_id == version.loop_id, c.version == version.version)
            .values(tracking_run=run_id)
        )
