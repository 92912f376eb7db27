"""Whether the database answers, for everybody who asks all the time: readiness probes must not be a load.

It is asked at most once in ``seconds``, in a thread of its own, and who asks meanwhile hears the same answer. One that
takes longer than ``LONGEST`` is none.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine, text

from infra.database import reading
from infra.errors import Unavailable

LONGEST = 2.0


class Pulse:
    """Of one event loop. ``engine``: an impatient one, else a frozen database holds the thread for ever."""

    def __init__(self, engine: Engine, seconds: float = 1.0) -> None:
        self._engine, self._seconds = engine, seconds
        self._thread = ThreadPoolExecutor(1, "pulse")
        self._asking: asyncio.Future[str | None] | None = None
        self._asked_at = -float("inf")
        self._fault: str | None = None

    async def fault(self) -> str | None:
        """Why the database does not answer; null when it does."""
        if self._asking is None and time.monotonic() - self._asked_at >= self._seconds:
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        asking = self._asking
        if asking is None:
            return self._fault
        await asyncio.wait({asking}, timeout=LONGEST)
        if not asking.done():
            return f"The database does not answer: nothing for {LONGEST:g} seconds"
        if asking is self._asking:
            self._fault, self._asking, self._asked_at = asking.result(), None, time.monotonic()
        return self._fault

    def stop(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self) -> str | None:
        try:
            with reading(self._engine) as connection:
                connection.execute(text("SELECT 1"))
        except Unavailable as error:
            return str(error)
        return None
