"""A loop whose first model serves, trained once for all tests of the flows and copied for each."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from infra.database import open_database
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.learning import Bench
from reward_models import registry
from reward_models.verification import Verifier
from tests.pipelines.flows.world import bench_of, promoted
from tests.pipelines.worlds import populate


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """The data folder of a loop with a champion; copy it, do not open it. All its decisions were drawn evenly."""
    home = tmp_path_factory.mktemp("served")
    shutil.copy(migrated_file, home / "rewardloop.db")
    settings = Settings(home=home)
    engine = open_database(settings.database)
    populate(engine, Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))}))
    promoted(bench_of(settings, engine))
    engine.dispose()
    return home


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    """One sacrificial process for all tests: starting one takes seconds."""
    with Verifier() as verifier:
        yield verifier


@pytest.fixture
def bench(served: Path, verifier: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench over a copy of it."""
    monkeypatch.setattr(registry, "load_verified", partial(registry.load_verified, verifier=verifier))
    settings = Settings(home=Path(shutil.copytree(served, tmp_path / "home")))
    engine = open_database(settings.database)
    yield bench_of(settings, engine)
    engine.dispose()
