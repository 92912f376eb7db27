"""The installation that is broken: one loop with two models, a running campaign of twelve contents, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from infra import tables
from infra.clock import system_clock
from infra.database import open_database, reading, writing
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.contents import add_contents, put_campaign, start_campaign
from ingestion.events import Campaign, Content
from ingestion.loops import parse_definition, put_loop
from reward_models import registry
from reward_models.boosted import RewardModel
from tests.reward_models.serving.models import registered, trained

CONTEXTS: Sequence[Mapping[str, Any]] = [{"age": age} for age in range(20, 70, 5)]
_LOOP = {
    "loop": "mail",
    "metrics": [{"name": "click", "event": "click"}],
    "reward": {"click": 1},
    "approval": "automatic",
    "holdout": 0,
}


@dataclass(frozen=True)
class Installation:
    """``url``: past every proxy. ``models``: by version; the first one serves."""

    settings: Settings
    url: str
    models: Mapping[str, RewardModel]
    contents: Sequence[Content]

    def stored(self, decision_ids: Sequence[str]) -> set[str]:
        """Which of these decisions are stored."""
        engine, c = open_database(self.url), tables.decisions.c.decision_id
        with reading(engine) as connection:
            found = set(connection.scalars(select(c).where(c.in_(decision_ids))))
        engine.dispose()
        return found

    def expected(self, version: str) -> Sequence[Sequence[float]]:
        """What a version predicts of every content (sorted by id) in every one of ``CONTEXTS``."""
        found: Sequence[Sequence[float]] = self.models[version].grid(CONTEXTS, self.contents).tolist()
        return found

    def promote(self, version: str) -> None:
        """Let the loop serve a version, past the server."""
        engine = open_database(self.url)
        with writing(engine) as connection:
            current = registry.champion(connection, "mail")
            revision = registry.NO_CHAMPION if current is None else current.revision
            registry.promote(connection, "mail", version, revision, system_clock(), "test")
        engine.dispose()


def install(url: str, through: str, home: Path, seeds: Sequence[int] = (1, 2), **more: Any) -> Installation:
    """Fill a migrated, empty database. ``through``: the URL that servers are given."""
    quick: dict[str, Any] = {"refresh_seconds": 0.2, "tick_seconds": 0.2, "mlflow_tracking_uri": "http://127.0.0.1:9"}
    settings = Settings(home=home, database_url=through, **(quick | more))
    home.mkdir(parents=True, exist_ok=True)
    load_secrets(settings)
    engine = open_database(url)
    contents = [
        Content(content_id=f"k{number:02d}", campaign_id="june", slots={"subject": f"Line {number}{'?!'[number % 2]}"})
        for number in range(12)
    ]
    with writing(engine) as connection:
        put_loop(connection, parse_definition(_LOOP), 1)
        put_campaign(connection, Campaign(campaign_id="june", loop_id="mail"))
        add_contents(connection, "june", contents, 20_000, 1)
        start_campaign(connection, "june", None, "test", 1)
    models = {}
    for seed in seeds:
        model = trained(seed)
        models[registered(engine, settings.bundles, model, "mail")] = model
    engine.dispose()
    made = Installation(settings, url, models, contents)
    made.promote(next(iter(models)))
    return made
