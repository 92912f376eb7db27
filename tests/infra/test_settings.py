"""Settings: a bad value stops the start and is named."""

from pathlib import Path

import pytest

from infra.clock import SimulatedClock, system_clock
from infra.errors import Misconfigured
from infra.settings import Settings, clock_of, load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "seventy"),
        ("PORT", "65536"),
        ("MODE", "cloud"),
        ("CLOCK", "sundial"),
        ("TICK_SECONDS", "0"),
        ("BODY_LIMIT_BYTES", "-1"),
        ("LOG_LEVEL", "loud"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b"),
        ("KAFKA_TOPIC_PREFIX", "a b"),
        ("KAFKA_TOPIC_PREFIX", ""),
        ("KAFKA_GROUP", ""),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "SCRAM"),
        ("REDIRECT_HOSTS", "https://shop.example.com"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the environment variable and shows the value."""
    monkeypatch.setenv(f"REWARDLOOP_{name}", value)

    with pytest.raises(Misconfigured, match=f"REWARDLOOP_{name}='{value}'"):
        load_settings()


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes are mended in one go."""
    monkeypatch.setenv("REWARDLOOP_PORT", "x")
    monkeypatch.setenv("REWARDLOOP_MODE", "y")

    with pytest.raises(Misconfigured, match=r"REWARDLOOP_MODE.*REWARDLOOP_PORT"):
        load_settings()


def test_a_server_refuses_the_simulated_clock() -> None:
    """Only the embedded mode may make time up."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_CLOCK=system"):
        load_settings(mode="server", clock="simulated")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "REWARDLOOP_KAFKA_SASL_PASSWORD_FILE"),
        ({"kafka_sasl_username": "ann"}, "REWARDLOOP_KAFKA_SASL_USERNAME"),
        ({"kafka_ssl_cafile": "ca.pem"}, "REWARDLOOP_KAFKA_SSL_CAFILE"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_certfile": "c.pem"}, "REWARDLOOP_KAFKA_SSL_KEYFILE"),
    ],
)
def test_half_a_protection_stops_the_start(given: dict[str, str], named: str) -> None:
    """Nobody believes to be signed in or encrypted because a setting was left out or has no effect."""
    with pytest.raises(Misconfigured, match=named):
        load_settings(**given)


@pytest.mark.parametrize(("servers", "on"), [("", False), (" , ", False), ("a:1", True), ("a.b-c:9092, [::1]:9", True)])
def test_kafka_is_on_where_brokers_are_named(servers: str, on: bool) -> None:
    """Without a broker's address the embedded behaviour stays."""
    assert load_settings(kafka_bootstrap_servers=servers).kafka is on


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``REWARDLOOP_HOME`` is the data folder, and everything else follows it."""
    monkeypatch.setenv("REWARDLOOP_HOME", "/data")

    settings = load_settings()
    assert (settings.database, settings.secrets_path, settings.bundles) == (
        "sqlite:////data/rewardloop.db",
        Path("/data/secrets.json"),
        Path("/data/models"),
    )


def test_settings_do_not_change() -> None:
    """They are read once and frozen."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_the_clock_is_the_one_asked_for(tmp_path: Path) -> None:
    """The simulated clock reads its file under the data folder; the system's is the default."""
    simulated = clock_of(Settings(home=tmp_path, clock="simulated"))
    assert isinstance(simulated, SimulatedClock)
    assert simulated.path == tmp_path / "clock"
    assert clock_of(Settings(home=tmp_path)) is system_clock


@pytest.mark.parametrize("written", ["http,crm", " http, crm,", '["http", "crm"]', ' ["http","crm"]'])
def test_lists_are_words_with_commas_or_json(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in the environment is what people write: words separated by commas, or JSON."""
    monkeypatch.setenv("REWARDLOOP_SOURCES", written)

    assert load_settings().sources == ("http", "crm")


@pytest.mark.parametrize("written", ['["http", crm]', "[http", '[["http"]]', "[1]"])
def test_a_list_that_cannot_be_read_is_named(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins like JSON and is no list of words is a wrong value like any other."""
    monkeypatch.setenv("REWARDLOOP_SOURCES", written)

    with pytest.raises(Misconfigured, match="REWARDLOOP_SOURCES"):
        load_settings()
