"""Every page that a marketer opens: seconds until it can be read, at 1,000 runs and 5,000 contents.

A campaign of 5,000 contents, a fifth of which waits for approval and the others were sent; its report of the week; a model that serves; and in
the loop's experiment 1,000 runs with as many registered versions. API and MLflow are servers as ``rewardloop up`` starts them. Chromium
opens each page five times, each time as somebody who was never there: from the address until what the page is opened for is on the
screen. Beside MLflow's pages stands what they take when the browser has MLflow's own code already, as on every day but the first.

Counted is the processor's time of browser and servers together, which is how long the page takes on one core that does nothing
else; seconds on the clock, with whatever else the machine did, are among the figures.

REWARDLOOP_BENCH_QUICK=1: a tenth of all that. REWARDLOOP_PICTURES=folder keeps a picture of each page.
"""

import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page
from rich.console import Console
from rich.progress import track
from rich.table import Table

from infra.clock import DAY, HOUR
from infra.database import open_database
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tracking import VERSION_TAG, Tracking
from ingestion.events import Batch, Candidate, Content, Decision, Placement
from ingestion.store import apply
from pipelines import approvals
from pipelines.learning import Bench, retrain
from pipelines.reporting.making import Made, weekly
from pipelines.supervisor import Supervisor, api_service, mlflow_service
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.spending import Meter, Spent
from tests.pipelines.reporting.showcase import LOOP, NOW, populate
from tests.stack.browsing import chromium

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
RUNS, CONTENTS, LOADS = (100, 500, 2) if QUICK else (1_000, 5_000, 5)
AGAIN = 3
"""Loads by a browser that was there before."""
CAMPAIGN = "coats"
GOAL = "<= 3"
PATIENCE = 900_000.0
"""Milliseconds until a page is given up; long, since other work may hold the machine up."""
_WORDS = (
    "warm",
    "winter",
    "coat",
    "sale",
    "soft",
    "wool",
    "gift",
    "red",
    "blue",
    "now",
    "your",
    "new",
    "long",
    "kind",
    "last",
)


@dataclass(frozen=True)
class Look:
    """A page, and how it is seen that it can be read."""

    name: str
    address: str
    ready: Callable[[Page], object]
    mlflow: bool = False


def main() -> None:
    """Build the installation, open every page, print what each took."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="rewardloop-pages-") as folder:
        settings = Settings(home=Path(folder) / "home", port=0, mlflow_port=0)
        settings.home.mkdir()
        with console.status("a campaign with its report, and runs of years"):
            made, making = build(settings)
        with served(settings) as (api, tracking), chromium() as browser:
            looks = [*ours(api, made), *mlflows(tracking, made, experiment(settings))]
            first = {one.name: opened(browser, one) for one in track(looks, "pages", console=console)}
            again = {one.name: opened_again(browser, one) for one in looks if one.mlflow}
    show(first, again)
    goals = [goal(f"{name}, seconds", taken) for name, taken in first.items()]
    goals += [goal(f"{name}, seconds with its code there", taken) for name, taken in again.items()]
    figures = {
        "runs": RUNS,
        "contents": CONTENTS,
        "loads": LOADS,
        "on the clock": {name: statistics.median(one.clock for one in taken) for name, taken in first.items()},
        "what else ran": os.getloadavg()[2],
        "seconds to make the report": making,
    }
    finish("pages", goals, figures)


def goal(name: str, taken: Sequence[Spent]) -> Goal:
    """Of a page, with the range over its loads."""
    return Goal(name, middle(taken), GOAL, (min(taken).processor, max(taken).processor))


def middle(taken: Sequence[Spent]) -> float:
    """The median of the processor's seconds."""
    return statistics.median(one.processor for one in taken)


def show(first: Mapping[str, Sequence[Spent]], again: Mapping[str, Sequence[Spent]]) -> None:
    """The table for people."""
    table = Table(
        "page", "median s", "worst s", "once seen", "on the clock", title=f"{RUNS:,} runs, {CONTENTS:,} contents"
    )
    for name, taken in first.items():
        later = f"{middle(again[name]):.2f}" if name in again else ""
        clock = statistics.median(one.clock for one in taken)
        table.add_row(name, f"{middle(taken):.2f}", f"{max(taken).processor:.2f}", later, f"{clock:.2f}")
    Console().print(table)


def ours(api: str, made: Made) -> list[Look]:
    """Our own pages, and the report as a file."""
    lines = "%0A".join(f"A+warm+coat+for+{number}+winters" for number in range(20))
    return [
        Look("first page", f"{api}/?texts={lines}", words("The mean of this loop is")),
        Look("campaign", f"{api}/campaigns/{CAMPAIGN}", words("As they stand now")),
        Look("approvals", f"{api}/loops/{LOOP}/approvals", words("more follow once these are decided")),
        Look(
            "preferences",
            f"{api}/campaigns/{CAMPAIGN}/preferences?annotator=ann",
            words("Choose by what you would send"),
        ),
        Look("report of the week", made.page.as_uri(), words("All figures")),
    ]


def mlflows(tracking: str, made: Made, number: str) -> list[Look]:
    """MLflow's pages over the loop."""
    here = f"{tracking}/#/experiments/{number}/runs"

    def report(page: Page) -> None:
        page.frame_locator("iframe").first.get_by_text("All figures").first.wait_for(timeout=PATIENCE)

    found = [
        Look("MLflow: experiments", f"{tracking}/#/experiments", words(LOOP)),
        Look("MLflow: runs of a loop", here, words(f"{LOOP}-{RUNS - 1}")),
        Look("MLflow: the week's run", f"{here}/{made.run_id}", words("What it earned")),
        Look("MLflow: the week's report", f"{here}/{made.run_id}/artifacts/report.html", report),
        Look("MLflow: models", f"{tracking}/#/models", words(LOOP)),
        Look("MLflow: versions of a model", f"{tracking}/#/models/{LOOP}", words(f"Version {RUNS - 1}")),
        Look("MLflow: a version", f"{tracking}/#/models/{LOOP}/versions/1", words("would have earned")),
    ]
    return [Look(one.name, one.address, one.ready, mlflow=True) for one in found]


def words(text: str) -> Callable[[Page], object]:
    """Ready once this is on the screen."""
    return lambda page: page.get_by_text(text).first.wait_for(timeout=PATIENCE)


def opened(browser: Browser, look: Look) -> list[Spent]:
    """Each load, by a browser that was never there."""
    found = []
    for number in range(LOADS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        found.append(load(context, look, picture=number == 0))
        context.close()
    return found


def opened_again(browser: Browser, look: Look) -> list[Spent]:
    """Each load, by a browser that has the page's code from before."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    load(context, look)
    found = [load(context, look) for _ in range(AGAIN)]
    context.close()
    return found


def load(context: BrowserContext, look: Look, picture: bool = False) -> Spent:
    """What one load takes."""
    page = context.new_page()
    meter = Meter()
    page.goto(look.address, wait_until="commit", timeout=PATIENCE)
    look.ready(page)
    taken = meter.read()
    if picture and (folder := os.environ.get("REWARDLOOP_PICTURES")):
        page.screenshot(path=str(Path(folder) / f"{look.name.replace(': ', '-').replace(' ', '-')}.png"))
    page.close()
    return taken


def build(settings: Settings) -> tuple[Made, float]:
    """The installation with its report, and how many seconds making the report took."""
    engine = open_database(settings.database)
    migrate(engine)
    secrets = load_secrets(settings)
    populate(engine, secrets)
    bench = Bench(settings, engine, lambda: NOW, Tracking(settings))
    retrain(bench, LOOP)
    approvals.approve(bench, LOOP, None, "ann")
    contents, sends = many()
    apply(engine, Batch(contents=contents, decisions=sends), secrets, NOW)
    meter = Meter()
    made = weekly(bench, LOOP)
    making = meter.read().processor
    engine.dispose()
    fill(settings)
    return made, making


def many() -> tuple[tuple[Content, ...], tuple[Decision, ...]]:
    """The contents of a busy campaign: of five one waits for approval, and four were sent once, last week, by the customer's own choice."""
    rng = np.random.default_rng(1)
    contents = tuple(
        Content(
            content_id=f"many-{number:05}",
            campaign_id=CAMPAIGN,
            slots={"subject": f"{' '.join(rng.choice(_WORDS, 7))} {number}"},
            generator="templates",
            approval="approved" if number % 5 else "draft",
            created_at=NOW - 9 * DAY,
        )
        for number in range(CONTENTS)
    )
    return contents, tuple(_sent(one, place) for place, one in enumerate(contents) if one.approval == "approved")


def _sent(content: Content, place: int) -> Decision:
    return Decision(
        decision_id=f"sent-{content.content_id}",
        request_digest="r",
        loop_id=LOOP,
        loop_version=1,
        campaign_id=CAMPAIGN,
        unit=f"u1:{place + 10**9:032x}",
        context={"customer": "old", "device": "phone"},
        group="customer_managed",
        learning_mode="logging_only",
        candidates=(Candidate(content_id=content.content_id),),
        chosen=(Placement(position=1, content_id=content.content_id, propensity=None),),
        policy_version="own",
        sampler="",
        floor=0.0,
        constraints={"slots": 1},
        seed="",
        decided_at=NOW - 6 * DAY + place % 24 * HOUR,
    )


def fill(settings: Settings) -> None:
    """Runs and versions as years of retraining leave them, with the figures that a run has. The newest is the last."""
    from mlflow.entities import Metric, Param, RunTag

    client, number = client_of(settings), experiment(settings)
    names = ("clicks per 1000", "revenue per 1000 in EUR", "expected gain per 1000", "customers judged")
    for place in range(2, RUNS):
        at, name = NOW // 1_000 + place * 60_000, f"{LOOP}-{place}"
        run = client.create_run(number, start_time=at, run_name=name, tags={VERSION_TAG: name})
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(metric, float(place), at, 0) for metric in names],
            params=[Param("rounds", "120"), Param("leaves", "15")],
            tags=[RunTag("mlflow.note.content", f"# {name}\n\nNothing changed.")],
        )
        client.set_terminated(run.info.run_id, end_time=at)
        source = f"{run.info.artifact_uri}/model"
        client.create_model_version(LOOP, source=source, run_id=run.info.run_id, tags={VERSION_TAG: name})


def client_of(settings: Settings) -> Any:
    """MLflow's own client."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.tracking, registry_uri=settings.tracking)


def experiment(settings: Settings) -> str:
    """The number of the loop's experiment."""
    return str(client_of(settings).get_experiment_by_name(LOOP).experiment_id)


@contextmanager
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """The addresses of API and MLflow, which run while it is entered."""
    services = [api_service(settings), mlflow_service(settings)]
    with Supervisor(services) as running:
        running.wait_until_ready(services, threading.Event(), lambda *_: None)
        yield services[0].origin, services[1].origin


if __name__ == "__main__":
    main()
