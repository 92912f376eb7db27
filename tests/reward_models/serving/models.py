"""Small real models for the tests of serving: trained, written, registered, ready to be promoted."""

from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from infra.database import writing
from ingestion.events import Content
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.boosted import RewardModel, fit
from tests.reward_models.training import SMALL, training_set


def trained(seed: int = 1) -> RewardModel:
    """A model of a loop whose older customers like questions."""
    rng = np.random.default_rng(seed)
    copy = [
        Content(content_id=f"t{number}", campaign_id=f"past{number % 6}", slots={"subject": f"Line {number}{mark}"})
        for number, mark in enumerate("?!" * 12)
    ]
    content = rng.integers(0, len(copy), 1_500)
    ages = rng.integers(20, 70, 1_500)
    liked = np.array([copy[index].slots["subject"].endswith("?") for index in content]) & (ages > 45)
    clicks = (rng.random(1_500) < np.where(liked, 0.6, 0.2)).astype(float)
    contexts = [{"age": int(age)} for age in ages]
    return fit(training_set(copy, content=content.tolist(), contexts=contexts, reward=clicks.tolist()), SMALL)


def registered(engine: Engine, home: Path, model: RewardModel, loop_id: str, state: registry.State = "passed") -> str:
    """Write the model's bundle and register it with this verdict; returns the version."""
    bundle = bundles.pack(model, cutoff=0)
    with writing(engine) as connection:
        version = registry.next_version(connection, loop_id)
        bundles.write(bundle, registry.path_of(home, loop_id, version))
        registry.register(
            connection,
            loop_id,
            version,
            digest=bundles.digest(bundle),
            config_digest="c" * 64,
            loop_version=1,
            as_of=1,
            cutoff=0,
            kind="first",
            now=1,
        )
        registry.settle(connection, loop_id, version, state, {})
    return version
