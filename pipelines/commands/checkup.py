"""``rewardloop doctor``: each dependency, what it said and how long it took, and whether the ledger adds up."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx2
import typer
from sqlalchemy import Connection, func, select, text

from infra import tables
from infra.broker import list_topics, reachable
from infra.clock import MICROS, system_clock
from infra.database import reading
from infra.errors import RewardloopError, Unavailable
from infra.migrations import heads
from infra.secrets import load_secrets
from infra.services import running_prefect
from infra.settings import Settings, load_settings
from ingestion.ledger import conservation
from ingestion.stream.topics import topics
from ingestion.switches import killed_loops
from pipelines.commands.streaming import standings
from pipelines.commands.workspace import (
    FAILED,
    UNAVAILABLE,
    JsonOption,
    Workspace,
    open_workspace,
    print_json,
    print_table,
)

SKEW_SECONDS = 5.0
"""How far the database's clock may be from ours."""
HTTP_SECONDS = 5.0


class Check(NamedTuple):
    """What was looked at and found. ``down``: a dependency that is needed does not answer."""

    check: str
    ok: bool
    found: str
    milliseconds: int | None = None
    down: bool = False


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check settings, secrets, every dependency, the ledger and how far workers are behind.

    Exit code 4: a dependency that is needed does not answer; 1: something else is wrong.

    Example: rewardloop doctor
    """
    found = list(_checks(load_settings()))
    if as_json:
        print_json([check._asdict() for check in found])
    else:
        rows = [(_word(check), check.check, check.found, _time(check)) for check in found]
        print_table("Check-up", ["", "what", "found", "ms"], rows, numbers=(3,))
    if any(check.down for check in found):
        raise typer.Exit(UNAVAILABLE)
    if not all(check.ok for check in found):
        raise typer.Exit(FAILED)


def _checks(settings: Settings) -> Iterator[Check]:
    yield Check("data folder", True, str(settings.home.resolve()))
    yield Check("settings", True, f"mode {settings.mode}, clock {settings.clock}")
    opened, database = _opened()
    yield _ask("secrets", lambda: _secrets(settings), needed=False)
    yield database
    if opened is not None:
        yield from _database_checks(opened)
    yield from _kafka_checks(settings, opened)
    yield _ask("mlflow", lambda: _mlflow(settings), needed=False)
    yield _ask("prefect", lambda: _prefect(settings), needed=False)


def _opened() -> tuple[Workspace | None, Check]:
    """The installation and its database. Only a database that is away is a finding; the rest stops the check-up."""
    begun = time.monotonic()
    try:
        workspace = open_workspace()
        with reading(workspace.engine) as connection:
            found = f"{_version(connection)}, schema {', '.join(heads())}"
    except Unavailable as away:
        return None, Check("database", False, str(away), _since(begun), down=True)
    return workspace, Check("database", True, found, _since(begun))


def _database_checks(workspace: Workspace) -> Iterator[Check]:
    difference = conservation(workspace.engine)
    with reading(workspace.engine) as connection:
        yield _clock(connection)
        off = "every record is in one state" if difference == 0 else f"{difference} records off"
        yield Check("ledger", difference == 0, off)
        yield Check("pending", True, f"{_pending(connection)} events wait for their decision")
        held = _count(connection, tables.quarantine, tables.quarantine.c.state == "held")
        yield Check("quarantine", True, f"{held} held")
        running = list(
            connection.scalars(select(tables.imports.c.import_id).where(tables.imports.c.state == "running"))
        )
        cut_off = f"cut off: {', '.join(running)}; run them again" if running else "all done"
        yield Check("imports", not running, cut_off)
        champions = connection.execute(select(tables.champions.c.loop_id, tables.champions.c.version)).all()
        served = ", ".join(f"{row.loop_id}: {row.version}" for row in champions)
        yield Check("models in force", True, served or "none promoted yet")
        yield Check("kill switch", True, ", ".join(sorted(killed_loops(connection))) or "no loop is killed")


def _kafka_checks(settings: Settings, workspace: Workspace | None) -> Iterator[Check]:
    if not settings.kafka:
        yield Check("kafka", True, "not configured: events go straight into the store")
        return
    answer = _ask("kafka", lambda: reachable(settings), needed=True)
    yield answer
    if not answer.ok:
        return
    wrong = list(_differences(settings))
    yield Check("topics", not wrong, "; ".join(wrong) or "as in the table")
    if workspace is not None and not any("missing" in one for one in wrong):
        yield from _lags(workspace)


def _differences(settings: Settings) -> Iterator[str]:
    wanted = list(topics(settings.kafka_topic_prefix))
    for topic, state in zip(wanted, list_topics(settings, wanted), strict=True):
        if state is None:
            yield f"{topic.name} is missing: rewardloop topics ensure"
        else:
            yield from (f"{topic.name}: {difference}" for difference in state.differences)


def _lags(workspace: Workspace) -> Iterator[Check]:
    """How far each partition is behind in the database, which is what counts."""
    named = topics(workspace.settings.kafka_topic_prefix)
    found = standings(workspace, named)
    for topic in named.read:
        parts = [one for one in found if one.topic == topic.name]
        behind = ", ".join(f"{one.partition}: {one.behind:,}" for one in parts)
        yield Check(f"behind on {topic.name}", True, f"{sum(one.behind for one in parts):,} records ({behind})")
    gaps = [f"{one.topic}/{one.partition}: {one.gap}" for one in found if one.gap]
    yield Check("gaps", not gaps, "; ".join(gaps) or "every stored position is in its log")


def _ask(name: str, question: Callable[[], str], *, needed: bool) -> Check:
    begun = time.monotonic()
    try:
        return Check(name, True, question(), _since(begun))
    except (RewardloopError, httpx2.HTTPError) as error:
        return Check(name, False, str(error) or type(error).__name__, _since(begun), needed)


def _secrets(settings: Settings) -> str:
    secrets = load_secrets(settings)
    return f"readable; unit secret {max(secrets.units)}, token key {max(secrets.tokens)}"


def _mlflow(settings: Settings) -> str:
    if not settings.tracking.startswith(("http://", "https://")):
        return f"local: {settings.tracking}"
    return f"{settings.tracking}, version {_get(f'{settings.tracking}/version')}"


def _prefect(settings: Settings) -> str:
    server = os.environ.get("PREFECT_API_URL") or running_prefect(settings)
    if server is None:
        return "local: flows start a server of their own"
    return f"{server}, version {_get(f'{server}/admin/version')}"


def _get(url: str) -> str:
    try:
        return httpx2.get(url, timeout=HTTP_SECONDS).raise_for_status().text.strip().strip('"')
    except httpx2.HTTPError as error:
        raise Unavailable(f"{url} does not answer: {error}") from error


def _version(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {connection.scalar(text('SELECT sqlite_version()'))}"
    return f"PostgreSQL {connection.scalar(text('SHOW server_version'))}"


def _clock(connection: Connection) -> Check:
    """The database's clock against ours, asked in the middle of the question."""
    if connection.dialect.name == "sqlite":
        return Check("clock", True, "the database uses this machine's")
    before = system_clock()
    there = int(connection.scalar(text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")) or 0)
    skew = (there - (before + system_clock()) / 2) / MICROS
    fine = abs(skew) <= SKEW_SECONDS
    return Check("clock", fine, f"the database's is {skew:+.3f} s from ours{'' if fine else '; set one of them right'}")


def _pending(connection: Connection) -> int:
    line = tables.batches.c
    return int(connection.scalar(select(func.sum(line.pending + line.became_pending - line.left_pending))) or 0)


def _count(connection: Connection, table: Any, where: Any) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(where)) or 0


def _since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1_000)


def _word(check: Check) -> str:
    return "ok" if check.ok else "DOWN" if check.down else "WRONG"


def _time(check: Check) -> str:
    return "" if check.milliseconds is None else f"{check.milliseconds:,}"
