"""The dashboard's and the alerts' queries, answered by a real Prometheus that scrapes the real product.

Once as one process on SQLite, once with Kafka, PostgreSQL and a worker. Debian's package ``prometheus`` brings both
programs; without them these tests are skipped, in CI they fail.
"""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from infra.broker import Message, Producer, ensure_topics
from infra.clock import format_time, system_clock
from infra.settings import Settings
from ingestion.stream.topics import all_topics, topics
from pipelines.supervisor import free_port
from tests.conftest import new_postgres_database
from tests.infra.queries import ALERTS, PANELS, PROMETHEUS
from tests.pipelines.api import LOOP
from tests.pipelines.processes import COMMAND

pytestmark = pytest.mark.stack

SECONDS = 120
"""How long anything may take on a machine that is busy with other tests."""
WORKER_ONLY = {"Lag", "From topic to ledger", "Workers", "Batches by outcome"}
"""Panels that are empty without Kafka."""
MAY_BE_EMPTY = {
    "Redirects": "no link was asked for",
    "Model of each loop": "no model was promoted",
    "Refused at the door": "nothing was refused",
}
ROUNDS = 2
"""What is counted shows as a rate from the second time on."""


@dataclass(frozen=True)
class Seen:
    """A running product, and the Prometheus that looks at it."""

    streams: bool
    prometheus: str

    @property
    def per_round(self) -> dict[str, int]:
        """Records of one round by what becomes of them. Applied are four events, and the label of one."""
        return {"applied": 5, "duplicate": 1, "ignored": 0, "pending": 1, "quarantined": 1 + self.streams}

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series of an answer. Grafana's window is five minutes here: all that happened."""
        query = {"query": expr.replace("$__rate_interval", "5m")}
        answer = httpx2.get(f"{self.prometheus}/api/v1/query", params=query).json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def by(self, label: str, metric: str) -> dict[str, float]:
        """A metric added up over all processes, by one label."""
        return {one["metric"][label]: float(one["value"][1]) for one in self.ask(f"sum by ({label}) ({metric})")}

    def numbers(self, expr: str) -> list[float]:
        """The values of an answer; what is no number is none."""
        values = [float(series["value"][1]) for series in self.ask(expr)]
        return [value for value in values if not math.isnan(value)]


def need_prometheus() -> None:
    """Skip where Prometheus is missing; in CI that is a failure."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"{' and '.join(missing)} not found: apt install prometheus"
        )


@pytest.fixture(scope="module", params=["embedded", "streaming"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The product after a few decisions, events, repetitions and records that nobody can use."""
    need_prometheus()
    streams = request.param == "streaming"
    home = tmp_path_factory.mktemp(request.param)
    environment = {"BOT_SECONDS": "0"} | (streaming(request) if streams else {})  # these customers click at once
    api, worker, prometheus = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(process(home, "api", sys.executable, "-m", "pipelines.app", PORT=str(api), **environment))
        wait(lambda: answers(f"http://127.0.0.1:{api}/readyz"))
        if streams:
            stack.enter_context(process(home, "worker", COMMAND, "worker", WORKER_PORT=str(worker), **environment))
            wait(lambda: answers(f"http://127.0.0.1:{worker}/healthz"))
        config = configured(home, api, worker if streams else None)
        storage = f"--storage.tsdb.path={home / 'tsdb'}"
        listen = f"--web.listen-address=127.0.0.1:{prometheus}"
        stack.enter_context(process(home, "prometheus", "prometheus", f"--config.file={config}", storage, listen))
        found = Seen(streams, f"http://127.0.0.1:{prometheus}")
        wait(lambda: answers(f"{found.prometheus}/-/ready"))
        with httpx2.Client(base_url=f"http://127.0.0.1:{api}", timeout=60) as client:
            define(client)
            wait(lambda: found.numbers("sum(rewardloop_read_records_total)") == [0])
            for number in range(ROUNDS):
                drive(client, number)
                if streams:
                    poison(environment, number)
                read = sum(found.per_round.values()) * (number + 1)
                wait(lambda read=read: found.numbers("sum(rewardloop_read_records_total)") == [read])  # type: ignore[misc]
        yield found


def streaming(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of an installation with Kafka and PostgreSQL; its topics exist."""
    servers, server = request.getfixturevalue("kafka"), request.getfixturevalue("postgres_server")
    settings = Settings(kafka_bootstrap_servers=servers, kafka_topic_prefix=f"seen-{os.getpid()}")
    ensure_topics(settings, list(all_topics(settings.kafka_topic_prefix)))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_TOPIC_PREFIX": settings.kafka_topic_prefix,
        "KAFKA_GROUP": settings.kafka_topic_prefix,
        "DATABASE_URL": new_postgres_database(server, "seen"),
    }


@contextmanager
def process(home: Path, name: str, *command: str, **settings: str) -> Iterator[None]:
    """A process with these settings, until the block ends; what it says is shown when that fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REWARDLOOP_")}
    ours = {f"REWARDLOOP_{name}": value for name, value in {"HOME": str(home / "home"), **settings}.items()}
    log = home / f"{name}.log"
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=kept | ours, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    except BaseException as error:
        error.add_note(f"{name} said:\n{log.read_text()[-4000:]}")
        raise
    finally:
        running.terminate()
        running.wait(60)


def configured(home: Path, api: int, worker: int | None) -> Path:
    """The product's own configuration, with the addresses of here, and asked every second."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    ports = {"rewardloop-api": api, "rewardloop-worker": worker}
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]}
        for job in config["scrape_configs"]
        if ports[job["job_name"]] is not None
    ]
    path = home / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def define(client: httpx2.Client) -> None:
    """A loop with a campaign."""
    contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in ("a", "b")]
    client.put("/v1/loops/mail", json=LOOP).raise_for_status()
    campaign = {"campaign": "june", "loop": "mail", "contents": contents}
    client.post("/v1/campaigns", json=campaign).raise_for_status()


def drive(client: httpx2.Client, number: int) -> None:
    """One round: two decisions, and what happened to them; ``Seen.per_round`` counts it."""
    name = f"d{number}"
    choice = {"loop": "mail", "campaign": "june", "unit": f"customer-{number}"}
    for id_ in (name, f"{name}-more"):
        ranked = client.post("/v1/rank", json=choice | {"decision_id": id_}).raise_for_status().json()
    click = happened(f"{name}-click", "click", decision_id=name)
    events = [
        click,
        click,
        happened(f"{name}-token", "click", token=ranked["token"]),
        happened(f"{name}-bot", "click", decision_id=name, properties={"client": "Googlebot/2.1"}),
        happened(f"{name}-order", "purchase", unit=f"customer-{number}", value=9, currency="EUR", order_id=name),
        happened(f"{name}-lost", "click", decision_id=f"{name}-unknown"),
        {"event_id": f"{name}-wrong", "type": "click", "occurred_at": "yesterday"},
    ]
    client.post("/v1/events", json={"events": events}).raise_for_status()


def happened(event_id: str, kind: str, **fields: Any) -> dict[str, Any]:
    """An event, now."""
    return {"event_id": event_id, "type": kind, "occurred_at": format_time(system_clock())} | fields


def poison(environment: dict[str, str], number: int) -> None:
    """A record on the topic that nobody can read."""
    settings = Settings(kafka_bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"])
    producer = Producer(settings)
    topic = topics(environment["KAFKA_TOPIC_PREFIX"]).events.name
    assert producer.publish([Message(topic, None, f"\xff not JSON {number}".encode("latin-1"))]) == [None]
    producer.close()


def answers(url: str) -> bool:
    """Whether it is there."""
    try:
        return httpx2.get(url, timeout=5).is_success
    except httpx2.HTTPError:
        return False


def wait(done: Callable[[], bool]) -> None:
    """Until it is so; fails after the deadline."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.2)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_panel_has_something_to_show(panel: Any, seen: Seen) -> None:
    """Each of its queries is understood, and one that must have data has some."""
    empty = panel.title in MAY_BE_EMPTY or (panel.title in WORKER_ONLY and not seen.streams)
    for query in panel.queries:
        seen.ask(query.expr)
    if not empty:
        wait(lambda: any(seen.numbers(query.expr) for query in panel.queries))


def test_the_numbers_are_right(seen: Seen) -> None:
    """What Prometheus adds up over the processes is what was sent: records by state, decisions, pending, methods."""
    states = {state: count * ROUNDS for state, count in seen.per_round.items()}
    methods = {"decision_id": 2, "token": 1, "last_touch": 1, "reversal": 0, "none": 1}

    assert seen.by("state", "rewardloop_records_total") == states
    assert seen.by("reason", "rewardloop_quarantined_total") == {"rejected": states["quarantined"], "conflict": 0}
    wait(lambda: seen.numbers("max(rewardloop_quarantine_held_records)") == [states["quarantined"]])
    wait(lambda: seen.numbers("max(rewardloop_pending_records)") == [states["pending"]])
    wait(lambda: seen.numbers("sum(rewardloop_counted_decisions_total)") == [2 * ROUNDS])
    assert seen.by("method", "rewardloop_joined_events_total") == {name: n * ROUNDS for name, n in methods.items()}
    assert seen.by("type", "rewardloop_events_total") == {"click": 4 * ROUNDS, "purchase": ROUNDS}
    assert seen.by("label", 'rewardloop_event_labels_total{applies="true"}') == {"bot": ROUNDS}
    assert seen.numbers("max(abs(rewardloop_conservation_error))") == [0]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_evaluated(rule: dict[str, Any], seen: Seen) -> None:
    """Prometheus can evaluate each rule on what is really scraped, and nothing is wrong with a product that works."""

    def state() -> dict[str, Any]:
        groups = httpx2.get(f"{seen.prometheus}/api/v1/rules").json()["data"]["groups"]
        return next(found for found in groups[0]["rules"] if found["name"] == rule["alert"])

    wait(lambda: state()["health"] != "unknown")
    assert (state()["health"], state()["state"]) == ("ok", "inactive")


def test_the_files_pass_promtool() -> None:
    """Configuration and rules are valid, and every alert does in its unit test what it says."""
    need_prometheus()
    for check in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ):
        done = subprocess.run(("promtool", *check), cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
