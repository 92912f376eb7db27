"""What the calls of the collector, the webhooks and the redirects stand on: made once, by ``pipelines/app.py``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from infra.clock import HOUR, Clock
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.decode import Edge
from ingestion.http.access import caller
from ingestion.stream.publisher import Publisher


@dataclass(frozen=True)
class Collector:
    """What the calls stand on. ``changed`` is called after a change that the ranker must see."""

    engine: Engine
    secrets: Secrets
    settings: Settings
    clock: Clock
    changed: Callable[[], None]
    publisher: Publisher | None = None
    """Where events go with Kafka configured; without, they go into the store."""

    def edge(self, signed: bool = False) -> Edge:
        """What the decoder must know, now. With API keys, a connection's events are its own. ``signed``: it takes what a
        token proves, and nothing else."""
        known = caller()
        sources = self.settings.sources if known is None else (known.name,)
        return Edge(self.secrets, sources, self.clock(), self.settings.clock_skew_hours * HOUR, signed)


async def _collector(request: Request) -> Collector:
    found: Collector = request.app.state.collector
    return found


Wired = Annotated[Collector, Depends(_collector)]
