"""The event ``rewardloop.outcomes.matured``: told to Prefect once enough new outcomes of a loop matured to retrain it.

A deployment with this event as its trigger (``deployments.py``) runs at once instead of at its next full hour. The API looks:

    1 is there a Prefect server?    2 which loops have enough (``steps/due.py``)?    3 tell each of them once per newest version

Nothing rests on it: the hourly run counts for itself, so that an event may get lost; and of two runs that it starts the lease lets
one retrain. Its id is made of loop and newest version: Prefect takes what several processes say at the same time as one event.
It goes as plain HTTP, since a process that serves should not import Prefect, which takes seconds and memory.
"""

import base64
import os
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx2
from sqlalchemy import Engine

from infra.clock import Clock, format_time, system_clock
from infra.database import reading
from infra.errors import Unavailable
from infra.logs import log
from infra.services import prefect_api
from infra.settings import Settings
from ingestion.loops import load_loops
from pipelines.flows.steps.due import enough

EVENT = "rewardloop.outcomes.matured"
RESOURCE = "rewardloop.loop."
"""What the name of an event's resource begins with; the loop follows."""
LOOK_SECONDS = 300.0
"""How often the API looks."""
SECONDS = 10.0
"""How long telling Prefect may take."""


class Herald:
    """Tells Prefect of loops that have enough to learn from. For one thread."""

    def __init__(self, engine: Engine, settings: Settings, clock: Clock) -> None:
        self._engine, self._settings, self._clock = engine, settings, clock
        self._told: dict[str, str] = {}

    def look(self) -> None:
        """Tell what is new. Raises :class:`Unavailable` when database or server do not answer; the next look tries again."""
        api = prefect_api(self._settings)
        if api is None:
            return
        for loop_id, newest in self._ripe().items():
            if self._told.get(loop_id) != newest:
                tell(api, event_of(loop_id, newest))
                self._told[loop_id] = newest
                log.info("outcomes_matured", loop=loop_id, since=newest or "the beginning")

    def _ripe(self) -> dict[str, str]:
        """Loops with enough new outcomes, and the newest version of each."""
        now = self._clock()
        with reading(self._engine) as connection:
            found = {
                loop_id: enough(connection, definition, self._settings, now)
                for loop_id, (definition, _) in load_loops(connection).items()
            }
        return {loop_id: newest for loop_id, newest in found.items() if newest is not None}


def event_of(loop_id: str, newest: str) -> dict[str, Any]:
    """The event as Prefect's API takes it."""
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{EVENT}/{loop_id}/{newest}")),
        "occurred": format_time(system_clock()),
        "event": EVENT,
        "resource": {"prefect.resource.id": f"{RESOURCE}{loop_id}", "prefect.resource.name": loop_id},
        "payload": {"loop_id": loop_id, "newest_version": newest},
    }


def tell(api: str, event: dict[str, Any]) -> None:
    """Send one event to the server whose API is at ``api``. Raises :class:`Unavailable` unless it takes it."""
    try:
        httpx2.post(f"{api}/events", json=[event], headers=_credentials(), timeout=SECONDS).raise_for_status()
    except httpx2.HTTPError as error:
        raise Unavailable(f"Prefect did not take the event {EVENT}: {str(error).splitlines()[0]}") from error


def _credentials() -> dict[str, str]:
    """What Prefect's own client would say of who is asking."""
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}
