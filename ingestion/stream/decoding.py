"""Records of topics to facts, with what is known of loops kept up to date.

The loops' newest versions are looked at when a second has passed, and at once when a record names a loop that is not
known: it may have been defined a moment ago.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Engine, func, select

from infra.broker import Record
from infra.clock import Clock
from infra.database import reading
from infra.errors import Unavailable
from infra.logs import log
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tables import loops
from ingestion.events import Rejected
from ingestion.loops import LoopDefinition, load_loops
from ingestion.stream.definitions import place_of, settle
from ingestion.stream.messages import Decoded, Place, decode_record, position_of, reject

UNREADABLE = "The record could not be read ({}); keep it and report how it was made, or correct it and send it again"

Known = tuple[LoopDefinition, int]


class Loops(Mapping[str, Known]):
    """The definitions in force and their versions. Asking for one raises :class:`Unavailable` without a database."""

    def __init__(self, engine: Engine, seconds: float = 1.0) -> None:
        self._engine, self._seconds = engine, seconds
        self._known: dict[str, Known] = {}
        self._missed: set[str] = set()
        self._looked_at: float | None = None

    def refresh(self) -> None:
        """Look again at most every so many seconds; what was not known is asked for once in between."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= self._seconds:
            self._load()
            self._looked_at = now
            self._missed.clear()

    def __getitem__(self, loop_id: str) -> Known:
        if loop_id not in self._known and loop_id not in self._missed:
            self._load()
            self._missed.add(loop_id)
        return self._known[loop_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _load(self) -> None:
        with reading(self._engine) as connection:
            versions = connection.execute(select(loops.c.loop_id, func.max(loops.c.version)).group_by(loops.c.loop_id))
            if dict(map(tuple, versions)) != {loop_id: version for loop_id, (_, version) in self._known.items()}:
                self._known = load_loops(connection)


class TopicDecoder:
    """Decodes records of this installation's topics. ``decode`` is called by one thread, the rest by any."""

    def __init__(self, engine: Engine, secrets: Secrets, settings: Settings, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._loops = Loops(engine)
        self._place = replace(place_of(engine, secrets, settings, clock()), loops=self._loops)

    def decode(self, records: Sequence[Record]) -> list[Decoded]:
        """What each record is. Raises :class:`Unavailable` when the database, asked for loops, is away."""
        place = replace(self._place, received_at=self._clock())
        if any(record.topic != place.topics.events.name for record in records):
            self._loops.refresh()
        return [self._decoded(record, place) for record in records]

    def settle(self, records: Sequence[Record], decoded: Sequence[Decoded]) -> Sequence[Decoded]:
        """What was decoded, against the campaigns and contents that are stored. Raises :class:`Unavailable`."""
        return settle(self._engine, records, decoded, replace(self._place, received_at=self._clock()))

    def reject(self, record: Record, reason: str) -> Rejected:
        """The record for quarantine, with its bytes."""
        return reject(record, self._place, reason)

    def _decoded(self, record: Record, place: Place) -> Decoded:
        try:
            return decode_record(record, place)
        except Unavailable:
            raise
        except Exception as error:  # a record must never stop the line
            log.error("record_not_decoded", position=position_of(record), error=type(error).__name__)
            return self.reject(record, UNREADABLE.format(type(error).__name__))
