"""The sources an event on a topic may name: those of the settings, webhook connections, our own redirect, and every
connection that ever had an API key."""

import time
from collections.abc import Sequence
from typing import overload

from sqlalchemy import Engine, select

from infra import tables
from infra.database import reading
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.http.redirects import REDIRECT

_SECONDS = 0.2


class Sources(Sequence[str]):
    """Looks among the connections again, at most five times a second, before it says that a name is unknown. (The API
    learns of a new key up to a second after it was made, so its first event finds it here.)

    Asking for an unknown name raises :class:`Unavailable` without a database.
    """

    def __init__(self, engine: Engine, secrets: Secrets, settings: Settings) -> None:
        self._engine = engine
        self._names = tuple(dict.fromkeys((*settings.sources, *secrets.webhooks, REDIRECT)))
        self._looked_at = -_SECONDS

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        if name not in self._names and time.monotonic() - self._looked_at >= _SECONDS:
            self._look()
        return name in self._names

    def _look(self) -> None:
        with reading(self._engine) as connection:
            connections = connection.scalars(select(tables.api_keys.c.name).distinct()).all()
        self._names = tuple(dict.fromkeys((*self._names, *sorted(connections))))
        self._looked_at = time.monotonic()
