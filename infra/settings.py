"""Every setting, in one frozen class. Read once at start-up; a bad value stops the start and is named.

Environment variables start with ``REWARDLOOP_``: ``home`` is ``REWARDLOOP_HOME``, and so on.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from infra.clock import Clock, SimulatedClock, system_clock
from infra.errors import Misconfigured

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\*(\.{_LABEL})+\.[a-z][a-z0-9-]*[a-z0-9])(:[0-9]{{1,5}})?")


Words = Annotated[tuple[str, ...], NoDecode]
"""A list of words: in the environment separated by commas, or a JSON list."""


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
    ui_host: str = Field(
        "127.0.0.1",
        description="Address that the MLflow and Prefect of `rewardloop up` bind to. They let in whoever reaches them: before "
        "you name another, put a proxy with sign-in in front (`docs/how-to/keep-it-up.md`).",
    )
    mlflow_tracking_uri: str = Field("", description="MLflow tracking URI; empty: SQLite under the data folder.")
    secrets_file: Path | None = Field(
        None, description="JSON file with the installation's secrets; empty: `<home>/secrets.json`."
    )
    sources: Words = Field(
        ("http",), description="Names of event sources that may be given in an event's `source` field."
    )
    tick_seconds: float = Field(1.0, gt=0, le=60, description="How often waiting decisions are counted as exposures.")
    refresh_seconds: float = Field(
        1.0, gt=0, le=60, description="How often the API looks for new models, copy and statistics."
    )
    api_keys: Literal["off", "required"] = Field(
        "off",
        description="`required`: calls under /v1 need an API key (`rewardloop keys create`). `off`: whoever reaches the "
        "port may do everything, so bind it to this machine only.",
    )
    personalizer_loop: str = Field(
        "personalizer",
        description="Loop behind /personalizer, for callers whose key is not limited to one loop.",
    )
    unstored: Literal["baseline", "refuse"] = Field(
        "baseline",
        description="What is answered while no decision can be stored. `baseline`: the campaign's baseline, with `durable` "
        "false and no token. `refuse`: 503, and the caller tries again or does without.",
    )
    in_flight: int = Field(
        256,
        ge=4,
        le=10_000,
        description="Most requests that are worked on at once; health, readiness and metrics are not counted. While requests "
        "are turned away there are fewer, so that those let in are answered in time.",
    )
    wait_milliseconds: int = Field(
        200, ge=0, le=60_000, description="How long a request waits for its turn, before it is answered 503."
    )
    body_seconds: float = Field(10.0, gt=0, le=600, description="How long the body of a request may take to arrive.")
    connections: PositiveInt = Field(1_000, description="Most connections to the API at once.")
    drain_seconds: PositiveInt = Field(
        20, description="How long a server that was told to stop works on what it has been asked."
    )
    body_limit_bytes: PositiveInt = Field(1_048_576, description="Largest request body accepted.")
    candidate_limit: PositiveInt = Field(500, description="Most candidates in one decision.")
    text_limit_bytes: PositiveInt = Field(20_000, description="Longest text in one slot of a content.")
    events_limit: PositiveInt = Field(1_000, description="Most events in one request.")
    clock_skew_hours: PositiveInt = Field(
        24, description="Events dated further than this into the future are quarantined."
    )
    quarantine_days: PositiveInt = Field(30, description="How long the raw bytes of a rejected record are kept.")
    event_fields_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="How long further fields of events, such as the page of a click, are kept; the flow `maintain` empties "
        "them then. 0: for ever.",
    )
    event_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="How long events are kept after they happened, at least as long as outcomes take to mature; the flow "
        "`maintain` makes the outcomes of older decisions final and deletes their events. 0: for ever.",
    )
    send_days: PositiveInt = Field(
        7, description="How long audience and result of a send made over HTTP are kept after its last change."
    )
    public_url: str = Field(
        "",
        description="Address of the API as readers of your copy reach it, for redirect links; empty: as it was called.",
    )
    redirect_hosts: Words = Field(
        (),
        description="Hosts that redirect links may lead to, separated by commas: `shop.example.com`, `*.example.com` (below it, "
        "at any depth), `localhost:3000` (a port only where it is named). Empty: no redirect links.",
    )
    redirect_token: bool = Field(
        True, description="Whether a redirect adds `rl=<token>` to the query of where it leads, for purchases to carry."
    )
    spool_limit_bytes: PositiveInt = Field(
        268_435_456, description="Most bytes of clicks kept under `<home>/spool` while their log is away."
    )
    retrain_outcomes: PositiveInt = Field(
        2_000, description="A loop is retrained unasked once so many outcomes matured since its newest version."
    )
    retrain_days: PositiveInt = Field(
        7, description="A loop is retrained unasked once its newest version is so old and any outcome matured since."
    )
    bot_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Clicks sooner than this after their decision started, or four within it, are labelled `bot`; "
        "0: speed labels nobody.",
    )
    notify_file: Path | None = Field(
        None,
        description="JSON file of whom to notify when something needs a person (`docs/how-to/notifications.md`); empty: nobody.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    worker_batch_records: PositiveInt = Field(10_000, description="Most records the worker applies in one transaction.")
    worker_batch_wait_ms: int = Field(
        200, ge=0, le=10_000, description="How long the worker waits for a batch to fill before it applies what it has."
    )
    worker_port: int = Field(
        9108, ge=0, le=65535, description="Port of the worker's `/metrics` and `/healthz`; 0 takes a free one."
    )
    kafka_bootstrap_servers: str = Field(
        "", description="Kafka brokers as `host:port`, separated by commas; empty: no Kafka, events go into the store."
    )
    kafka_topic_prefix: str = Field(
        "rewardloop",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="First part of every topic's name: `<prefix>.events.v1`.",
    )
    kafka_group: str = Field(
        "rewardloop-worker", min_length=1, max_length=249, description="Consumer group of the workers."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="How brokers are talked to: `SSL` encrypts, `SASL_…` signs in with a name and password.",
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "", description="How the password is proven; needed with a `SASL_…` protocol."
    )
    kafka_sasl_username: str = Field("", description="Name to sign in with.")
    kafka_sasl_password_file: Path | None = Field(None, description="File with the password, and nothing else.")
    kafka_ssl_cafile: Path | None = Field(
        None, description="PEM file of the authorities that sign the brokers' certificates; empty: the system's."
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="PEM file of the certificate shown to the brokers, where they ask for one."
    )
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file of that certificate's private key.")

    embeddings_url: str = Field(
        "",
        description="OpenAI-compatible server that turns texts into vectors, as `https://host/v1`; empty: texts are learned "
        "from their words alone. It is sent the copy of every loop that is trained.",
    )
    embeddings_model: str = Field("text-embedding-3-small", min_length=1, max_length=256, description="Its model.")
    embeddings_key_file: Path | None = Field(None, description="File with its API key, and nothing else.")

    generator_url: str = Field(
        "",
        description="OpenAI-compatible server that writes copy, as `https://host/v1`: hosted, vLLM, Ollama or a gateway; "
        "empty: copy is written from templates, offline. It is sent briefs and earlier copy, never customers.",
    )
    generator_model: str = Field("gpt-4o-mini", min_length=1, max_length=256, description="Its model.")
    generator_key_file: Path | None = Field(None, description="File with its API key, and nothing else.")
    generator_concurrency: int = Field(4, ge=1, le=64, description="Most calls to it at once.")
    generator_seconds: float = Field(60.0, gt=0, le=600, description="How long one call to it may take.")
    generator_retries: int = Field(4, ge=0, le=10, description="How often a call that failed is tried again.")
    generator_streaming: bool = Field(False, description="Read its answers as they are written; some gateways need it.")
    generator_price_read: float = Field(0.0, ge=0, le=1e6, description="What a million tokens that it reads cost.")
    generator_price_written: float = Field(0.0, ge=0, le=1e6, description="What a million tokens that it writes cost.")
    generator_currency: str = Field(
        "USD", pattern=r"^[A-Z]{3}$", description="Currency of the prices and of the budget."
    )
    generator_budget: float = Field(5.0, ge=0, le=1e6, description="Most money that one run may spend.")
    generator_month_budget: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="Most money that one loop may spend in a calendar month; empty: as much as its runs.",
    )
    generator_token_budget: PositiveInt = Field(1_000_000, description="Most tokens that one run may use.")
    generator_judge: bool = Field(
        False, description="Have the same server rate the copy that a run keeps, within the run's budget."
    )
    generator_rubric: Path | None = Field(
        None, description="TOML file of what it is rated by; empty: the usual rubric."
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _host_and_port_each(cls, servers: str) -> str:
        for server in filter(None, (part.strip() for part in servers.split(","))):
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", server):
                raise ValueError(f"{server!r} is not host:port, for example 127.0.0.1:9092")
        return servers

    @field_validator("public_url", "embeddings_url", "generator_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", url):
            raise ValueError(
                "not an address like https://go.example.com; write scheme and host, a path if there is one"
            )
        return url.rstrip("/")

    @field_validator("sources", "redirect_hosts", mode="before")
    @classmethod
    def _words(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        if not given.strip().startswith("["):
            return tuple(word.strip() for word in given.split(",") if word.strip())
        try:
            return json.loads(given)
        except ValueError:
            raise ValueError('not a list; write words separated by commas, or JSON like ["a", "b"]') from None

    @field_validator("redirect_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host.lower()):
                raise ValueError(
                    f"{host!r} is not a host like shop.example.com or *.example.com, without scheme and path"
                )
        return tuple(host.lower() for host in hosts)

    @model_validator(mode="after")
    def _signing_in_is_complete(self) -> Self:
        given = {
            "kafka_sasl_mechanism": self.kafka_sasl_mechanism,
            "kafka_sasl_username": self.kafka_sasl_username,
            "kafka_sasl_password_file": self.kafka_sasl_password_file,
        }
        signs_in = self.kafka_security_protocol.startswith("SASL_")
        odd = [f"REWARDLOOP_{name.upper()}" for name, value in given.items() if bool(value) != signs_in]
        if odd and signs_in:
            raise ValueError(f"kafka_security_protocol {self.kafka_security_protocol} needs {', '.join(odd)}")
        if odd:
            raise ValueError(
                f"{', '.join(odd)} would not be used with kafka_security_protocol {self.kafka_security_protocol}; "
                "set REWARDLOOP_KAFKA_SECURITY_PROTOCOL=SASL_SSL or remove them"
            )
        return self

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        given = {
            "kafka_ssl_cafile": self.kafka_ssl_cafile,
            "kafka_ssl_certfile": self.kafka_ssl_certfile,
            "kafka_ssl_keyfile": self.kafka_ssl_keyfile,
        }
        names = ", ".join(f"REWARDLOOP_{name.upper()}" for name, value in given.items() if value)
        if names and not self.kafka_security_protocol.endswith("SSL"):
            raise ValueError(
                f"{names} would not be used with kafka_security_protocol {self.kafka_security_protocol}; "
                "set REWARDLOOP_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL, or remove them"
            )
        if bool(self.kafka_ssl_certfile) != bool(self.kafka_ssl_keyfile):
            raise ValueError("REWARDLOOP_KAFKA_SSL_CERTFILE and REWARDLOOP_KAFKA_SSL_KEYFILE go together; set both")
        return self

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
    def kafka(self) -> bool:
        """Whether events travel through Kafka."""
        return bool(self.kafka_bootstrap_servers.strip(" ,"))

    @property
    def secrets_path(self) -> Path:
        """Where the secrets are."""
        return self.secrets_file or self.home / "secrets.json"

    @property
    def spool(self) -> Path:
        """Where clicks wait while their log is away."""
        return self.home / "spool"

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
