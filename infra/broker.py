"""Kafka, in our words: records, messages, a producer, a consumer, topics. The one importer of kafka-python.

*Publishing* waits until every in-sync copy of a record is written (``acks=all``, idempotent): a message without an
error is stored. *Reading* is at least once. Kafka's own offsets decide nothing: where a partition is read from is asked
of the caller, who keeps positions in the database, in one transaction with what the records caused. A position that
is not in the log raises :class:`infra.errors.OutOfLog`; nothing is ever skipped. Only records of committed
transactions are returned.

Order of one :meth:`Consumer.poll`: 1 ask the caller for the position of each newly assigned partition, and let it be
read; 2 take part in the group, fetch, and pass on what came. A partition is held back until 1 succeeded, so that an
absent database delays its partitions and costs the group nothing.

Errors of kafka-python become ours here: :class:`Unavailable` where trying again helps, :class:`Misconfigured` for
wrong passwords, certificates and permissions, :class:`BadInput` for a message that is too large.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from infra.errors import BadInput, Misconfigured, OutOfLog, RewardloopError, Unavailable
from infra.logs import log
from infra.settings import Settings

Partition = tuple[str, int]

START_SECONDS = 10
SESSION_SECONDS = 20
STEP_SECONDS = 0.2
_ATTEMPTS = 4
SILENT_SECONDS = 30
NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


class Record(NamedTuple):
    """One record as it was read. ``value`` is None for a tombstone; times are milliseconds since 1970 UTC."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Message(NamedTuple):
    """One record to be written. Messages with the same key stay in order; ``value`` None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Topic(NamedTuple):
    """One topic as it should be. ``key`` says what a record's key is, ``holds`` what a record is, in words."""

    name: str
    key: str
    partitions: int
    retention_ms: int
    holds: str


class TopicState(NamedTuple):
    """One topic as it is: whether it was made just now, and how it differs from what was asked for."""

    name: str
    created: bool
    partitions: int
    replication: int
    differences: tuple[str, ...]


class Assignment(Protocol):
    """What a reader is told about its partitions. ``assigned`` runs in the thread that polls.

    ``revoked`` and ``lost`` run while :meth:`Consumer.poll` or :meth:`Consumer.close` waits, in another thread that
    also keeps the membership alive: they return within a few seconds.
    """

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """The offset to read next, for each; None: the beginning. Raises ``Unavailable`` to be asked again."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Another reader takes these over: finish or drop their work before returning."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Another reader may have taken these over already: drop their work."""


class Producer:
    """Writes messages and waits for their acknowledgement. May be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._producer = _open(
            _kafka().KafkaProducer,
            settings,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=128 * 1024,
            max_block_ms=5_000,
            request_timeout_ms=10_000,
            delivery_timeout_ms=30_000,
            metrics_enabled=False,
        )

    def publish(self, messages: Sequence[Message], timeout: float = 30.0) -> list[RewardloopError | None]:
        """Send all, then wait for all, ``timeout`` seconds at most. One entry per message: None, or what went wrong.

        A message that timed out may still arrive; sending it again is safe where its id is known to the reader.
        """
        deadline = time.monotonic() + timeout
        unknown = {topic: self._missing(topic) for topic in {message.topic for message in messages}}
        sent = [unknown[message.topic] or self._send(message) for message in messages]
        with suppress(_faults().KafkaError):
            self._producer.flush(max(0.0, deadline - time.monotonic()))
        return [_outcome(one, deadline) for one in sent]

    def close(self) -> None:
        """Wait a few seconds for what is on its way, then close."""
        self._producer.close(timeout=5)

    def _missing(self, topic: str) -> RewardloopError | None:
        try:
            self._producer.partitions_for(topic)
        except _faults().KafkaError as error:
            if isinstance(error, _not_allowed()):
                return _translated(error)
            return Unavailable(
                f"Kafka does not answer, or topic {topic} does not exist: `rewardloop topics ensure` makes it"
            )
        return None

    def _send(self, message: Message) -> Any:
        try:
            return self._producer.send(message.topic, message.value, message.key, list(message.headers))
        except _faults().KafkaError as error:
            return _translated(error)


def _outcome(sent: Any, deadline: float) -> RewardloopError | None:
    if isinstance(sent, RewardloopError):
        return sent
    try:
        sent.get(timeout=max(0.0, deadline - time.monotonic()))
    except _faults().KafkaError as error:
        return _translated(error)
    return None


class Consumer:
    """Reads topics as a member of a group, from the positions its ``assignment`` gives. For one thread."""

    def __init__(self, settings: Settings, topics: Sequence[str], group: str, assignment: Assignment) -> None:
        self._assignment = assignment
        self._unplaced: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._truncated: dict[Partition, int] = {}
        self._consumer = _open(
            _kafka().KafkaConsumer,
            settings,
            group_id=group,
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            partition_assignment_strategy=[_kafka().coordinator.assignors.cooperative_sticky.CooperativeStickyAssignor],
            session_timeout_ms=SESSION_SECONDS * 1000,
            heartbeat_interval_ms=1_000,
            metadata_max_age_ms=30_000,
            max_partition_fetch_bytes=2 * 1024 * 1024,
            fetch_max_bytes=16 * 1024 * 1024,
        )
        _kafka().ConsumerRebalanceListener.register(_Listener)
        self._consumer.subscribe(list(topics), listener=_Listener(self))

    def poll(self, most: int, timeout: float) -> list[Record]:
        """At most ``most`` records, in order within a partition; empty after ``timeout`` seconds without any.

        Raises ``OutOfLog`` (nothing is skipped; the next poll raises it again), ``Unavailable`` when no broker answers
        or positions cannot be asked for, and whatever else ``assigned`` raises.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._stop_at_a_truncated_log()
            absent = self._place()
            left = deadline - time.monotonic()
            records = self._read(most, max(0.0, min(left, STEP_SECONDS)))
            if records:
                return records
            if left <= STEP_SECONDS:
                self._complain(absent)
                return []

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tell Kafka how far each partition was read, for those who watch the lag; nobody waits for the answer."""
        offsets = {_theirs(partition): _kafka().OffsetAndMetadata(at, "", -1) for partition, at in positions.items()}
        try:
            if offsets:
                self._consumer.commit_async(offsets, callback=_noted)
        except _faults().KafkaError as error:
            _noted(offsets, error)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions until they are resumed. Ends when a partition is given away."""
        self._paused |= set(partitions) & self.assigned()
        self._consumer.pause(*map(_theirs, self._paused))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Read these partitions again."""
        self._paused -= set(partitions)
        self._consumer.resume(*map(_theirs, (set(partitions) & self.assigned()) - self._unplaced))

    def seek(self, partition: Partition, position: int) -> None:
        """Read this partition from another offset."""
        self._truncated.pop(partition, None)
        self._consumer.seek(_theirs(partition), position)

    def assigned(self) -> set[Partition]:
        """The partitions this member reads now."""
        return {_ours(partition) for partition in self._consumer.assignment()}

    def lag(self) -> dict[Partition, int]:
        """Records not yet read, for each partition of which the end is known."""
        found = {}
        for partition in self.assigned() - self._unplaced:
            end, position = self._consumer.highwater(_theirs(partition)), self._position(partition)
            if end is not None and position is not None:
                found[partition] = max(0, end - position)
        return found

    def close(self) -> None:
        """Give every partition back (``revoked`` is called) and leave the group."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=5_000)
        except _faults().KafkaError as error:
            raise self._explained(error) from error

    def _place(self) -> Unavailable | None:
        """Give each newly assigned partition its position; what made that impossible for now."""
        asked = sorted(self._unplaced & self.assigned())
        if not asked:
            return None
        try:
            positions = self._assignment.assigned(asked)
        except Unavailable as error:
            return error
        for partition in asked:
            self._start(partition, positions.get(partition))
        return None

    def _start(self, partition: Partition, position: int | None) -> None:
        theirs = _theirs(partition)
        if position is None:
            self._consumer.seek_to_beginning(theirs)
        else:
            self._consumer.seek(theirs, position)
        self._unplaced.discard(partition)
        if partition not in self._paused:
            self._consumer.resume(theirs)

    def _read(self, most: int, timeout: float) -> list[Record]:
        self._finish_joining()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=most)
        except _faults().KafkaError as error:
            raise self._explained(error) from error
        return [_record(one) for records in found.values() for one in records]

    def _finish_joining(self) -> None:
        """Let a join that outlasted a poll be finished by the next.

        kafka-python asks again whether a join is needed. For one that new metadata made necessary the answer turns to
        no while it is under way; then its result is never looked at, and the member is silent for ever.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()

    def _complain(self, absent: Unavailable | None) -> None:
        """Nothing came: say so if that is not because nothing was written."""
        if absent is not None:
            raise absent
        connections = [m.value() for name, m in self._consumer.metrics(raw=True).items() if name.name == CONNECTIONS]
        if not any(connections):
            raise Unavailable("No Kafka broker is connected")

    def _explained(self, error: Exception) -> RewardloopError:
        if isinstance(error.__cause__, RewardloopError):
            return error.__cause__
        if isinstance(error, _faults().OffsetOutOfRangeError):
            return self._out_of_log(*next(iter(error.args[0].items())))
        if isinstance(error, _faults().LogTruncationError):
            self._truncated |= {_ours(at): self._position(_ours(at)) or 0 for at in error.divergent_offsets}
            partition, position = next(iter(self._truncated.items()))
            return self._out_of_log(_theirs(partition), position, certain=True)
        return _translated(error)

    def _stop_at_a_truncated_log(self) -> None:
        """Records that were read are gone and others stand in their place. kafka-python says so once; we go on."""
        for partition, position in self._truncated.items():
            raise self._out_of_log(_theirs(partition), position, certain=True)

    def _position(self, partition: Partition) -> int | None:
        try:
            position: int | None = self._consumer.position(_theirs(partition), timeout_ms=0)
        except _faults().KafkaError as error:
            raise self._explained(error) from error
        return position

    def _out_of_log(self, partition: Any, position: int, certain: bool = False) -> RewardloopError:
        try:
            earliest = self._consumer.beginning_offsets([partition], timeout_ms=5_000)[partition]
            latest = self._consumer.end_offsets([partition], timeout_ms=5_000)[partition]
        except _faults().KafkaError as error:
            return _translated(error)
        if earliest <= position <= latest and not certain:
            return Unavailable(f"Kafka: {_ours(partition)} is changing its leader")
        return OutOfLog(_ours(partition), position, earliest, latest)

    def _arrived(self, partitions: Iterable[Any]) -> None:
        """Hold new partitions back until their position is known. The zero is never read from."""
        for partition in partitions:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
            self._unplaced.add(_ours(partition))

    def _gone(self, partitions: Iterable[Any], tell: Callable[[Sequence[Partition]], None]) -> None:
        gone = {_ours(partition) for partition in partitions}
        told = sorted(gone - self._unplaced)
        self._unplaced -= gone
        self._paused -= gone
        for partition in gone:
            self._truncated.pop(partition, None)
        if told:
            tell(told)


CONNECTIONS = "connection-count"


class _Listener:
    """Passes what the group decides to the consumer; runs in kafka-python's own thread while ``poll`` waits."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._consumer._arrived(assigned)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._consumer._gone(revoked, self._consumer._assignment.revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._consumer._gone(lost, self._consumer._assignment.lost)


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str | None]:
    """Kafka's own id of each topic, which changes when a topic is made anew; None: no such topic."""
    with _admin(settings) as admin:
        found = {topic["name"]: str(topic["topic_id"]) for topic in _described(admin, topics)}
    return {name: None if found.get(name, NO_TOPIC_ID) == NO_TOPIC_ID else found[name] for name in topics}


def partitions_of(settings: Settings, topic: str) -> list[int]:
    """Numbers of the topic's partitions; empty: no such topic."""
    with _admin(settings) as admin:
        return sorted(part["partition_index"] for found in _described(admin, [topic]) for part in found["partitions"])


def offsets_at(settings: Settings, partitions: Sequence[Partition], time_ms: int) -> dict[Partition, int | None]:
    """The first offset written at or after a time, for each; None: nothing is that new."""
    with _reader(settings) as reader:
        found = reader.offsets_for_times({_theirs(partition): time_ms for partition in partitions})
    return {_ours(partition): at.offset if at is not None else None for partition, at in found.items()}


def log_bounds(settings: Settings, partitions: Sequence[Partition]) -> dict[Partition, tuple[int, int]]:
    """For each, the first offset in the log and the one the next record will have."""
    theirs = [_theirs(partition) for partition in partitions]
    with _reader(settings) as reader:
        earliest, latest = reader.beginning_offsets(theirs), reader.end_offsets(theirs)
    return {_ours(partition): (earliest[partition], latest[partition]) for partition in theirs}


def read_ranges(
    settings: Settings, ranges: Mapping[Partition, tuple[int, int]], most: int = 1_000
) -> Iterator[list[Record]]:
    """Records of ranges of offsets, each from its first up to, not including, its second; outside any group.

    Raises ``OutOfLog`` when retention deletes records that are still to be read, ``Unavailable`` when nothing comes.
    """
    left = {partition: end for partition, (begin, end) in ranges.items() if begin < end}
    with _reader(settings, auto_offset_reset="none") as reader:
        reader.assign([_theirs(partition) for partition in left])
        for partition in left:
            reader.seek(_theirs(partition), ranges[partition][0])
        moved_at = time.monotonic()
        while left:
            records = [record for record in _polled(reader, most) if record.offset < left.get(_at(record), 0)]
            done = [partition for partition, end in left.items() if reader.position(_theirs(partition)) >= end]
            if records:
                yield records
            for partition in done:
                del left[partition]
                reader.pause(_theirs(partition))
            if records or done:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > SILENT_SECONDS:
                raise Unavailable(f"Kafka: no record of {min(left)[0]} came for {SILENT_SECONDS} s")


def _polled(reader: Any, most: int) -> list[Record]:
    try:
        found = reader.poll(timeout_ms=500, max_records=most)
    except _faults().OffsetOutOfRangeError as error:
        partition, position = next(iter(error.args[0].items()))
        raise OutOfLog(
            _ours(partition),
            position,
            reader.beginning_offsets([partition])[partition],
            reader.end_offsets([partition])[partition],
        ) from error
    return [_record(one) for records in found.values() for one in records]


def _record(theirs: Any) -> Record:
    headers = tuple(theirs.headers) if theirs.headers else ()
    return Record(theirs.topic, theirs.partition, theirs.offset, theirs.timestamp, theirs.key, theirs.value, headers)


def _at(record: Record) -> Partition:
    return record.topic, record.partition


def ensure_topics(settings: Settings, topics: Sequence[Topic], replication: int = -1) -> list[TopicState]:
    """Make the topics that are missing and say how the others differ; nothing that exists is changed.

    ``replication`` is the number of copies of a new topic; -1: what the brokers do by themselves.
    """
    with _admin(settings) as admin:
        there = {found["name"] for found in _described(admin, [topic.name for topic in topics])}
        missing = {topic.name: _wanted(topic, replication) for topic in topics if topic.name not in there}
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return [_state(admin, topic, topic.name in missing) for topic in topics]


def list_topics(settings: Settings, topics: Sequence[Topic]) -> list[TopicState | None]:
    """How each topic is; None: it does not exist."""
    with _admin(settings) as admin:
        there = {found["name"] for found in _described(admin, [topic.name for topic in topics])}
        return [_state(admin, topic, False) if topic.name in there else None for topic in topics]


def reachable(settings: Settings) -> str:
    """What answers, in words, or :class:`Unavailable`."""
    with _admin(settings) as admin:
        cluster = admin.describe_cluster()
        release = ".".join(map(str, admin._manager.broker_version))
        return f"Kafka {release}, cluster {cluster['cluster_id']}, {len(cluster['brokers'])} brokers"


def _wanted(topic: Topic, replication: int) -> dict[str, object]:
    configs = {"retention.ms": str(topic.retention_ms), "cleanup.policy": "delete"}
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}


def _state(admin: Any, topic: Topic, created: bool) -> TopicState:
    (found,) = _described(admin, [topic.name])
    resource = _kafka().admin.ConfigResource(_kafka().admin.ConfigResourceType.TOPIC, topic.name)
    configs = admin.describe_configs([resource], config_filter="all")["topic"][topic.name]
    pairs = [
        ("partitions", len(found["partitions"]), topic.partitions),
        ("retention.ms", configs["retention.ms"]["value"], str(topic.retention_ms)),
        ("cleanup.policy", configs["cleanup.policy"]["value"], "delete"),
    ]
    differences = tuple(f"{name} is {found}, not {asked}" for name, found, asked in pairs if found != asked)
    copies = len(found["partitions"][0]["replica_nodes"])
    return TopicState(topic.name, created, len(found["partitions"]), copies, differences)


def _described(admin: Any, topics: Sequence[str]) -> list[dict[str, Any]]:
    """What Kafka knows of those topics that exist."""
    return [found for found in admin.describe_topics(list(topics)) if not found["error_code"]]


@contextmanager
def _admin(settings: Settings) -> Iterator[Any]:
    admin = _open(_kafka().KafkaAdminClient, settings, request_timeout_ms=START_SECONDS * 1000)
    with _translating(admin):
        yield admin


@contextmanager
def _reader(settings: Settings, **options: object) -> Iterator[Any]:
    fixed = {"isolation_level": "read_committed", "enable_auto_commit": False}
    reader = _open(_kafka().KafkaConsumer, settings, **fixed, **options)
    with _translating(reader):
        yield reader


@contextmanager
def _translating(client: Any) -> Iterator[None]:
    try:
        yield
    except _faults().KafkaError as error:
        raise _translated(error) from error
    finally:
        client.close()


def _open(client: Callable[..., Any], settings: Settings, **options: object) -> Any:
    """A client of kafka-python, connected; its faults in our words. One that cannot connect leaves nothing behind.

    It asks one server, picked by chance, and waits. One that is frozen must not take the whole time: with several
    servers it is begun anew ``_ATTEMPTS`` times.
    """
    attempts = 1 if len(_servers(settings)) == 1 else _ATTEMPTS
    seconds = START_SECONDS / attempts
    for _ in range(attempts - 1):
        with suppress(Unavailable):
            return _connected(client, settings, seconds, options)
    return _connected(client, settings, seconds, options)


def _connected(client: Callable[..., Any], settings: Settings, seconds: float, options: Mapping[str, object]) -> Any:
    made: list[Any] = []

    def network(**configuration: object) -> Any:
        made.append(_kafka().net.compat.KafkaNetClient(**configuration))
        return made[0]

    with _listening() as heard:
        try:
            connection = _connection(settings) | {"bootstrap_timeout_ms": round(seconds * 1000)}
            return client(kafka_client=network, **connection, **options)
        except _faults().KafkaError as error:
            made[0].close()
            made[0]._manager._net.stop()
            unheard = isinstance(error, _faults().KafkaTimeoutError)
            raise (_unreachable(settings, heard) if unheard else _translated(error)) from error


def _connection(settings: Settings) -> dict[str, object]:
    if not settings.kafka:
        raise Misconfigured("No Kafka is configured; set REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS=host:port")
    return {
        "bootstrap_servers": _servers(settings),
        "client_id": "rewardloop",
        "security_protocol": settings.kafka_security_protocol,
        "sasl_mechanism": settings.kafka_sasl_mechanism or None,
        "sasl_plain_username": settings.kafka_sasl_username or None,
        "sasl_plain_password": _password(settings),
        "reconnect_backoff_max_ms": 2_000,
        "ssl_cafile": _file("kafka_ssl_cafile", settings.kafka_ssl_cafile),
        "ssl_certfile": _file("kafka_ssl_certfile", settings.kafka_ssl_certfile),
        "ssl_keyfile": _file("kafka_ssl_keyfile", settings.kafka_ssl_keyfile),
    }


def _servers(settings: Settings) -> list[str]:
    return [server for part in settings.kafka_bootstrap_servers.split(",") if (server := part.strip())]


def _password(settings: Settings) -> str | None:
    file = _file("kafka_sasl_password_file", settings.kafka_sasl_password_file)
    return None if file is None else Path(file).read_text().rstrip("\r\n")


def _file(setting: str, path: Path | None) -> str | None:
    """The path as kafka-python takes it, once it is known that it can be read."""
    if path is None:
        return None
    try:
        path.open("rb").close()
    except OSError as error:
        raise Misconfigured(f"REWARDLOOP_{setting.upper()}={str(path)!r}: {error.strerror}") from None
    return str(path)


def _unreachable(settings: Settings, heard: Sequence[Exception]) -> RewardloopError:
    """Why no broker could be talked to, from what kafka-python logged: it keeps trying even with a wrong password."""
    refused = [error for error in heard if isinstance(error, _not_allowed())]
    if refused:
        return _translated(refused[0])
    last = f": {heard[-1]}" if heard else ""
    if "certificate verify failed" in last:
        return Misconfigured(f"The brokers' certificate is not trusted; see REWARDLOOP_KAFKA_SSL_CAFILE{last}")
    asked = f"{settings.kafka_bootstrap_servers} with {settings.kafka_security_protocol}"
    answered = [error for error in heard if not isinstance(error, _faults().RequestTimedOutError)]
    if answered and all("socket disconnected" in str(error) for error in answered):
        return Misconfigured(
            f"Kafka hangs up at {asked}: see REWARDLOOP_KAFKA_SECURITY_PROTOCOL, and with SASL also "
            "REWARDLOOP_KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD_FILE"
        )
    return Unavailable(f"No Kafka broker answers at {asked} within {START_SECONDS} s{last}")


class _Ears(logging.Handler):
    """Keeps the errors that kafka-python logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = (argument for argument in arguments if isinstance(argument, Exception))
        self.heard.extend(error for error in errors if not isinstance(error, _faults().KafkaTimeoutError))


class _Voice(logging.Handler):
    """Says in our log what kafka-python logs: at debug level, because while brokers are away it says much."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("kafka", said=record.getMessage())


VOICE = _Voice()


@contextmanager
def _listening() -> Iterator[list[Exception]]:
    ears, logger = _Ears(), logging.getLogger("kafka")
    if VOICE not in logger.handlers:
        logger.setLevel(logging.ERROR)  # below that it writes passwords and values
        logger.addHandler(VOICE)
        logger.propagate = False
    logger.addHandler(ears)
    try:
        yield ears.heard
    finally:
        logger.removeHandler(ears)


def _translated(error: Exception) -> RewardloopError:
    """A fault of kafka-python as one of ours."""
    if isinstance(error, _not_allowed()):
        return Misconfigured(f"Kafka refuses: {error}")
    if isinstance(error, (_faults().MessageSizeTooLargeError, _faults().RecordListTooLargeError)):
        return BadInput(f"The message is too large for Kafka: {error}")
    if isinstance(error, _faults().KafkaTimeoutError) or getattr(error, "retriable", False):
        return Unavailable(f"Kafka: {error}")
    return RewardloopError(f"Kafka: {error}")


def _noted(_: object, answer: object) -> None:
    if isinstance(answer, Exception):
        log.info("kafka_commit_failed", reason=str(answer))


def _ours(partition: Any) -> Partition:
    return partition.topic, partition.partition


def _theirs(partition: Partition) -> Any:
    return _kafka().TopicPartition(*partition)


def _not_allowed() -> tuple[type[Exception], ...]:
    named = _faults()
    return (
        named.SaslAuthenticationFailedError,
        named.UnsupportedSaslMechanismError,
        named.IllegalSaslStateError,
        named.AuthorizationError,
    )


def _faults() -> Any:
    return _kafka().errors


def _kafka() -> Any:
    """kafka-python, imported when first used: it takes half a second that programs without Kafka save."""
    import kafka.admin
    import kafka.coordinator.assignors.cooperative_sticky
    import kafka.errors
    import kafka.net.compat

    return kafka
