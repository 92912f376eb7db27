"""A back-up of an installation that streams: Kafka is read on over the restored database, and nothing is lost."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.stream.topics import topics
from pipelines.backups import back_up, restore
from tests.ingestion.streaming import left_in, positions, prepared
from tests.pipelines.test_backups import path_of_clients
from tests.stack.test_worker import facts_of, history, publish, wait_for_all, wait_until, working

pytestmark = pytest.mark.stack


def test_topics_are_read_on_over_a_restored_database(
    any_engine: Engine, kafka_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied in the middle of the stream while a worker applies it, lost at its end, restored: the worker reads what came
    since from the topics again, and facts, outcomes and sums are what they were; the ledger is whole."""
    path_of_clients(monkeypatch)
    url = any_engine.url.render_as_string(hide_password=False)
    small = {"worker_batch_records": 25, "sources": ("shop",), "worker_batch_wait_ms": 5, "database_url": url}
    settings = kafka_settings.model_copy(update=small)
    named, secrets, store = topics(settings.kafka_topic_prefix), load_secrets(settings), prepared(any_engine)
    publish(settings, history(named, range(30)))
    with working(store, secrets, settings):
        wait_until(lambda: sum(positions(store).values()) > 20, "the worker is in the middle of it")
        back_up(settings, store, secrets, tmp_path / "copy", 0, with_secrets=False)
        publish(settings, history(named, range(30, 60)))
        wait_for_all(store, settings, named)
    whole = left_in(store)
    store.dispose()

    restore(settings, tmp_path / "copy", 0, overwrite=True)
    behind = left_in(store)
    with working(store, secrets, settings):
        wait_for_all(store, settings, named)
    again = left_in(store)

    assert sum(behind["offsets"].values()) < sum(whole["offsets"].values())
    assert len(behind["decisions"]) < len(whole["decisions"]) == 60
    assert facts_of(again) == facts_of(whole)
    assert (again["conservation"], again["offsets"]) == (0, whole["offsets"])
