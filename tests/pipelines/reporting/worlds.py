"""A shop with a holdout whose copy is hostile, and how a report of it is made."""

from pathlib import Path

from sqlalchemy import Engine

from infra.clock import DAY
from infra.secrets import Secrets
from infra.settings import Settings
from infra.tracking import Tracking
from ingestion.events import Batch, Content
from ingestion.loops import LoopDefinition
from ingestion.store import apply
from pipelines.learning import Bench
from pipelines.reporting.facts import Period
from tests.pipelines.holdout_world import BEGAN, DAYS, fill, shop
from tests.pipelines.memory_tracking import MemoryTracking

HOSTILE = tuple((Path(__file__).parents[2] / "fixtures" / "hostile_copy.txt").read_text().splitlines())
PERIOD = Period(BEGAN + (DAYS - 7) * DAY, BEGAN + DAYS * DAY)
"""The last week with messages."""
AFTER = BEGAN + (DAYS + 3) * DAY
"""When the report is made: everybody is mature."""


def bench_of(settings: Settings, engine: Engine, tracking: Tracking | MemoryTracking) -> Bench:
    """A bench at that time."""
    return Bench(settings, engine, lambda: AFTER, tracking)


def open_shop(engine: Engine, secrets: Secrets, rules: LoopDefinition | None = None, customers: int = 2_000) -> None:
    """The shop, with every hostile line registered in its campaign beside the two that are sent."""
    fill(engine, secrets, rules or shop(), customers=customers)
    hostile = tuple(
        Content(content_id=f"h{place:02}", campaign_id="spring", slots={"subject": line}, created_at=BEGAN)
        for place, line in enumerate(HOSTILE)
    )
    apply(engine, Batch(contents=hostile), secrets, BEGAN)
