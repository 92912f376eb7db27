"""Clicks through our own redirect with a real Kafka: onto the topic, into the spool while the broker is down, and out."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from infra.broker import ensure_topics
from infra.database import reading
from infra.deploy.kafka import LocalKafka
from infra.settings import Settings
from infra.tables import event_labels, events
from ingestion.stream.topics import all_topics
from tests.conftest import need_local_kafka
from tests.pipelines.api import define, inside, rank, running, trace
from tests.stack.test_publishing import wait_for, working

pytestmark = pytest.mark.stack

BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}


def stored(client: TestClient) -> tuple[int, int]:
    """How many clicks are stored, and how many labels."""
    with reading(inside(client).collector.engine) as connection:
        counts = [connection.scalar(select(func.count()).select_from(table)) or 0 for table in (events, event_labels)]
    return counts[0], counts[1]


def test_clicks_outlive_the_broker(sqlite_url: str, tmp_path: Path) -> None:
    """Readers are led on whether the broker is up or down; in the end every click is stored once, with its label."""
    need_local_kafka()
    with LocalKafka() as brokers:
        settings = Settings(home=tmp_path / "home", kafka_bootstrap_servers=brokers.bootstrap_servers)
        ensure_topics(settings, list(all_topics()))
        with running(
            sqlite_url,
            settings.home,
            kafka_bootstrap_servers=brokers.bootstrap_servers,
            redirect_hosts=["shop.example.com"],
        ) as client:
            define(client)
            answer = rank(client, decision_id="d1", links={"cta": "https://shop.example.com/sale"})
            link = answer["ranked"][0]["links"]["cta"]
            led = [client.get(link, headers=BROWSER, follow_redirects=False).status_code]
            brokers.stop_broker(0)
            led += [client.get(link, headers=BROWSER, follow_redirects=False).status_code for _ in range(2)]
            led.append(client.head(link, headers=BROWSER, follow_redirects=False).status_code)
            waiting = sum(path.read_bytes().count(b"\n") for path in settings.spool.glob("*.spool"))
            brokers.start_broker(0)
            with working(settings, sqlite_url):
                wait_for(lambda: not list(settings.spool.glob("*.spool")))
                wait_for(lambda: stored(client) == (4, 1))
                outcome = wait_for(lambda: [one for one in trace(client, "d1")["outcomes"] if one["count"] == 3])

            assert led == [302] * 4
            assert waiting == 3
            assert [(one["metric"], one["value"]) for one in outcome] == [("click", 1.0)]
