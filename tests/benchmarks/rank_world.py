"""The installation that ``bench_rank`` asks: a model of 300 trees of 31 leaves over 60 features, of which 40 belong to
the content, and campaigns of 20, 50 and 200 approved contents, one running loop with holdout, in PostgreSQL.

The model is made directly, not by ``fit``: that would choose its own number of rounds. It is packed, registered,
promoted and verified like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, make_url

from infra.clock import system_clock
from infra.database import chunks, open_database, writing
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion import store
from ingestion.contents import start_campaign
from ingestion.events import Batch, Campaign, Content
from ingestion.keys import create_key
from ingestion.loops import ModelSettings, parse_definition, put_loop
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.anatomy import trim
from reward_models.boosted import RewardModel, fit
from reward_models.calibration import Calibration
from reward_models.features import POSITION, TEXT_SCORE, Column, FeatureSchema
from reward_models.golden import Example, GoldenRows, golden_matrix
from reward_models.levels import Levels
from tests.benchmarks.servers import new_database
from tests.reward_models.training import worded

Floats = npt.NDArray[np.float64]

LOOP = "email"
DRAFTS = "drafts"
"""Loop and campaign of drafts; its model reads texts."""
TREES, LEAVES = 300, 31
CONTEXT, CONTENT = 20, 40
"""Features: 19 of the customer and the position; 38 of the content, ``no_send`` and the text score."""
SIZES = (20, 50, 200)
_ROWS = 20_000
_AT_ONCE = 5_000
_DEFINITION = {
    "metrics": [{"name": "click", "event": "click"}],
    "reward": {"click": 1},
    "holdout": 0.05,
    "approval": "automatic",
}
_NAMES = [f"x{number:02d}" for number in range(CONTEXT - 1)]
_FEATURES = [f"f{number:02d}" for number in range(CONTENT - 2)]


@dataclass(frozen=True)
class World:
    """What every server of the benchmark serves: the model, and the copy of each campaign by its size."""

    model: RewardModel
    reader: RewardModel
    """Reads texts."""
    copy: dict[int, list[Content]]

    def matrix(self, size: int, context: Sequence[float]) -> Floats:
        """The rows of a campaign in one context, shape (size, 60), as a server without our store is sent them."""
        content = np.array([[one.features[name] for name in _FEATURES] for one in self.copy[size]], dtype=np.float64)
        left = np.tile([*context, 1.0], (size, 1))
        return np.hstack([left, content, np.zeros((size, 2))])


def make(seed: int = 1) -> World:
    """The world of a seed."""
    rng = np.random.default_rng(seed)
    return World(_model(rng), fit(worded(), ModelSettings()), {size: contents(rng, f"c{size}", size) for size in SIZES})


def contents(rng: np.random.Generator, campaign_id: str, count: int) -> list[Content]:
    """Approved contents of a campaign."""
    features = rng.normal(size=(count, len(_FEATURES))).round(4)
    return [
        Content(
            content_id=f"{campaign_id}-{number:05d}",
            campaign_id=campaign_id,
            slots={"subject": f"Line {number} of {campaign_id}"},
            features=dict(zip(_FEATURES, row, strict=True)),
            approval="approved",
        )
        for number, row in enumerate(features.tolist())
    ]


def contexts(count: int, seed: int = 2) -> list[list[float]]:
    """What is known of customers, 19 numbers each."""
    found: list[list[float]] = np.random.default_rng(seed).normal(size=(count, len(_NAMES))).round(4).tolist()
    return found


def questions(size: int, count: int) -> list[bytes]:
    """Bodies of POST /v1/rank for a campaign, each of another customer."""
    return [
        msgspec.json.encode(
            {
                "loop": LOOP,
                "campaign": f"c{size}",
                "unit": f"customer-{number}",
                "context": dict(zip(_NAMES, row, strict=True)),
            }
        )
        for number, row in enumerate(contexts(count))
    ]


def install(settings: Settings, world: World, more: Sequence[Content] = ()) -> None:
    """Fill an empty database and the data folder. ``more``: contents of further campaigns."""
    settings.home.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database)
    migrate(engine)
    secrets = load_secrets(settings)
    first = contents(np.random.default_rng(4), DRAFTS, 5)
    copy = [*first, *(one for some in world.copy.values() for one in some), *more]
    names = sorted({one.campaign_id for one in copy})
    with writing(engine) as connection:
        for loop in (LOOP, DRAFTS):
            put_loop(connection, parse_definition(_DEFINITION | {"loop": loop}), 0)
    campaigns = tuple(
        Campaign(campaign_id=name, loop_id=DRAFTS if name == DRAFTS else LOOP, state="draft") for name in names
    )
    store.apply(engine, Batch(campaigns=campaigns), secrets, 0)
    for some in chunks(copy, _AT_ONCE):
        store.apply(engine, Batch(contents=tuple(some)), secrets, 0)
    with writing(engine) as connection:
        for name in names:
            start_campaign(connection, name, None, "benchmark", 0)
    _promote(engine, settings, LOOP, world.model)
    _promote(engine, settings, DRAFTS, world.reader)
    engine.dispose()


def _promote(engine: Engine, settings: Settings, loop: str, model: RewardModel) -> None:
    bundle = bundles.pack(model, cutoff=0)
    with writing(engine) as connection:
        version = registry.next_version(connection, loop)
        bundles.write(bundle, registry.path_of(settings.bundles, loop, version))
        digest = bundles.digest(bundle)
        rest: dict[str, Any] = {"loop_version": 1, "as_of": 1, "cutoff": 0, "kind": "first", "now": 1}
        registry.register(connection, loop, version, digest=digest, config_digest="c" * 64, **rest)
        registry.settle(connection, loop, version, "passed", {})
        registry.promote(connection, loop, version, registry.NO_CHAMPION, 1, "benchmark")


def _model(rng: np.random.Generator) -> RewardModel:
    matrix = rng.normal(size=(_ROWS, CONTEXT + CONTENT))
    matrix[:, CONTEXT - 1], matrix[:, -2:] = 1.0, (0.0, np.nan)
    weights = rng.normal(size=(CONTEXT + CONTENT, 8))
    known = np.nan_to_num(matrix)
    target = np.tanh(known @ weights / 4.0).prod(axis=1) * 20.0 + np.sin(known @ weights[:, 0]) + rng.normal(size=_ROWS)
    settings = ModelSettings(rounds=TREES, leaves=LEAVES, min_leaf=20)
    parameters: dict[str, Any] = {
        "num_leaves": LEAVES,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_leaf,
        "num_threads": 1,
        "verbosity": -1,
        "seed": settings.seed,
    }
    parameters["objective"] = lambda g, data: (g - data.get_label(), np.ones(len(g)))
    names = [f"f{index}" for index in range(CONTEXT + CONTENT)]
    data = lgb.Dataset(matrix, 0.05 * target, feature_name=names)
    booster = lgb.train(parameters, data, num_boost_round=TREES)
    text = trim(booster.model_to_string(num_iteration=-1))
    model = RewardModel(
        schema=FeatureSchema(
            context=(*(Column(f"context.{name}") for name in _NAMES), Column(POSITION)),
            content=(*(Column(f"content.{name}") for name in _FEATURES), Column("no_send"), Column(TEXT_SCORE)),
        ),
        levels=Levels(mean=0.05, base=0.05, dispersion=1.0, campaigns={}),
        text=None,
        calibration=Calibration(spread=0.2),
        booster_text=text,
        booster=lgb.Booster(model_str=text),
        golden=GoldenRows(),
        settings=settings,
        loop_id=LOOP,
        as_of=1,
        training_digest="0" * 64,
        report={},
    )
    picked = golden_matrix(model.booster, matrix, settings.seed)
    rows = tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in picked)
    scores = tuple(model.relative(picked).tolist())
    return replace(model, golden=GoldenRows(rows=rows, scores=scores, examples=_examples(model)))


def _examples(model: RewardModel) -> tuple[Example, ...]:
    """Whole predictions, for the verification of the bundle."""
    known = [dict(zip(_NAMES, row, strict=True)) for row in contexts(8)]
    copy = contents(np.random.default_rng(3), "golden", len(known))
    scores = model.rows(known, copy).tolist()
    return tuple(
        Example(context=context, content=content, position=1, score=score)
        for context, content, score in zip(known, copy, scores, strict=True)
    )


def save(world: World, folder: Path) -> None:
    """The model and the rows of each size as the floors and MLflow read them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_text(world.model.booster_text)
    context = contexts(1)[0]
    for size in SIZES:
        np.save(folder / f"rows-{size}.npy", world.matrix(size, context))


def rows_of(world: World, size: int, count: int) -> list[bytes]:
    """Bodies with whole rows, as ``mlflow models serve`` takes them."""
    return [msgspec.json.encode({"inputs": world.matrix(size, one).tolist()}) for one in contexts(count)]


def installation(home: Path, postgres: str, world: World, more: Sequence[Content] = ()) -> Settings:
    """Settings of a new installation with a database of its own, filled."""
    url = make_url(new_database(postgres, home.name)).set(drivername="postgresql")
    settings = Settings(home=home, database_url=url.render_as_string(hide_password=False))
    install(settings, world, more)
    return settings


def key_header(settings: Settings) -> str:
    """The header line of a new API key that may rank as fast as it can."""
    engine, secrets = open_database(settings.database), load_secrets(settings)
    with writing(engine) as connection:
        key = create_key(connection, secrets, "sender", ["rank"], [], "999999999/second", system_clock())
    engine.dispose()
    return f"Authorization: Bearer {key}\r\n"


def drafts(count: int, seed: int = 3) -> list[bytes]:
    """Bodies with five drafts of 300 words each that nobody has seen."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(letters) for letters in rng.choice(list("abdegiklmnoprstu"), size=(4_000, 6))])
    return [
        msgspec.json.encode(
            {
                "loop": DRAFTS,
                "campaign": "drafts",
                "context": dict(zip(_NAMES, row, strict=True)),
                "candidates": [{"slots": {"body": " ".join(rng.choice(words, size=300))}} for _ in range(5)],
            }
        )
        for row in contexts(count)
    ]
