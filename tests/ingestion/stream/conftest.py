"""A worker's history, and what is left of it where nothing goes wrong."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.database import open_database
from infra.secrets import Secrets
from ingestion.stream import applier, worker
from tests.ingestion.stream.story import Story, history, quick
from tests.ingestion.streaming import left_in, prepared


@pytest.fixture(scope="session")
def expected(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a worker leaves of the history with which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_file, folder / "rewardloop.db")
    engine = prepared(open_database(f"sqlite:///{folder / 'rewardloop.db'}"))
    Story(engine, Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32}), quick(folder), history()).run()
    left = left_in(engine)
    engine.dispose()
    assert len(left["outcomes"]) == 12 + 6 + 6
    assert len(left["quarantine"]) == 1
    return left


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting costs milliseconds in these tests."""
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(worker, "REST_SECONDS", 0.002)
    monkeypatch.setattr(worker, "REVOKE_SECONDS", 5.0)
    monkeypatch.setattr(applier, "delays", lambda: iter(lambda: 0.001, None))


@pytest.fixture
def story(engine: Engine, secrets: Secrets, tmp_path: Path, hurried: None) -> Story:
    """The history over a store with one loop and one campaign, not read yet; small batches, applied at once."""
    return Story(prepared(engine), secrets, quick(tmp_path), history())
