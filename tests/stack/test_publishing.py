"""From the API through a real Kafka and a worker to outcomes, and an API whose broker goes away and comes back."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.broker import Consumer, Message, Producer, ensure_topics, topic_ids
from infra.clock import format_time, system_clock
from infra.database import open_database
from infra.deploy.kafka import LocalKafka
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.ledger import conservation
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.topics import all_topics, topics
from ingestion.stream.worker import Worker
from tests.conftest import need_local_kafka
from tests.pipelines.api import click, define, inside, ok, rank, refused, running, trace

pytestmark = pytest.mark.stack

SECONDS = 60.0


def wait_for(found: Callable[[], Any]) -> Any:
    """What ``found`` gives once it gives something; fails after a minute."""
    deadline = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.1)
    return result


def api(settings: Settings, url: str) -> TestClient:
    """An API that publishes to that Kafka."""
    return running(
        url,
        settings.home,
        kafka_bootstrap_servers=settings.kafka_bootstrap_servers,
        kafka_topic_prefix=settings.kafka_topic_prefix,
    )


@contextmanager
def working(settings: Settings, url: str) -> Iterator[Worker]:
    """A worker of the installation, in a thread."""
    engine, read = open_database(url), [topic.name for topic in topics(settings.kafka_topic_prefix).read]
    secrets, stop = load_secrets(settings), threading.Event()
    worker = Worker(
        engine,
        secrets,
        settings,
        system_clock,
        lambda assignment: Consumer(settings, read, settings.kafka_group, assignment),
        TopicDecoder(engine, secrets, settings, system_clock),
        lambda: topic_ids(settings, read),
    )
    thread = threading.Thread(target=worker.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        stop.set()
        thread.join(SECONDS)
        engine.dispose()


def test_from_the_api_to_outcomes(kafka_settings: Settings, postgres_url: str) -> None:
    """Events sent to the API and records that other teams wrote end as outcomes; the same again changes nothing."""
    url, named = postgres_url, topics(kafka_settings.kafka_topic_prefix)
    producer = Producer(kafka_settings)
    try:
        with api(kafka_settings, url) as client, working(kafka_settings, url):
            define(client)
            token = rank(client, decision_id="d1", unit="jane")["token"]
            unit = inside(client).collector.secrets.unit("john")
            now = format_time(system_clock())
            elsewhere = Message(
                named.decisions.name,
                unit.encode(),
                f'{{"decision_id":"d2","loop":"mail","campaign":"june","decided_at":"{now}","unit":"{unit}",'
                '"candidates":["a","b"],"content_id":"b"}'.encode(),
            )
            headers = {"specversion": "1.0", "id": "ce1", "source": "http", "type": "com.shop.click", "time": now}
            cloud = Message(
                named.events.name,
                b"d2",
                b"",
                tuple((f"ce_{name}", value.encode()) for name, value in (headers | {"rldecisionid": "d2"}).items()),
            )
            poison = Message(named.events.name, None, b"\xff\x00")
            assert producer.publish([elsewhere, cloud, cloud, poison]) == [None] * 4
            body = {
                "events": [click("e1", token=token), click("e2", unit="jane", type="purchase", value=5, currency="EUR")]
            }
            for _ in range(2):
                assert client.post("/v1/events", json=body).status_code == 202
            wait_for(lambda: len(trace(client, "d1")["outcomes"]) == 2)
            wait_for(lambda: client.get("/v1/decisions/d2").status_code == 200 and trace(client, "d2")["outcomes"])
            found = trace(client, "d2")

            assert {one["metric"]: one["value"] for one in trace(client, "d1")["outcomes"]} == {
                "click": 1,
                "revenue": 5,
            }
            assert (found["decision"]["group"], found["replay"]["choice"]) == ("customer_managed", "not possible")
            assert [(one["metric"], one["content_id"]) for one in found["outcomes"]] == [("click", "b")]
            assert conservation(inside(client).collector.engine) == 0
    finally:
        producer.close()


def test_the_broker_goes_and_comes_back(sqlite_url: str, tmp_path: Path) -> None:
    """While the broker is down events are told to come again and choices are answered; once it is up they are taken."""
    need_local_kafka()
    body = {"events": [click("e1", decision_id="d1")]}
    with LocalKafka() as brokers:
        settings = Settings(home=tmp_path, kafka_bootstrap_servers=brokers.bootstrap_servers)
        ensure_topics(settings, list(all_topics()))
        with api(settings, sqlite_url) as client:
            define(client)
            ok(client.post("/v1/events", json=body))
            brokers.stop_broker(0)

            assert rank(client)["durable"]
            assert "acknowledged 0 of 1 events" in refused(client.post("/v1/events", json=body), 503)
            brokers.start_broker(0)
            wait_for(lambda: client.post("/v1/events", json=body).status_code == 202)
