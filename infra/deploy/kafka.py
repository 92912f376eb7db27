"""A real Apache Kafka on this machine, with Java 17 and Maven only: for tests, and for trying things without Docker.

    python -m infra.deploy.kafka --brokers 3

Maven fetches the broker once into a cache (``pom.xml`` beside this file names the version); every broker is then one
Java process that is broker and KRaft controller, bound to 127.0.0.1. Each has three listeners: CLIENTS, protected as
asked for, and INTERNAL and CONTROLLER, plain, between the brokers. Order: fetch, write the configuration, format the
storage, start, wait until the port answers. Brokers never outlive the process that started them: beside each runs a
guard, a shell that waits for the end of a pipe only we hold and then kills it.

Source: the KRaft quick start and the configuration reference on kafka.apache.org.
"""

import argparse
import atexit
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.etree import ElementTree

from infra.deploy.certificates import write_certificates
from infra.errors import Misconfigured, Unavailable

Security = Literal["plain", "sasl", "ssl", "sasl_ssl"]
PROTOCOLS: dict[Security, str] = {"plain": "PLAINTEXT", "sasl": "SASL_PLAINTEXT", "ssl": "SSL", "sasl_ssl": "SASL_SSL"}
USER, PASSWORD = "rewardloop", "not-a-secret"
POM = Path(__file__).with_name("pom.xml")
JAVA_RELEASE = 17
START_SECONDS = 120
STOP_SECONDS = 30
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def version() -> str:
    """The version of Kafka that ``pom.xml`` names."""
    found = ElementTree.parse(POM).getroot().findtext(".//{*}kafka.version")  # noqa: S314 (our own file)
    return found or ""


def why_not() -> str:
    """What this machine lacks to run Kafka; empty: nothing."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        return f"Kafka needs Java {JAVA_RELEASE} and Maven: {' and '.join(missing)} not found"
    said = subprocess.run(("java", "-version"), capture_output=True, text=True, check=False).stderr  # noqa: S607
    found = re.search(r'version "(\d+)', said)
    if found and int(found[1]) >= JAVA_RELEASE:
        return ""
    return f"Kafka needs Java {JAVA_RELEASE} or newer, and `java -version` says: {said.strip()}"


def fetch() -> Path:
    """The folder with the broker's jars; Maven fills it the first time (some 45 MB)."""
    home = Path(os.environ.get("REWARDLOOP_KAFKA_CACHE") or Path.home() / ".cache" / "rewardloop")
    jars = home / f"kafka-{version()}"
    with _alone(home / "kafka.lock"):
        if not jars.is_dir():
            _copy_dependencies(jars)
    return jars


def _copy_dependencies(jars: Path) -> None:
    if reason := why_not():
        raise Misconfigured(reason)
    half = Path(tempfile.mkdtemp(prefix="kafka-", dir=jars.parent))
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={half}")
    command = ("mvn", "-B", "-q", "-f", str(POM), *goal)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    if done.returncode:
        shutil.rmtree(half)
        raise Unavailable(f"Maven could not fetch Kafka {version()}: {(done.stdout + done.stderr)[-2000:]}")
    half.rename(jars)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@dataclass
class _Broker:
    """One broker: its ports and folder stay, its process comes and goes."""

    node: int
    folder: Path
    clients: int
    internal: int
    controller: int
    process: subprocess.Popen[bytes] | None = None
    guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"


class LocalKafka:
    """One broker, or three with every record on all of them (two must have it before it is acknowledged).

    Brokers are numbered from 1. They keep their ports and their data when stopped, killed and started again.
    """

    def __init__(
        self, brokers: int = 1, folder: Path | None = None, security: Security = "plain", heap: str = "256m"
    ) -> None:
        self.security = security
        self._heap = heap
        self._ours = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rewardloop-kafka-"))
        ports = free_ports(3 * brokers)
        self._brokers = [
            _Broker(node, self.folder / f"broker-{node}", ports.pop(), ports.pop(), ports.pop())
            for node in range(1, brokers + 1)
        ]
        self._classes = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect: ``host:port``, separated by commas."""
        return ",".join(f"127.0.0.1:{broker.clients}" for broker in self._brokers)

    @property
    def cafile(self) -> Path:
        """The authority that signed the brokers' certificate (``ssl`` and ``sasl_ssl``)."""
        return self.folder / "ca.pem"

    @property
    def password_file(self) -> Path:
        """File with the password of the user ``rewardloop`` (``sasl`` and ``sasl_ssl``)."""
        return self.folder / "password"

    def client_settings(self) -> dict[str, Any]:
        """What a client's :class:`infra.settings.Settings` needs to reach these brokers."""
        given: dict[str, Any] = {
            "kafka_bootstrap_servers": self.bootstrap_servers,
            "kafka_security_protocol": PROTOCOLS[self.security],
        }
        if "sasl" in self.security:
            given |= {
                "kafka_sasl_mechanism": "SCRAM-SHA-256",
                "kafka_sasl_username": USER,
                "kafka_sasl_password_file": self.password_file,
            }
        if "ssl" in self.security:
            given["kafka_ssl_cafile"] = self.cafile
        return given

    def start(self) -> Self:
        """Format the storage, start every broker and wait until all answer."""
        self._classes = f"{fetch()}/*"
        self.folder.mkdir(parents=True, exist_ok=True)
        if "ssl" in self.security:
            write_certificates(self.folder)
        self.password_file.write_text(PASSWORD)
        atexit.register(self.stop)
        try:
            self._format()
            for broker in self._brokers:
                self._launch(broker)
            for broker in self._brokers:
                self._await(broker)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop every broker; delete the data, unless the folder was given."""
        atexit.unregister(self.stop)
        for broker in self._brokers:
            self._signal(broker, signal.SIGCONT)
            self._signal(broker, signal.SIGTERM)
        for broker in self._brokers:
            _reap(broker)
        if self._ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    def stop_broker(self, node: int) -> None:
        """Shut one broker down in good order and wait for its end."""
        self._signal(self._broker(node), signal.SIGTERM)
        _reap(self._broker(node))

    def kill_broker(self, node: int) -> None:
        """End one broker at once, as a power cut does (SIGKILL)."""
        self._signal(self._broker(node), signal.SIGKILL)
        _reap(self._broker(node))

    def pause_broker(self, node: int) -> None:
        """Freeze one broker: its connections stay open and nothing answers."""
        self._signal(self._broker(node), signal.SIGSTOP)

    def resume_broker(self, node: int) -> None:
        """Let a frozen broker go on."""
        self._signal(self._broker(node), signal.SIGCONT)

    def start_broker(self, node: int, wait: bool = True) -> None:
        """Start a stopped broker again, on the same data and ports."""
        broker = self._broker(node)
        if not broker.running:
            self._launch(broker)
        if wait:
            self._await(broker)

    def _broker(self, node: int) -> _Broker:
        return self._brokers[node - 1]

    def _format(self) -> None:
        cluster = urlsafe_b64encode(sha256(str(self.folder.resolve()).encode()).digest()[:16]).decode().rstrip("=")
        users = [f"--add-scram=SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
        running = []
        for broker in self._brokers:
            broker.folder.mkdir(exist_ok=True)
            properties = broker.folder / "server.properties"
            properties.write_text("".join(f"{key}={value}\n" for key, value in self._properties(broker).items()))
            tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", f"--cluster-id={cluster}")
            config = ("--config", str(properties))
            running.append(self._java("-Xmx128m", *tool, *config, *users, log=broker.folder / "format.log"))
        for broker, process in zip(self._brokers, running, strict=True):
            if process.wait(START_SECONDS):
                raise Unavailable(f"Kafka's storage was not formatted: {_tail(broker.folder / 'format.log')}")

    def _properties(self, broker: _Broker) -> dict[str, object]:
        several = len(self._brokers) > 1
        copies, enough = (min(3, len(self._brokers)), 2) if several else (1, 1)
        listeners = f"CLIENTS://127.0.0.1:{broker.clients},INTERNAL://127.0.0.1:{broker.internal}"
        return {
            "process.roles": "broker,controller",
            "node.id": broker.node,
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{broker.controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": (
                f"CLIENTS:{PROTOCOLS[self.security]},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": ",".join(f"{b.node}@127.0.0.1:{b.controller}" for b in self._brokers),
            "log.dirs": broker.folder / "data",
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": enough,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": enough,
            "transaction.state.log.num.partitions": 3,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": enough,
            "group.initial.rebalance.delay.ms": 0,
            "broker.heartbeat.interval.ms": 1000,
            "broker.session.timeout.ms": 6000 if several else 3000,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            **self._protection(),
        }

    def _protection(self) -> dict[str, object]:
        module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        sasl = {
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.clients.scram-sha-256.sasl.jaas.config": module,
            "listener.name.clients.scram-sha-512.sasl.jaas.config": module,
        }
        ssl = {"ssl.keystore.type": "PEM", "ssl.keystore.location": self.folder / "broker.pem"}
        return {**(sasl if "sasl" in self.security else {}), **(ssl if "ssl" in self.security else {})}

    def _launch(self, broker: _Broker) -> None:
        properties = str(broker.folder / "server.properties")
        broker.process = self._java(f"-Xmx{self._heap}", "kafka.Kafka", properties, log=broker.log)
        broker.guard = _guard(broker.process.pid)

    def _java(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        command = (*JAVA, level, "-cp", self._classes, *arguments)
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 (our own arguments)
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _await(self, broker: _Broker) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(broker.clients):
            if not broker.running:
                raise Unavailable(f"Kafka's broker {broker.node} ended while starting: {_tail(broker.log)}")
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka's broker {broker.node} did not start: {_tail(broker.log)}")
            time.sleep(0.05)

    def _signal(self, broker: _Broker, number: signal.Signals) -> None:
        if broker.process is not None and broker.running:
            broker.process.send_signal(number)


def free_ports(count: int) -> list[int]:
    """Free ports below the range that outgoing connections take theirs from, so that a stopped broker keeps its own."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in found and probe.connect_ex(("127.0.0.1", port)) and _binds(port):
                found.append(port)
    return found


def _binds(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _guard(process: int) -> subprocess.Popen[bytes]:
    """A shell that kills ``process`` when we are gone: then nobody holds the other end of its input."""
    command = ("/bin/sh", "-c", 'cat >/dev/null; kill -9 "$1"', "guard", str(process))
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 (our own arguments)


def _reap(broker: _Broker) -> None:
    if broker.process is None or broker.guard is None:
        return
    try:
        broker.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        broker.process.kill()
        broker.process.wait()
    os.killpg(broker.guard.pid, signal.SIGKILL)
    broker.guard.wait()
    if broker.guard.stdin is not None:
        broker.guard.stdin.close()
    broker.process = broker.guard = None


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run brokers until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy.kafka", description=f"Apache Kafka {version()} here.")
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3), help="how many brokers (1)")
    parser.add_argument("--security", default="plain", choices=tuple(PROTOCOLS), help="what clients must do (plain)")
    parser.add_argument("--folder", type=Path, help="where the data stays; without it, it is deleted at the end")
    parser.add_argument("--fetch", action="store_true", help="fetch Kafka into the cache and run nothing")
    given = parser.parse_args(arguments)
    if given.fetch:
        sys.stdout.write(f"{fetch()}\n")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LocalKafka(given.brokers, given.folder, given.security) as kafka:
        lines = [f"REWARDLOOP_{name.upper()}={value}" for name, value in kafka.client_settings().items()]
        sys.stdout.write("\n".join(lines) + "\nCtrl-C stops.\n")
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.stdout.write("Stopping.\n")


if __name__ == "__main__":
    main()
