"""The API with Kafka configured, over a producer that keeps messages in memory and fails when told to."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

import pipelines.app
from infra import tables
from infra.broker import Message, Record
from infra.database import reading
from infra.errors import Misconfigured, RewardloopError, Unavailable
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch, Event, Label
from ingestion.http.redirects import Click
from ingestion.ledger import conservation
from ingestion.stream.definitions import place_of
from ingestion.stream.messages import batch_of, decode_record
from ingestion.stream.publisher import Publisher, accept
from tests.pipelines.api import away, click, define, inside, ok, rank, refused, running, send, trace

TOPIC = "rewardloop.events.v1"


@dataclass
class FakeProducer:
    """Acknowledges what it is given; ``errors`` are given for the next messages instead."""

    sent: list[Message] = field(default_factory=list)
    errors: list[RewardloopError | None] = field(default_factory=list)
    closed: bool = False

    def publish(self, messages: Sequence[Message], timeout: float) -> list[RewardloopError | None]:
        """Keep the acknowledged ones."""
        answers = [self.errors.pop(0) if self.errors else None for _ in messages]
        self.sent += [message for message, error in zip(messages, answers, strict=True) if error is None]
        return answers

    @property
    def events(self) -> list[Message]:
        """What was sent to the events topic."""
        return [message for message in self.sent if message.topic == TOPIC]

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def work(self, client: TestClient) -> Any:
        """What the worker would do: apply every event."""
        wired = inside(client).collector
        place = place_of(wired.engine, wired.secrets, wired.settings, wired.clock())
        records = [Record(one.topic, 0, n, 0, one.key, one.value, one.headers) for n, one in enumerate(self.events)]
        self.sent = []
        batch = batch_of(decode_record(record, place) for record in records)
        return store.apply(wired.engine, batch, wired.secrets, wired.clock())


@pytest.fixture
def producer() -> FakeProducer:
    """The producer of the API under test."""
    return FakeProducer()


@pytest.fixture
def client(
    sqlite_url: str, tmp_path: Path, producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """An API that publishes."""
    monkeypatch.setattr(pipelines.app, "Publisher", partial(Publisher, make=lambda settings: producer))
    with running(sqlite_url, tmp_path / "home", kafka_bootstrap_servers="nowhere:9092") as client:
        define(client)
        yield client


def rows(client: TestClient, table: Any) -> list[Any]:
    """All rows of a table."""
    with reading(inside(client).collector.engine) as connection:
        return list(connection.execute(select(table)))


class TestEvents:
    """``POST /v1/events`` with Kafka."""

    def test_published_then_applied(self, client: TestClient, producer: FakeProducer) -> None:
        """The answer is 202 after the acknowledgement; nothing is stored until the worker applies it, then it counts."""
        token = rank(client, decision_id="d1", unit="jane")["token"]
        body = {
            "events": [click("e1", token=token), click("e2", unit="jane", type="purchase", value=5, currency="EUR")]
        }
        answer = client.post("/v1/events", json=body)

        assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "rejected": []})
        assert [message.topic for message in producer.sent] == [TOPIC, TOPIC]
        assert rows(client, tables.events) == []
        assert producer.work(client).applied == 2
        assert {one["metric"]: one["value"] for one in trace(client, "d1")["outcomes"]} == {
            "click": 1.0,
            "revenue": 5.0,
        }

    def test_no_customer_in_clear(self, client: TestClient, producer: FakeProducer) -> None:
        """The topic holds the unit's keyed hash, which is the key too; without a unit the decision id is."""
        body = {"events": [click("e1", unit="jane@example.com"), click("e2", decision_id="d1")]}
        ok(client.post("/v1/events", json=body))
        unit = inside(client).collector.secrets.unit("jane@example.com")

        assert [message.key for message in producer.sent] == [unit.encode(), b"d1"]
        assert not [message for message in producer.sent if b"jane" in message.value]  # type: ignore[operator]

    def test_bad_items_are_quarantined_at_once(self, client: TestClient, producer: FakeProducer) -> None:
        """A rejected item is in quarantine when the answer comes, the others are published, the ledger balances."""
        answer = client.post("/v1/events", json={"events": [click("e1"), click("e2", decision_id="d1"), 7]})
        engine = inside(client).collector.engine

        assert answer.status_code == 202
        assert [one["index"] for one in answer.json()["rejected"]] == [0, 2]
        assert [message.key for message in producer.events] == [b"d1"]
        assert [(row.position, row.state) for row in rows(client, tables.quarantine)] == [
            ("event/e1", "held"),
            ("item/2", "held"),
        ]
        assert conservation(engine) == 0

    def test_what_was_quarantined_is_announced(self, client: TestClient, producer: FakeProducer) -> None:
        """The quarantine topic names each record the API rejects once, without its bytes; no announcement is waited for
        in vain."""
        bad = {"event_id": "e1", "type": "click", "occurred_at": "a secret time", "unit": "jane@example.com"}
        for _ in range(2):
            ok(client.post("/v1/events", json={"events": [bad]}))
        producer.errors = [Unavailable("Kafka: away")]
        ok(client.post("/v1/events", json={"events": [bad | {"event_id": "e2"}]}))
        (held, _) = rows(client, tables.quarantine)

        (told,) = producer.sent
        assert (told.topic, told.key) == ("rewardloop.quarantine.v1", b"http")
        assert json.loads(told.value or b"") == {
            "id": held.id,
            "source": "http",
            "position": "event/e1",
            "reason": held.reason,
            "batch_no": held.batch_no,
        }

    def test_what_was_not_acknowledged_is_named(self, client: TestClient, producer: FakeProducer) -> None:
        """A broker that took only some is a 503 that names the others; sending all again counts each once."""
        producer.errors = [None, Unavailable("no acknowledgement in time"), None]
        body = {"events": [click("e0"), *(click(f"e{n}", decision_id="d1") for n in (1, 2, 3))]}
        answer = client.post("/v1/events", json=body)
        problem = answer.json()

        assert refused(answer, 503).startswith("Kafka acknowledged 2 of 3 events: no acknowledgement in time. Send all")
        assert answer.headers["retry-after"] == "1"
        assert problem["errors"] == [{"pointer": "/events/2", "message": "no acknowledgement in time"}]
        assert len(producer.sent) == 2
        assert client.post("/v1/events", json=body).status_code == 202
        applied = producer.work(client)
        assert (applied.pending, applied.duplicate) == (3, 2)

    def test_a_broker_that_is_away(self, client: TestClient, producer: FakeProducer) -> None:
        """Nothing acknowledged: 503, nothing stored, nothing quarantined."""
        producer.errors = [Unavailable("Kafka does not answer")]
        answer = client.post("/v1/events", json={"events": [click("e0"), click("e1", decision_id="d1")]})

        assert "acknowledged 0 of 1 events" in refused(answer, 503)
        assert rows(client, tables.quarantine) == []

    def test_a_broker_that_refuses_us(self, client: TestClient, producer: FakeProducer) -> None:
        """What trying again does not mend is no 503."""
        producer.errors = [Misconfigured("not allowed to write")]

        assert client.post("/v1/events", json={"events": [click("e1", decision_id="d1")]}).status_code == 500

    def test_quarantine_away(self, client: TestClient, producer: FakeProducer) -> None:
        """When the rejected items cannot be kept the answer is 503 and says that the events are safe."""
        with away(inside(client).collector.engine):
            answer = client.post("/v1/events", json={"events": [click("e0"), click("e1", decision_id="d1")]})

        assert "Kafka acknowledged all 1 usable events, but" in refused(answer, 503)
        assert len(producer.sent) == 1

    def test_the_database_may_be_away(self, client: TestClient, producer: FakeProducer) -> None:
        """Events are accepted while the database is away: they wait on the topic."""
        with away(inside(client).collector.engine):
            answer = client.post("/v1/events", json={"events": [click("e1", decision_id="d1")]})

        assert answer.status_code == 202
        assert len(producer.sent) == 1


class TestActivation:
    """``POST /v1/decisions/{id}/activate`` with Kafka."""

    def test_published_then_applied(self, client: TestClient, producer: FakeProducer) -> None:
        """An activation is an event like others: published, then applied; the earliest of several counts."""
        rank(client, decision_id="d1", defer_activation=True)
        first, second = (client.post("/v1/decisions/d1/activate", json={}) for _ in range(2))
        applied = producer.work(client)
        again = client.post("/v1/decisions/d1/activate")

        assert (first.status_code, first.json()["state"]) == (202, "published")
        assert (applied.applied, applied.quarantined) == (2, 0)
        assert (again.status_code, again.json()["state"]) == (200, "duplicate")
        assert again.json()["activated_at"] == first.json()["activated_at"] < second.json()["activated_at"]

    def test_an_unknown_decision(self, client: TestClient, producer: FakeProducer) -> None:
        """Nothing is published about a decision that does not exist."""
        assert "No decision 'd9'" in refused(client.post("/v1/decisions/d9/activate"), 404)
        assert producer.sent == []


class TestAccept:
    """The function that events, webhooks and redirects share."""

    def test_labels_travel_with_their_event(self, client: TestClient, producer: FakeProducer) -> None:
        """A label rides in its event's message; one about an event of before is stored at once."""
        wired = inside(client).collector
        at = wired.clock()
        fact = Event(source="http", event_id="e1", type="click", occurred_at=at, received_at=at, decision_id="d1")
        labels = [
            Label(source="http", event_id=id_, label="bot", labelled_at=at, reason="prefetch") for id_ in ("e1", "e0")
        ]
        states = accept(wired, Batch(events=(fact,), labels=tuple(labels), ignored={"not for us": 2}), at)
        stored = [row.event_id for row in rows(client, tables.event_labels)]
        producer.work(client)

        assert states == ("published",)
        assert stored == ["e0"]
        assert [row.event_id for row in rows(client, tables.event_labels)] == ["e0", "e1"]

    def test_redirected_clicks_are_published(self, client: TestClient, producer: FakeProducer) -> None:
        """The redirect's writer uses the same way."""
        clicks = inside(client).redirects.clicks
        at = inside(client).collector.clock()
        fact = Event(source="redirect", event_id="r1", type="click", occurred_at=at, received_at=at, decision_id="d1")
        kept = clicks.keep(Click(fact))

        assert kept == "recorded"
        assert producer.work(client).pending == 1


class TestPublisher:
    """The way to the producer."""

    def test_closed_with_the_app(self, client: TestClient, producer: FakeProducer) -> None:
        """What waits is sent when the app stops."""
        client.__exit__(None, None, None)
        closed = producer.closed
        client.__enter__()

        assert closed

    def test_the_app_starts_without_brokers(
        self, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An absent broker does not stop the start: choices are answered, events are told to come again."""

        def absent(settings: Settings) -> FakeProducer:
            raise Unavailable("no broker at nowhere:9092")

        monkeypatch.setattr(pipelines.app, "Publisher", partial(Publisher, make=absent))
        with running(sqlite_url, tmp_path / "home", kafka_bootstrap_servers="nowhere:9092") as client:
            define(client)

            assert rank(client)["durable"]
            assert "no broker at nowhere:9092" in refused(
                client.post("/v1/events", json={"events": [click("e1", decision_id="d1")]}), 503
            )

    def test_an_absent_broker_is_not_asked_by_every_call(self) -> None:
        """Within a moment of a failed connection the same answer is given without trying again."""
        tries: list[int] = []

        def absent(settings: Settings) -> FakeProducer:
            tries.append(1)
            raise Unavailable("away")

        publisher = Publisher(Settings(kafka_bootstrap_servers="nowhere:9092"), absent)
        for _ in range(3):
            with pytest.raises(Unavailable):
                publisher.open()

        assert len(tries) == 1

    def test_without_kafka_the_store_answers(self, sqlite_url: str, tmp_path: Path) -> None:
        """Without Kafka events go into the store and the counts are answered, as ever."""
        with running(sqlite_url, tmp_path / "home") as client:
            define(client)

            assert send(client, click("e1", decision_id="d1"))["pending"] == 1
