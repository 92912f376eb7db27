"""A bench over a small world, with MLflow in memory: what the flows' steps are tested on."""

from typing import Any, cast

from sqlalchemy import Engine

from infra.clock import Clock
from infra.settings import Settings
from infra.tracking import Tracking
from pipelines.learning import Bench, Outcome, retrain
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.worlds import NOW

LOOP = "subjects"


def bench_of(settings: Settings, engine: Engine, clock: Clock = lambda: NOW, **changes: Any) -> Bench:
    """A bench whose clock stands still unless told otherwise."""
    settings = settings.model_copy(update=changes)
    return Bench(settings, engine, clock, cast(Tracking, MemoryTracking()))


def promoted(bench: Bench) -> Outcome:
    """The first model of a world that has a taste passes the gate."""
    outcome = retrain(bench, LOOP)
    assert outcome.state == "promoted", outcome.sentence
    return outcome
