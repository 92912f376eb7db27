"""Every setting, in one frozen class. Read once at start-up; a bad value stops the start and is named.

Environment variables start with ``REWARDLOOP_``: ``home`` is ``REWARDLOOP_HOME``, and so on.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.clock import Clock, SimulatedClock, system_clock
from infra.errors import Misconfigured


class Settings(BaseSettings):
    """What an installation may choose. Each field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix="REWARDLOOP_", frozen=True, extra="ignore")

    home: Path = Field(
        Path(".rewardloop"), description="Data folder: database, models, secrets, MLflow and Prefect files."
    )
    mode: Literal["embedded", "server"] = Field(
        "embedded",
        description="`embedded`: events go straight into the store, secrets are made on first use. "
        "`server`: secrets must be given, the simulated clock is refused.",
    )
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite under the data folder.")
    clock: Literal["system", "simulated"] = Field(
        "system", description="`simulated` reads the time from `<home>/clock` (embedded mode only)."
    )
    host: str = Field("127.0.0.1", description="Address the API binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API; 0 takes a free one.")
    mlflow_port: int = Field(5000, ge=0, le=65535, description="Port of the MLflow UI started by `rewardloop up`.")
    prefect_port: int = Field(4200, ge=0, le=65535, description="Port of the Prefect UI started by `rewardloop up`.")
    mlflow_tracking_uri: str = Field("", description="MLflow tracking URI; empty: SQLite under the data folder.")
    secrets_file: Path | None = Field(
        None, description="JSON file with the installation's secrets; empty: `<home>/secrets.json`."
    )
    sources: tuple[str, ...] = Field(
        ("http",), description="Names of event sources that may be given in an event's `source` field."
    )
    tick_seconds: float = Field(1.0, gt=0, le=60, description="How often waiting decisions are counted as exposures.")
    refresh_seconds: float = Field(
        1.0, gt=0, le=60, description="How often the API looks for new models, copy and statistics."
    )
    body_limit_bytes: PositiveInt = Field(1_048_576, description="Largest request body accepted.")
    candidate_limit: PositiveInt = Field(500, description="Most candidates in one decision.")
    text_limit_bytes: PositiveInt = Field(20_000, description="Longest text in one slot of a content.")
    events_limit: PositiveInt = Field(1_000, description="Most events in one request.")
    clock_skew_hours: PositiveInt = Field(
        24, description="Events dated further than this into the future are quarantined."
    )
    quarantine_days: PositiveInt = Field(30, description="How long the raw bytes of a rejected record are kept.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")

    @model_validator(mode="after")
    def _simulated_clock_only_embedded(self) -> Self:
        if self.clock == "simulated" and self.mode != "embedded":
            raise ValueError("clock: 'simulated' is accepted in the embedded mode only; set REWARDLOOP_CLOCK=system")
        return self

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.home / 'rewardloop.db').resolve()}"

    @property
    def tracking(self) -> str:
        """The MLflow tracking URI in force."""
        return self.mlflow_tracking_uri or f"sqlite:///{(self.home / 'mlflow' / 'mlflow.db').resolve()}"

    @property
    def secrets_path(self) -> Path:
        """Where the secrets are."""
        return self.secrets_file or self.home / "secrets.json"

    @property
    def bundles(self) -> Path:
        """Where model bundles are kept."""
        return self.home / "models"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, ``overrides`` on top; every wrong value is named in one :class:`Misconfigured`."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        found = "; ".join(_complaint(part) for part in error.errors())
        raise Misconfigured(f"Wrong settings: {found}") from None


def clock_of(settings: Settings) -> Clock:
    """The clock these settings ask for."""
    return SimulatedClock(settings.home / "clock") if settings.clock == "simulated" else system_clock


def _complaint(part: object) -> str:
    fields = dict(part)  # type: ignore[call-overload]
    name = "REWARDLOOP_" + "__".join(str(step) for step in fields["loc"]).upper() if fields["loc"] else "settings"
    return f"{name}={fields['input']!r}: {fields['msg']}" if fields["loc"] else str(fields["msg"])
