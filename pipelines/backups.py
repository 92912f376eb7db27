"""A back-up of a running installation, and the way back.

    <folder>/backup.json      what is in it: when, which schema, how far topics were read, digests of every file
    <folder>/rewardloop.db    SQLite, copied online as one transaction sees it
    <folder>/rewardloop.dump  PostgreSQL, by pg_dump
    <folder>/files/…          models, MLflow's runs and artifacts, clicks that waited in the spool
    <folder>/secrets.json     only where it was asked for

Nothing has to stop. The database comes first and the models after it: a model is written before the database names it, so
every version that the copy names is there. After the restore a worker reads the topics from where the copy stood; what the
copy holds already is a duplicate. Secrets are a matter of their own: without them no customer is recognised, with them the
back-up is as secret as they are. The manifest says whose secrets it needs, by a digest.

Order of a restore: 1 every file is what the manifest says, 2 the secrets are the right ones, 3 nobody else has the database
open and it is empty, or overwriting it was asked for, 4 who was forgotten in it since is noted, 5 files, 6 database, 7 schema,
8 forgotten persons are forgotten again.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, inspect, make_url, select
from sqlalchemy.engine import URL

from infra import tables
from infra.clock import format_time
from infra.database import insert_once, open_database, reading, writing
from infra.drafts import replacing
from infra.errors import BadInput, Conflict, Misconfigured, Unavailable
from infra.migrations import heads, migrate
from infra.randomness import derive
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings
from ingestion.audit import record
from ingestion.ledger import newest_batch
from ingestion.people.forgetting import forget_again

MANIFEST = "backup.json"
SECRETS = "secrets.json"
FORMAT = 1
_FOLDERS = ("models", "mlflow/artifacts", "spool")
"""Copied as they are, from below the data folder."""
_MLFLOW = Path("mlflow/mlflow.db")
_COPIES = {"sqlite": "rewardloop.db", "postgresql": "rewardloop.dump"}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a back-up holds."""

    format: int
    made_at: str
    database: str
    """`sqlite` or `postgresql`: it goes back to the same kind."""
    schema: tuple[str, ...]
    batch_no: int
    offsets: dict[str, int]
    """Next offset to read, by `topic/partition`."""
    secrets: str
    """Digest of the master secret that it needs."""
    with_secrets: bool
    files: dict[str, str]
    """SHA-256 by path in the back-up."""


def back_up(
    settings: Settings, engine: Engine, secrets: Secrets, folder: Path, now: int, with_secrets: bool
) -> Manifest:
    """Make a back-up in a folder of its own. Raises :class:`BadInput` where something is there already,
    :class:`Misconfigured` without ``pg_dump``."""
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty; name a new folder for each back-up")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kind = engine.dialect.name
    with reading(engine) as connection:  # read before the copy: it then stands at these positions or further
        batch_no = newest_batch(connection)
        offsets = {f"{row.topic}/{row.partition}": row.position for row in connection.execute(select(tables.offsets))}
    if kind == "sqlite":
        _copy_sqlite(_file_of(settings), folder / _COPIES[kind])
    else:
        _dump(make_url(settings.database), folder / _COPIES[kind])
    for name in _FOLDERS:
        _copy_folder(settings.home / name, folder / "files" / name)
    if (settings.home / _MLFLOW).exists():
        _copy_sqlite(settings.home / _MLFLOW, folder / "files" / _MLFLOW)
    if with_secrets:
        shutil.copyfile(settings.secrets_path, folder / SECRETS)
        (folder / SECRETS).chmod(0o600)
    manifest = Manifest(
        format=FORMAT,
        made_at=format_time(now),
        database=kind,
        schema=tuple(heads()),
        batch_no=batch_no,
        offsets=offsets,
        secrets=_whose(secrets),
        with_secrets=with_secrets,
        files={str(path.relative_to(folder)): _digest(path) for path in _below(folder)},
    )
    with replacing(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a back-up says of itself, with every file looked at. Raises :class:`BadInput` for one that is not whole."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise BadInput(f"{folder} is no back-up: {MANIFEST} cannot be read ({error})") from None
    if manifest.format != FORMAT:
        raise BadInput(f"{folder} is a back-up of format {manifest.format}; this version reads {FORMAT}")
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file() or _digest(path) != digest:
            raise BadInput(f"{folder} is damaged: {name} is not what was written; take another back-up")
    return manifest


def restore(settings: Settings, folder: Path, now: int, overwrite: bool) -> Manifest:
    """Bring an installation to where the back-up stood. Stop its processes first.

    Raises :class:`BadInput` for a back-up that is damaged or of another kind of database, :class:`Misconfigured` for other
    secrets, :class:`Conflict` where data would be overwritten or somebody has the database open.
    """
    manifest = read_manifest(folder)
    kind = make_url(settings.database).get_backend_name()
    if kind != manifest.database:
        raise BadInput(
            f"The back-up is of {manifest.database}, REWARDLOOP_DATABASE_URL names {kind}; restore it to its own"
        )
    secrets = _fitting_secrets(settings, folder, manifest)
    forgotten = _before_overwriting(settings, overwrite)
    for name in _FOLDERS:
        _copy_folder(folder / "files" / name, settings.home / name)
    if (folder / "files" / _MLFLOW).exists():
        _replace_sqlite(folder / "files" / _MLFLOW, settings.home / _MLFLOW)
    if kind == "sqlite":
        _replace_sqlite(folder / _COPIES[kind], _file_of(settings))
    else:
        _load(make_url(settings.database), folder / _COPIES[kind])
    engine = open_database(settings.database)
    migrate(engine)
    with writing(engine) as connection:
        insert_once(connection, tables.forgotten_units, forgotten)
        details = {"made_at": manifest.made_at, "batch_no": manifest.batch_no}
        record(connection, "cli", "restore", "installation", details, now)
    forget_again(engine, secrets, now, actor="cli")
    engine.dispose()
    return manifest


def _fitting_secrets(settings: Settings, folder: Path, manifest: Manifest) -> Secrets:
    path = settings.secrets_path
    if not path.exists() and manifest.with_secrets:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / SECRETS, path)
        path.chmod(0o600)
    if not path.exists():
        raise Misconfigured(
            f"No secrets at {path}: put the secrets file of the installation there first; it is not in the back-up"
        )
    secrets = load_secrets(settings)
    if _whose(secrets) != manifest.secrets:
        raise Misconfigured(f"{path} holds other secrets than the back-up needs; put the right file there")
    return secrets


def _before_overwriting(settings: Settings, overwrite: bool) -> list[Mapping[str, Any]]:
    """Who was forgotten in the database that is there. Raises :class:`Conflict` if it holds anything, or is in use."""
    if make_url(settings.database).get_backend_name() == "sqlite":
        file = _file_of(settings)
        if not file.exists():
            return []
        _need_alone(file)
    engine = open_database(settings.database)
    try:
        if not inspect(engine).has_table(tables.batches.name):
            return []
        with reading(engine) as connection:
            if not overwrite and connection.scalar(select(tables.batches.c.batch_no).limit(1)) is not None:
                raise Conflict("The database holds data already; restore into an empty one, or say --overwrite")
            return [dict(row._mapping) for row in connection.execute(select(tables.forgotten_units))]
    finally:
        engine.dispose()


def _need_alone(file: Path) -> None:
    """Raises :class:`Conflict` while another process has the SQLite file open."""
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            raise Conflict(f"Another process has {file} open; stop the API, workers and flows first") from None


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's own online copy, in one step: all of it is of one moment, and writers go on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source, timeout=30)) as there, closing(sqlite3.connect(target)) as here:
        try:
            there.backup(here)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{source} cannot be copied now: {error}") from None


def _replace_sqlite(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as copy, replacing(target) as whole:
        shutil.copyfileobj(copy, whole)
        for ending in ("-wal", "-shm"):  # of the file that was there
            target.with_name(target.name + ending).unlink(missing_ok=True)


def _dump(url: URL, target: Path) -> None:
    _run(("pg_dump", "--format=custom", "--no-owner", "--file", str(target)), url)


def _load(url: URL, source: Path) -> None:
    cleanly = ("--clean", "--if-exists", "--no-owner", "--exit-on-error", "--single-transaction")
    _run(("pg_restore", *cleanly, "--dbname", _without_password(url), str(source)), url, named=True)


def _run(command: Sequence[str], url: URL, named: bool = False) -> None:
    """Run one of PostgreSQL's programs; a password goes through the environment, where others do not see it."""
    if shutil.which(command[0]) is None:
        raise Misconfigured(
            f"{command[0]} is not installed; install PostgreSQL's client programs, of the server's version or a newer one"
        )
    whole = command if named else (*command, "--dbname", _without_password(url))
    password = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    done = subprocess.run(whole, env=os.environ | password, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {' '.join(done.stderr.split())[:300] or 'it said nothing'}")


def _without_password(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _copy_folder(source: Path, target: Path) -> None:
    """Files that vanish meanwhile are left out: a click was drained, a draft became whole."""
    for path in _below(source):
        if path.suffix == ".part":
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(path, copy)


def _below(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _file_of(settings: Settings) -> Path:
    name = make_url(settings.database).database
    if not name or name == ":memory:":
        raise Misconfigured("A database in memory cannot be backed up; set REWARDLOOP_DATABASE_URL to a file")
    return Path(name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whose(secrets: Secrets) -> str:
    return derive(secrets.master, "backup").hex()[:32]
