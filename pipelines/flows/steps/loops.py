"""Which loops a run is about, and how times are given to it."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from infra.database import reading
from ingestion.loops import load_loop, load_loops


def chosen_loops(engine: Engine, loop_id: str | None) -> list[str]:
    """The loop that was named, or every loop. Raises :class:`NotFound` for one that does not exist."""
    with reading(engine) as connection:
        if loop_id is None:
            return sorted(load_loops(connection))
        load_loop(connection, loop_id)
    return [loop_id]


def micros(moment: datetime | None) -> int | None:
    """Microseconds UTC; a time without a zone is UTC."""
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
