"""The whole loop on simulated customers, in a few minutes: ``rewardloop demo``, ``make demo``.

    1 start the real scoring API and a Prefect server, each its own process, over the data folder
    2 register a loop, a campaign and generated subject lines over HTTP, approve them, start the campaign
    3 send wave after wave: ask for a choice for every customer, post their late, doubled, disordered events,
      label the clicks of machines, and move the simulated clock
    4 after some waves run the real Prefect retrain flow: it logs to MLflow, and the gate promotes or does not
    5 wait until every outcome is mature, and compare the holdout with the learned policy, beside the truth

Each run uses a loop, a campaign and customers of its own (``demo-1``, ``demo-2`` …) in the same data folder, so that
earlier runs stay to be looked at. The simulated clock is a file of the data folder, moved by this process alone; it
starts so far back that the last wave matures about now.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine, func, select

from infra.clock import DAY, SimulatedClock, system_clock
from infra.database import open_database, reading
from infra.errors import Unavailable
from infra.migrations import migrate
from infra.secrets import Secrets, load_secrets
from infra.services import prepare_environment
from infra.settings import Settings, load_settings
from infra.tables import event_labels, loops
from ingestion.bots import BOT, BotWatch
from ingestion.loops import load_loop
from pipelines.comparison import Comparison, compare
from pipelines.shop import Api, Shop
from pipelines.simulator import World, draw_customers
from pipelines.supervisor import Service, Supervisor, api_service, interrupted_by_signals, prefect_service
from pipelines.templates import write_drafts
from reward_models.lift import Lift

WORLD = World(effect=1.25)
"""Copy matters a good deal here, so that ten thousand messages can show it."""
BRIEF = "Bring customers back to the shop for the winter collection."
THEME = "the winter collection"


@dataclass(frozen=True)
class Plan:
    """How much is simulated. Every customer gets one message per wave."""

    customers: int = 900
    waves: int = 12
    apart: int = 4 * DAY
    """From the start of one wave to the start of the next."""
    contents: int = 8
    holdout: float = 0.3
    retrain_after: tuple[int, ...] = (8, 10)
    """Waves after which the flow runs."""
    gate_days: int = 16
    least_units: int = 200
    seed: int = 2_026
    connections: int = 4


FULL = Plan()
SHORT = Plan(customers=120, waves=5, contents=4, holdout=0.5, retrain_after=(4, 5), gate_days=4, least_units=30)
"""For a test of the whole path; too few customers to prove anything."""


@dataclass(frozen=True)
class Retrained:
    """How one run of the flow ended, and when in simulated time."""

    at: int
    state: str
    version: str | None
    sentence: str


@dataclass(frozen=True)
class Report:
    """What the demo found. ``since_promotion`` is null if nothing was promoted."""

    loop: str
    posted: dict[str, int]
    labelled: int
    retrained: tuple[Retrained, ...]
    whole: Comparison
    since_promotion: Comparison | None


def definition_of(plan: Plan) -> dict[str, Any]:
    """The loop's definition: what the shop wants is revenue, and clicks are watched."""
    return {
        "metrics": [
            {"name": "click", "event": "click", "aggregate": "any", "window": "2d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "2d", "currency": WORLD.currency},
        ],
        "reward": {"revenue": 1.0},
        "currency": WORLD.currency,
        "holdout": plan.holdout,
        "policy": {"damping": 1.0, "floor": 0.03},  # explores enough for the gate to compare with the baseline
        "lateness": "12h",
        "refund_horizon": "36h",
        "gate": {
            "window": f"{plan.gate_days}d",
            "margin": 0.1,  # a refresh is judged on some 2,000 messages here, too few to show a smaller difference
            "min_units": plan.least_units,
            "min_effective": plan.least_units // 2,
        },
    }


def demo_settings() -> Settings:
    """The installation's settings, with the simulated clock and free ports; also in this process's environment."""
    os.environ["REWARDLOOP_CLOCK"] = "simulated"
    return load_settings(port=0, prefect_port=0)


def run_demo(settings: Settings, plan: Plan, console: Console) -> Report:
    """Run it, telling ``console`` what happens. Raises :class:`Unavailable` naming what failed and its log.

    However it ends, an interruption included, no process is left behind.
    """
    prepare_environment(settings)
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"  # the bars and sentences here tell the story
    engine = open_database(settings.database)
    migrate(engine)
    stage = Stage(settings, engine, load_secrets(settings), plan, console)
    try:
        with interrupted_by_signals():
            return stage.play()
    finally:
        engine.dispose()


class Stage:
    """One run of the demo, from the first wave to the comparison."""

    def __init__(self, settings: Settings, engine: Engine, secrets: Secrets, plan: Plan, console: Console) -> None:
        self._engine, self._secrets, self._plan, self._console = engine, secrets, plan, console
        self._clock = SimulatedClock(settings.home / "clock")
        self._loop = next_name(engine)
        self._customers = draw_customers(
            WORLD, np.random.default_rng(plan.seed), plan.customers, prefix=f"{self._loop}-c"
        )
        self._api, self._prefect = api_service(settings), prefect_service(settings)
        self._watch = BotWatch(engine, secrets, settings, self._clock)
        self._labelled_before = self._labels()
        self._retrained: list[Retrained] = []

    def play(self) -> Report:
        """All five steps."""
        self._say("Starting the scoring API and a Prefect server …")
        self._clock.set(self._begin())
        os.environ["PREFECT_API_URL"] = f"{self._prefect.origin}/api"
        with Supervisor([self._api, self._prefect]) as supervisor, Api(self._api.origin, self._plan.connections) as api:
            try:
                return self._play(supervisor, self._shop(api))
            except Unavailable:
                supervisor.check()  # a dead child is the better explanation
                raise

    def _play(self, supervisor: Supervisor, shop: Shop) -> Report:
        self._await(supervisor, self._api)
        shop.open(definition_of(self._plan), BRIEF, write_drafts(THEME, self._plan.contents, self._plan.seed))
        self._say(
            f"Registered loop {self._loop} with {self._plan.contents} generated subject lines, approved over HTTP."
        )
        began = self._clock()
        self._label_machines()  # it begins here
        with progress_bar(self._console) as progress:
            bar = progress.add_task("messages chosen", total=self._plan.customers * self._plan.waves)
            for wave in range(1, self._plan.waves + 1):
                self._wave(shop, wave, began, lambda sent: progress.advance(bar, sent))
                if wave in self._plan.retrain_after:
                    if not self._retrained:
                        self._await(supervisor, self._prefect)
                    self._retrain(shop)
        ended = self._clock()
        self._mature(shop)
        return self._report(shop, began, ended)

    def _wave(self, shop: Shop, wave: int, began: int, done: Callable[[int], None]) -> None:
        until = began + wave * self._plan.apart
        shop.expect_organic(wave, until)
        shop.send_wave(wave, done)
        shop.pass_time(until)
        self._label_machines()

    def _retrain(self, shop: Shop) -> None:
        """Run the flow in this process, as a scheduled deployment would, and wait until the API serves its model."""
        from pipelines.flows.retrain import retrain  # Prefect takes seconds to import and reads the environment

        self._say(f"Day {self._day()}: retraining (a Prefect flow, logged to MLflow) …")
        outcome = retrain(self._loop)
        run = Retrained(self._clock(), outcome["state"], outcome["version"], outcome["sentence"])
        self._retrained.append(run)
        self._say(f"Day {self._day()}: {run.version or 'no version'}, {run.state}. {run.sentence}")
        if run.state == "promoted":
            wait_for(lambda: shop.model_in_use() == run.version, f"the API to serve {run.version}")

    def _label_machines(self) -> None:
        """What the API does every second, done by now: a retraining is to see all of its words."""
        self._watch.label_bots()

    def _labels(self) -> int:
        with reading(self._engine) as connection:
            query = select(func.count()).select_from(event_labels).where(event_labels.c.label == BOT)
            return connection.scalar(query) or 0

    def _mature(self, shop: Shop) -> None:
        with reading(self._engine) as connection:
            definition, _ = load_loop(connection, self._loop)
        shop.pass_time(self._clock() + definition.maturity)
        self._label_machines()

    def _report(self, shop: Shop, began: int, ended: int) -> Report:
        customers = {self._secrets.unit(customer.customer_id): customer for customer in self._customers}
        promoted = [run.at for run in self._retrained if run.state == "promoted" and run.at < ended]
        with reading(self._engine) as connection:
            definition, _ = load_loop(connection, self._loop)
            whole, *since = [
                compare(connection, definition, WORLD, customers, since, ended) for since in (began, *promoted[:1])
            ]
        return Report(
            self._loop,
            dict(shop.posted),
            self._labels() - self._labelled_before,
            tuple(self._retrained),
            whole,
            since[0] if since else None,
        )

    def _shop(self, api: Api) -> Shop:
        return Shop(
            api,
            self._clock,
            WORLD,
            self._customers,
            self._loop,
            f"{self._loop}-winter",
            self._plan.seed,
            self._plan.connections,
        )

    def _await(self, supervisor: Supervisor, service: Service) -> None:
        supervisor.wait_until_ready(
            [service], threading.Event(), lambda ready, _: self._say(f"{ready.name} is up at {ready.origin}")
        )

    def _begin(self) -> int:
        """Midnight so many days ago that the last outcome matures about now."""
        length = self._plan.waves * self._plan.apart + 5 * DAY
        return (system_clock() - length) // DAY * DAY

    def _day(self) -> int:
        return (self._clock() - self._begin()) // DAY

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def print_report(report: Report, settings: Settings, console: Console) -> None:
    """What a marketer reads: a table per period, then where to look further."""
    sent = report.posted
    console.print(
        f"Events: {sent['accepted'] + sent['pending']} applied, {sent['duplicate']} duplicates recognised, "
        f"{report.labelled} clicks of machines labelled and left out.",
        soft_wrap=True,
        highlight=False,
    )
    console.print(comparison_table(f"{report.loop}: the whole campaign", report.whole))
    if report.since_promotion is not None:
        console.print(comparison_table(f"{report.loop}: since the first model was promoted", report.since_promotion))
    for line in (
        "Lift: learned policy minus holdout, every customer counted where assigned (intention to treat), with all",
        "purchases; the interval is over customers. Below the smallest detectable effect, this much data is silent;",
        "a lift like this one would show four times in five with as many customers as it takes.",
        f"Looking while it runs: rewardloop lift {report.loop} (its intervals hold over all looks together).",
        f"Data, logs and models are in {settings.home}/ (remove the folder to start over; a further demo adds to it).",
        f"MLflow:   rewardloop up, then http://127.0.0.1:{settings.mlflow_port} (Model training, experiment {report.loop})",
        f"Prefect:  rewardloop up, then http://127.0.0.1:{settings.prefect_port} (flow runs)",
        f"API docs: rewardloop up, then http://127.0.0.1:{settings.port}/docs",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def comparison_table(title: str, found: Comparison) -> Table:
    """Holdout, learned policy, measured lift with interval, smallest detectable effect, true lift."""
    click, revenue = found.measured["click"], found.measured["revenue"]
    table = Table(title=f"{title} (revenue in {WORLD.currency})", title_justify="left", title_style="bold")
    for column in ("", "decisions", "click rate", "revenue per 1,000"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_row(
        "holdout (baseline)",
        f"{found.holdout_decisions:,}",
        f"{click.holdout_mean:.2%}",
        f"{revenue.holdout_mean * 1_000:,.0f}",
    )
    table.add_row(
        "learned policy",
        f"{found.treatment_decisions:,}",
        f"{click.treatment_mean:.2%}",
        f"{revenue.treatment_mean * 1_000:,.0f}",
        end_section=True,
    )
    table.add_row("measured lift", "", _points(click.difference), _money(revenue.difference), style="bold")
    table.add_row("95 % interval", "", *_intervals(click, revenue))
    table.add_row("smallest detectable", "", _points(click.mde), _money(revenue.mde))
    table.add_row(
        "customers it takes", "", *(f"{each.units_needed:,.0f}" for each in (click, revenue)), end_section=True
    )
    table.add_row("true lift (simulator)", "", _points(found.true["click"]), _money(found.true["revenue"]))
    return table


def _intervals(click: Lift, revenue: Lift) -> tuple[str, str]:
    return (
        f"{click.low * 100:+.2f} to {click.high * 100:+.2f}",
        f"{_money(revenue.low)} to {_money(revenue.high)}",
    )


def _points(rate: float) -> str:
    return f"{rate * 100:+.2f} pts"


def _money(per_decision: float) -> str:
    return f"{per_decision * 1_000:+,.0f}"


def next_name(engine: Engine, prefix: str = "demo-") -> str:
    """A loop's name that is not taken yet: the prefix and a number."""
    with reading(engine) as connection:
        names = connection.scalars(select(loops.c.loop_id).distinct().where(loops.c.loop_id.startswith(prefix))).all()
    numbers = [int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdigit()]
    return f"{prefix}{max(numbers, default=0) + 1}"


def progress_bar(console: Console) -> Progress:
    """How far it is."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def wait_for(true: Callable[[], bool], what: str) -> None:
    """Wait until it is so. Raises :class:`Unavailable` after a minute."""
    deadline = time.monotonic() + 60.0
    while not true():
        if time.monotonic() > deadline:
            raise Unavailable(f"Waited a minute for {what}, in vain; see the API's log")
        time.sleep(0.2)
