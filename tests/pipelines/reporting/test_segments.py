"""Segments: who they are, and that targeting is not taken for what copy does."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from infra.database import reading
from infra.secrets import Secrets
from ingestion.events import Content
from ingestion.ledger import newest_batch
from pipelines.reporting.segments import effects_of, segments
from reward_models.dataset import TrainingSet
from reward_models.loading import load_training_set
from tests.pipelines.worlds import NOW, populate


@pytest.fixture
def training(engine: Engine, secrets: Secrets) -> TrainingSet:
    """Three tones, of which new customers like one and old ones another."""
    rules = populate(engine, secrets)
    with reading(engine) as connection:
        return load_training_set(connection, rules, 1, as_of=newest_batch(connection), now=NOW)


def test_segments_are_the_values_of_small_features(training: TrainingSet) -> None:
    """Each value with a tenth of the decisions is a segment; together they hold every row."""
    rows = np.arange(len(training))
    found = segments(training, rows)

    assert sorted(name for name, _ in found) == ["segment: new", "segment: old"]
    assert np.array([member for _, member in found]).sum(axis=0).tolist() == [1] * len(rows)


def test_three_contents_are_too_few_to_say_what_works(training: TrainingSet) -> None:
    """Nothing is told of fewer contents than a contrast needs."""
    assert effects_of(training) == ()


def test_customers_who_click_more_are_not_the_copys_merit(training: TrainingSet) -> None:
    """Twelve equal contents, the questions sent to those who click twice as often: no factor is called sure."""
    rng = np.random.default_rng(3)
    texts = [f"Line {word}" + ("?" if place % 2 else "") for place, word in enumerate("abcdefghijkl")]
    contents = tuple(replace_content(training, place, text) for place, text in enumerate(texts))
    n = 24_000
    keen = rng.random(n) < 0.5
    asked = rng.random(n) < np.where(keen, 0.9, 0.1)
    content = 2 * rng.integers(0, 6, n) + asked
    clicked = (rng.random(n) < np.where(keen, 0.4, 0.2)).astype(np.float64)
    world = replace(
        training,
        contents=contents,
        content=content,
        reward=clicked,
        decided_at=np.sort(NOW - rng.integers(1, 10**12, n)),
        contexts=[{"mood": "keen" if each else "calm"} for each in keen],
    )
    raw = clicked[asked].mean() / clicked[~asked].mean()
    told = {effect.what: effect for effect in effects_of(world) if not effect.segment}

    assert raw > 1.4
    assert not told["question"].sure


def replace_content(training: TrainingSet, place: int, text: str) -> Content:
    """A content with another text."""
    return msgspec.structs.replace(training.contents[0], content_id=f"x{place:02}", slots={"subject": text})
