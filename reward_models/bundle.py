"""What a model is on disk: LightGBM text and JSON, never a pickle.

    model.txt       the booster
    manifest.json   columns, levels, calibration, settings, configuration, as_of, cutoff, training digest, aging,
                    memory, versions
    text.json       the text model (absent without one)
    golden.json     inputs with the scores they must give

A bundle is a mapping of file name to bytes. Its digest is taken of the bytes in memory, before anything is
written (invariant 17).

    pack(model, *, cutoff, configuration="") -> Bundle      unpack(bundle) -> RewardModel      manifest(bundle)
    digest(bundle) -> str      write(bundle, folder)      read(folder) -> Bundle

``unpack`` parses with LightGBM, which dies on damaged text. The text is checked first (``anatomy.py``), and still only
``registry.load_verified`` may call it on bytes that came from outside.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import sklearn

from infra.database import canonical_json
from infra.errors import ModelRefused
from ingestion.loops import ModelSettings
from reward_models.aging import AGELESS, Aging
from reward_models.anatomy import check_anatomy
from reward_models.boosted import RewardModel
from reward_models.calibration import Calibration
from reward_models.features import FeatureSchema
from reward_models.golden import GoldenRows
from reward_models.levels import Levels
from reward_models.memory import NOTHING, Memory
from reward_models.text import read_text_model

Bundle = Mapping[str, bytes]

FORMAT = 2
MODEL, MANIFEST, TEXT, GOLDEN = "model.txt", "manifest.json", "text.json", "golden.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``. ``configuration``: digest of metrics, reward, model and policy, so that another policy is
    another bundle."""

    format: int
    loop_id: str
    feature_schema: FeatureSchema
    schema_hash: str
    mean: float
    base: float
    dispersion: float
    campaigns: dict[str, float]
    centre: float
    centres: dict[str, float]
    calibration: Calibration
    settings: dict[str, Any]
    configuration: str = ""
    as_of: int
    cutoff: int
    training_digest: str
    report: dict[str, float]
    aging: Aging = AGELESS
    memory: Memory = NOTHING
    versions: dict[str, str]


def pack(model: RewardModel, *, cutoff: int, configuration: str = "") -> Bundle:
    """The bundle of a model that was trained on decisions before ``cutoff`` (microseconds)."""
    levels = model.levels
    manifest = Manifest(
        format=FORMAT,
        loop_id=model.loop_id,
        feature_schema=model.schema,
        schema_hash=model.schema.hash,
        mean=levels.mean,
        base=levels.base,
        dispersion=levels.dispersion,
        campaigns=dict(levels.campaigns),
        centre=levels.centre,
        centres=dict(levels.centres),
        calibration=model.calibration,
        settings=model.settings.model_dump(mode="json"),
        configuration=configuration,
        as_of=model.as_of,
        cutoff=cutoff,
        training_digest=model.training_digest,
        report=dict(model.report),
        aging=model.aging,
        memory=model.memory,
        versions={"lightgbm": lgb.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
    )
    files = {
        MODEL: model.booster_text.encode(),
        MANIFEST: canonical_json(manifest),
        GOLDEN: canonical_json(model.golden),
    }
    return files if model.text is None else {**files, TEXT: canonical_json(model.text.document())}


def unpack(bundle: Bundle) -> RewardModel:
    """The model of a bundle. Its scores are those of the model that was packed, to 1e-9.

    Raises :class:`ModelRefused` for a file that is missing or is not what it must be.
    """
    try:
        manifest = msgspec.json.decode(bundle[MANIFEST], type=Manifest)
        golden = msgspec.json.decode(bundle[GOLDEN], type=GoldenRows)
        text = read_text_model(msgspec.json.decode(bundle[TEXT])) if TEXT in bundle else None
        settings = ModelSettings.model_validate(manifest.settings)
        booster_text = bundle[MODEL].decode()
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ModelRefused(f"The bundle cannot be read: {error!r}. Train the loop again") from None
    _check(manifest)
    check_anatomy(booster_text, len(manifest.feature_schema.columns))
    return RewardModel(
        schema=manifest.feature_schema,
        levels=Levels(
            manifest.mean,
            manifest.base,
            manifest.dispersion,
            manifest.campaigns,
            manifest.centre,
            manifest.centres,
        ),
        text=text,
        calibration=manifest.calibration,
        booster_text=booster_text,
        booster=lgb.Booster(model_str=booster_text),
        golden=golden,
        settings=settings,
        loop_id=manifest.loop_id,
        as_of=manifest.as_of,
        training_digest=manifest.training_digest,
        report=manifest.report,
        aging=manifest.aging,
        memory=manifest.memory,
    )


def manifest(bundle: Bundle) -> Manifest:
    """The manifest of a bundle. Raises :class:`ModelRefused` when it is missing or damaged."""
    try:
        return msgspec.json.decode(bundle[MANIFEST], type=Manifest)
    except (KeyError, msgspec.MsgspecError) as error:
        raise ModelRefused(f"The bundle's manifest cannot be read: {error!r}") from None


def digest(bundle: Bundle) -> str:
    """SHA-256 over the files, sorted by name: each name and content with its length before it."""
    state = hashlib.sha256()
    for name in sorted(bundle):
        for part in (name.encode(), bundle[name]):
            state.update(len(part).to_bytes(8, "big"))
            state.update(part)
    return state.hexdigest()


def write(bundle: Bundle, folder: Path) -> None:
    """Write the bundle as ``folder``, whole or not at all. A folder that is there already is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-", ignore_cleanup_errors=True) as draft:
        for name, content in bundle.items():
            _write_through(Path(draft) / name, content)
        _rename(Path(draft), folder)


def read(folder: Path) -> Bundle:
    """The files of a folder. Raises :class:`ModelRefused` when it is not there."""
    try:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    except OSError as error:
        raise ModelRefused(f"The model's folder cannot be read: {error}") from None


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise ModelRefused(
            f"The bundle has format {manifest.format}, this version reads {FORMAT}. Train the loop again"
        )
    if manifest.schema_hash != manifest.feature_schema.hash:
        raise ModelRefused("The bundle's feature schema does not have the hash it was packed with")


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(draft: Path, folder: Path) -> None:
    draft.chmod(0o755)
    try:
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
