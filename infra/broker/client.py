"""A connected client of kafka-python, and its faults in our words. The one file that imports kafka-python.

Errors become :class:`Unavailable` where trying again helps, :class:`Misconfigured` for wrong passwords, certificates and
permissions, :class:`BadInput` for a message that is too large.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.broker.shapes import Partition, Record
from infra.errors import BadInput, Misconfigured, RewardloopError, Unavailable
from infra.logs import log
from infra.settings import Settings

START_SECONDS = 10
"""How long a broker may take to answer."""
_ATTEMPTS = 4


@contextmanager
def admin_client(settings: Settings) -> Iterator[Any]:
    """A connected administrator's client; closed at the end."""
    admin = opened(kafka().KafkaAdminClient, settings, request_timeout_ms=START_SECONDS * 1000)
    with _translating(admin):
        yield admin


@contextmanager
def log_reader(settings: Settings, **options: object) -> Iterator[Any]:
    """A connected consumer without a group, of committed records; closed at the end."""
    fixed = {"isolation_level": "read_committed", "enable_auto_commit": False}
    reader = opened(kafka().KafkaConsumer, settings, **fixed, **options)
    with _translating(reader):
        yield reader


def opened(client: Callable[..., Any], settings: Settings, **options: object) -> Any:
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


def translated(error: Exception) -> RewardloopError:
    """A fault of kafka-python as one of ours."""
    if isinstance(error, not_allowed()):
        return Misconfigured(f"Kafka refuses: {error}")
    if isinstance(error, (faults().MessageSizeTooLargeError, faults().RecordListTooLargeError)):
        return BadInput(f"The message is too large for Kafka: {error}")
    if isinstance(error, faults().KafkaTimeoutError) or getattr(error, "retriable", False):
        return Unavailable(f"Kafka: {error}")
    return RewardloopError(f"Kafka: {error}")


def not_allowed() -> tuple[type[Exception], ...]:
    """The faults that trying again does not mend: a person must."""
    named = faults()
    return (
        named.SaslAuthenticationFailedError,
        named.UnsupportedSaslMechanismError,
        named.IllegalSaslStateError,
        named.AuthorizationError,
    )


def ours(partition: Any) -> Partition:
    """A partition of kafka-python."""
    return partition.topic, partition.partition


def theirs(partition: Partition) -> Any:
    """A partition for kafka-python."""
    return kafka().TopicPartition(*partition)


def record_of(one: Any) -> Record:
    """A record of kafka-python."""
    headers = tuple(one.headers) if one.headers else ()
    return Record(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, headers)


def faults() -> Any:
    """kafka-python's errors."""
    return kafka().errors


def kafka() -> Any:
    """kafka-python, imported when first used: it takes half a second that programs without Kafka save."""
    import kafka.admin
    import kafka.coordinator.assignors.cooperative_sticky
    import kafka.errors
    import kafka.net.compat

    return kafka


@contextmanager
def _translating(client: Any) -> Iterator[None]:
    try:
        yield
    except faults().KafkaError as error:
        raise translated(error) from error
    finally:
        client.close()


def _connected(client: Callable[..., Any], settings: Settings, seconds: float, options: Mapping[str, object]) -> Any:
    made: list[Any] = []

    def network(**configuration: object) -> Any:
        made.append(kafka().net.compat.KafkaNetClient(**configuration))
        return made[0]

    with _listening() as heard:
        try:
            connection = _connection(settings) | {"bootstrap_timeout_ms": round(seconds * 1000)}
            return client(kafka_client=network, **connection, **options)
        except faults().KafkaError as error:
            made[0].close()
            made[0]._manager._net.stop()
            unheard = isinstance(error, faults().KafkaTimeoutError)
            raise (_unreachable(settings, heard) if unheard else translated(error)) from error


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
    refused = [error for error in heard if isinstance(error, not_allowed())]
    if refused:
        return translated(refused[0])
    last = f": {heard[-1]}" if heard else ""
    if "certificate verify failed" in last:
        return Misconfigured(f"The brokers' certificate is not trusted; see REWARDLOOP_KAFKA_SSL_CAFILE{last}")
    asked = f"{settings.kafka_bootstrap_servers} with {settings.kafka_security_protocol}"
    answered = [error for error in heard if not isinstance(error, faults().RequestTimedOutError)]
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
        self.heard.extend(error for error in errors if not isinstance(error, faults().KafkaTimeoutError))


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
