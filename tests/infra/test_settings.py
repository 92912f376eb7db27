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
