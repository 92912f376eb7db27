"""The local Kafka: what it needs, and that no broker outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.broker import ensure_topics
from infra.deploy import kafka
from infra.deploy.kafka import LocalKafka, free_ports, why_not
from infra.settings import Settings
from ingestion.stream.topics import topics
from tests.conftest import need_local_kafka


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java or Maven the reason names them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_not() == "Kafka needs Java 17 and Maven: java and mvn not found"


def test_an_old_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java 8 and 11 do not run the broker."""
    for name, text in (("java", 'openjdk version "11.0.2"'), ("mvn", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{text}' >&2\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "Java 17 or newer" in why_not()


def test_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    """A client that waits for a stopped broker cannot be given the broker's own port."""
    ports = free_ports(30)
    assert len(set(ports)) == 30
    assert max(ports) < 32_768


def test_the_pom_names_the_version() -> None:
    """The version is written in one place."""
    assert kafka.version().startswith("4.")


@pytest.mark.stack
def test_brokers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Even when that process is killed, no broker stays behind."""
    need_local_kafka()
    command = [sys.executable, "-m", "infra.deploy.kafka", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        while "Ctrl-C" not in starter.stdout.readline():
            assert starter.poll() is None
        assert brokers_in(tmp_path)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while brokers_in(tmp_path):
        assert time.monotonic() < deadline, "a broker outlived its starter"
        time.sleep(0.05)


@pytest.mark.stack
def test_data_stays_where_a_folder_is_given(tmp_path: Path) -> None:
    """Started again on the same folder, the broker has its topics."""
    need_local_kafka()
    created = []
    for _ in range(2):
        with LocalKafka(folder=tmp_path) as brokers:
            settings = Settings(**brokers.client_settings())
            created += [state.created for state in ensure_topics(settings, [topics().contents])]
    assert created == [True, False]


def brokers_in(folder: Path) -> list[str]:
    """Running processes whose command line names this folder and the broker's main class."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "kafka.Kafka" in line:
            found.append(line)
    return found
