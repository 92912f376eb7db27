"""Server processes held together: readiness, death, signals, and nothing left behind."""

import re
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from infra.errors import Misconfigured, Unavailable
from infra.settings import Settings
from pipelines import supervisor as supervisor_module
from pipelines.commands.serving import services_of
from pipelines.supervisor import LOOPBACK, Service, Supervisor, free_port
from tests.pipelines.processes import processes_of, running, wait_for_words

PAGES = "import http.server,sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
PARENT = "import subprocess,sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(child.pid, flush=True); child.wait()"


def a_service(folder: Path, code: str, name: str = "pages") -> Service:
    """A child that runs ``code`` with a free port as its argument, in an empty folder."""
    port = free_port()
    return Service(name, (sys.executable, "-c", code, str(port)), port, "/", "/", {}, folder / f"{name}.log", "PORT")


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_services_are_ready_once_they_answer_and_gone_once_left(tmp_path: Path) -> None:
    """Every service is told ready once; leaving the supervisor stops what it started."""
    services = [a_service(tmp_path, PAGES, "one"), a_service(tmp_path, PAGES, "two")]
    ready: list[str] = []

    with Supervisor(services) as supervisor:
        supervisor.wait_until_ready(
            supervisor.services, threading.Event(), lambda service, _seconds: ready.append(service.name)
        )
        assert httpx2.get(services[0].url, trust_env=False).status_code == 200

    assert sorted(ready) == ["one", "two"]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(services[0].url, trust_env=False)


def test_what_depends_on_another_starts_after_it(tmp_path: Path) -> None:
    """It is not started before the other answers; it is ready once its log says so, and listens nowhere."""
    first = a_service(tmp_path, f"import time; time.sleep(1); {PAGES}", "first")
    code = "import urllib.request,sys,time; urllib.request.urlopen(sys.argv[1]).read(); print('at work', flush=True); time.sleep(600)"
    second = replace(
        a_service(tmp_path, code, "second"),
        command=(sys.executable, "-c", code, first.origin),
        port=0,
        probe="at work",
        after="first",
    )
    ready: list[str] = []

    with Supervisor([second, first]) as supervisor:
        supervisor.check()
        assert not second.log.exists()
        supervisor.wait_until_ready(
            supervisor.services, threading.Event(), lambda service, _seconds: ready.append(service.name)
        )

    assert ready == ["first", "second"]
    assert second.url == f"log {second.log}"


def test_a_worker_is_among_them_with_kafka(tmp_path: Path) -> None:
    """Without brokers there is nothing to read; flows wait for Prefect; MLflow and Prefect are this machine's own."""
    alone = services_of(Settings(home=tmp_path))
    streaming = services_of(Settings(home=tmp_path, kafka_bootstrap_servers="127.0.0.1:9092"))

    assert [service.name for service in alone] == ["API", "MLflow", "Prefect", "Flows"]
    assert [service.name for service in streaming] == ["API", "Worker", "MLflow", "Prefect", "Flows"]
    assert {service.after for service in alone} == {"", "Prefect"}
    assert all(service.host == LOOPBACK for service in streaming)
    assert all(LOOPBACK in service.command for service in alone[1:3])


def test_a_child_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    """The error says which service ended, with which code, what it said last and where its log is."""
    broken = a_service(tmp_path, "import sys; print('no disk left'); sys.exit(3)", "broken")

    with (
        Supervisor([broken]) as supervisor,
        pytest.raises(Unavailable, match=r"broken stopped with exit code 3: no disk left \(log: .*broken\.log\)"),
    ):
        supervisor.wait_until_ready(supervisor.services, threading.Event(), lambda *_: None)


def test_what_dies_later_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told with its last words, started again after a pause that grows, and the others go on."""
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE", 0.01)
    steady, weak = a_service(tmp_path, PAGES, "steady"), a_service(tmp_path, "print('no disk left')", "weak")
    said: list[tuple[str, str]] = []
    stopped = threading.Event()

    def told(service: Service, what: str) -> None:
        said.append((service.name, what.split(" (log")[0]))
        if len(said) == 4:
            stopped.set()

    with Supervisor([steady, weak]) as supervisor:
        supervisor.watch(stopped, told)

    died = ("weak", "stopped with exit code 0: no disk left")
    assert said == [died, ("weak", "started again")] * 2
    assert weak.log.read_text().splitlines()[:2] == ["no disk left"] * 2


def test_what_a_child_has_started_ends_with_it(tmp_path: Path) -> None:
    """Stopping ends the whole process group, grandchildren too."""
    service = a_service(tmp_path, PARENT)
    with Supervisor([service]):
        while not service.log.read_text():
            time.sleep(0.02)
        grandchild = int(service.log.read_text())
        assert alive(grandchild)

    assert not alive(grandchild)


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """The sentence names the port, the service and the setting that moves it; no child is started."""
    service = a_service(tmp_path, PAGES)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, service.port))
        taken.listen()
        with (
            pytest.raises(Misconfigured, match=rf"Port {service.port} is taken, pages .* set PORT"),
            Supervisor([service]),
        ):
            pass

    assert not service.log.exists()


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_up_serves_api_mlflow_and_prefect_and_leaves_no_process(tmp_path: Path) -> None:
    """`rewardloop up` serves all three real servers over one folder and runs the flows; SIGTERM ends it and everything it
    started."""
    home = tmp_path / "home"
    ports = {f"REWARDLOOP_{name}": "0" for name in ("PORT", "MLFLOW_PORT", "PREFECT_PORT")}
    with running(home, "up", **ports) as (process, log):
        said = wait_for_words(process, log, "All ready")
        urls = re.findall(r"ready +(http\S+)", said)
        answers = [httpx2.get(url, trust_env=False).status_code for url in urls]
        children = processes_of(home)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)

    assert answers == [200, 200, 200]
    assert re.search(r"Flows +ready +log ", said)
    assert len(children) >= 5
    assert (code, processes_of(home)) == (0, [])
