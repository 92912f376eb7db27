"""The outer loop on simulated customers: ``rewardloop demo --generate``. Copy that writes itself better, round by round.

    1 start the real scoring API over the data folder, define a loop with copy rules that approves by itself
    2 each round is a campaign: generate copy for its brief, send it to every customer, let them respond
    3 what it earned picks prompts and examples of the next round; from the third round on a model is trained, and the best
      of N is kept once one was promoted
    4 beside what was measured stands what is true (the simulator knows), and what the same generator writes without feedback

Every round is a run in MLflow's experiment of the loop, with its prompts in the prompt registry; the last run holds the
rounds side by side. The writer is the server of the settings, else templates that read their examples.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from infra.clock import DAY, SimulatedClock, system_clock
from infra.database import canonical_json, open_database
from infra.errors import Unavailable
from infra.logs import log
from infra.migrations import migrate
from infra.services import prepare_environment
from infra.settings import Settings
from infra.tracking import Record
from pipelines import learning
from pipelines.demo import WORLD, definition_of, next_name, progress_bar, wait_for
from pipelines.demo import Plan as WavePlan
from pipelines.generation.generators import Order
from pipelines.generation.outcome import Made, Wish
from pipelines.generation.prompts import HOUSE
from pipelines.generation.steps import generate
from pipelines.generation.templated import TemplateGenerator
from pipelines.learning import open_bench
from pipelines.shop import Api, Shop
from pipelines.simulator import Customer, draw_customers, true_values
from pipelines.supervisor import Supervisor, api_service, interrupted_by_signals
from pipelines.templates import read_factors

THEMES = ("the winter collection", "the spring sale", "our walking shoes", "the tea shelf", "our wool blankets")
RULES = {
    "facts": "brief",
    "placeholders": ["first_name"],
    "slots": {"subject": {"least": 10, "most": 160}},
    "most_similar": 0.9,
}
FIRST_RETRAIN = 3


@dataclass(frozen=True)
class Plan:
    """How much is simulated: ``waves`` messages to every customer per round."""

    customers: int = 600
    rounds: int = 5
    waves: int = 2
    count: int = 8
    candidates: int = 6
    apart: int = 4 * DAY
    seed: int = 2_026
    connections: int = 4


FULL = Plan()
SHORT = Plan(customers=30, rounds=2, waves=1, count=4, candidates=3)
"""For a test of the whole path."""


@dataclass(frozen=True)
class Round:
    """One campaign. Rewards are revenue per 1,000 messages. ``true``: of the kept copy, sent evenly to all; ``plain``: of
    what the generator writes without feedback."""

    made: Made
    measured: float
    true: float
    plain: float


def run_show(settings: Settings, plan: Plan, console: Console) -> list[Round]:
    """Play all rounds, telling ``console``. However it ends, no process is left behind."""
    prepare_environment(settings)
    engine = open_database(settings.database)
    migrate(engine)
    try:
        with interrupted_by_signals():
            return _Show(settings, engine, plan, console).play()
    finally:
        engine.dispose()


class _Show:
    def __init__(self, settings: Settings, engine: Engine, plan: Plan, console: Console) -> None:
        self._plan, self._console = plan, console
        self._clock = SimulatedClock(settings.home / "clock")
        self._loop = next_name(engine, "demo-copy-")
        rng = np.random.default_rng(plan.seed)
        self._customers = draw_customers(WORLD, rng, plan.customers, prefix=f"{self._loop}-c")
        self._api = api_service(settings)
        length = plan.rounds * plan.waves * plan.apart + 5 * DAY
        self._clock.set((system_clock() - length) // DAY * DAY)
        self._bench = open_bench(settings)

    def play(self) -> list[Round]:
        self._say("Starting the scoring API …")
        with Supervisor([self._api]) as supervisor, Api(self._api.origin, self._plan.connections) as api:
            try:
                supervisor.wait_until_ready([self._api], threading.Event(), lambda *_: None)
                rounds = self._rounds(api)
            except Unavailable:
                supervisor.check()  # a dead child is the better explanation
                raise
        self._log(rounds)
        return rounds

    def _rounds(self, api: Api) -> list[Round]:
        waves = WavePlan(gate_days=8, least_units=max(30, self._plan.customers // 6), holdout=0.2)
        definition = definition_of(waves) | {"approval": "automatic", "copy_rules": RULES}
        api.call("PUT", f"/v1/loops/{self._loop}", definition)
        rounds = []
        for number in range(1, self._plan.rounds + 1):
            rounds.append(self._round(api, number))
            if number >= FIRST_RETRAIN and number < self._plan.rounds:
                outcome = learning.retrain(self._bench, self._loop)
                self._say(f"Retrained: {outcome.version or 'no version'}, {outcome.state}. {outcome.sentence}")
        return rounds

    def _round(self, api: Api, number: int) -> Round:
        campaign, brief = f"{self._loop}-r{number}", brief_of(number)
        api.call("POST", "/v1/campaigns", {"campaign": campaign, "loop": self._loop, "brief": brief})
        wish = Wish(
            campaign_id=campaign,
            count=self._plan.count,
            candidates=self._plan.candidates,
            seed=self._plan.seed + number,
        )
        made = generate(self._bench, wish)
        self._console.print(made_table(f"Round {number}: {brief}", made))
        shop = Shop(
            api,
            self._clock,
            WORLD,
            self._customers,
            self._loop,
            campaign,
            self._plan.seed + number,
            self._plan.connections,
        )
        shop.take({one.content_id: features_of(one.text) for one in made.kept})
        wait_for(shop.chooses, f"the API to know the copy of {campaign}")
        self._send(shop)
        lines = [one.text for one in made.kept]
        found = Round(
            made, self._measured(api, campaign), worth(self._customers, lines), plain_worth(self._customers, number)
        )
        self._say(
            f"Round {number}: revenue per 1,000 measured {found.measured:,.0f}, truly worth {found.true:,.0f} "
            f"(without feedback {found.plain:,.0f})."
        )
        return found

    def _send(self, shop: Shop) -> None:
        begun = self._clock()
        with progress_bar(self._console) as progress:
            bar = progress.add_task("messages chosen", total=self._plan.customers * self._plan.waves)
            for wave in range(1, self._plan.waves + 1):
                shop.expect_organic(wave, begun + wave * self._plan.apart)
                shop.send_wave(wave, lambda sent: progress.advance(bar, sent))
                shop.pass_time(begun + wave * self._plan.apart)

    def _measured(self, api: Api, campaign: str) -> float:
        results = api.call("GET", f"/v1/campaigns/{campaign}/results")
        totals = [one["metrics"].get("revenue", {}).get("total", 0.0) for one in results["contents"]]
        return float(1_000 * sum(totals) / max(1, results["exposures"]))

    def _log(self, rounds: Sequence[Round]) -> None:
        try:
            self._bench.tracking.log_report(self._loop, record_of(self._loop, rounds, self._clock()))
        except Unavailable as error:
            log.warning("show_not_mirrored", loop=self._loop, reason=str(error))

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def brief_of(number: int) -> str:
    """Of a round. What it does not name may not be claimed."""
    theme = THEMES[(number - 1) % len(THEMES)]
    return f"Bring customers back for {theme}: 3, 5, 7 or 12 favourites. They save 10 % or 20 %."


def features_of(line: str) -> dict[str, Any]:
    """What the simulator's customers see in a line."""
    return {name: count > 0 for name, count in read_factors(line).items()}


def worth(customers: Sequence[Customer], lines: Sequence[str]) -> float:
    """True revenue per 1,000 messages of these lines, each sent to everybody."""
    if not lines:
        return 0.0
    return 1_000 * float(true_values(WORLD, customers, [features_of(line) for line in lines]).revenue.mean())


def plain_worth(customers: Sequence[Customer], number: int, drafts: int = 20) -> float:
    """The same of what the templates write for a round's brief by every prompt alike, without examples."""
    orders = [
        Order(prompt=prompt, count=drafts, seed=number, brief=brief_of(number), slots=("subject",)) for prompt in HOUSE
    ]
    return worth(customers, [draft.slots["subject"] for draft in TemplateGenerator().write(orders).drafts])


def made_table(title: str, made: Made) -> Table:
    """The kept copy of a round, and below it which prompts wrote."""
    told = ", ".join(f"{one.name} {one.probability:.0%}" for one in made.prompts)
    broken = ", ".join(f"{rule} {count}" for rule, count in sorted(made.broken.items())) or "none"
    caption = f"{made.sentence} Examples: {made.examples}. Prompts: {told}. Broken rules: {broken}."
    table = Table(title=title, title_justify="left", title_style="bold", caption=Text(caption), caption_justify="left")
    for column in ("kept copy", "prompt", "kept for"):
        table.add_column(column, overflow="fold")
    for one in made.kept:
        table.add_row(Text(one.text), Text(one.prompt), one.why if made.model_version else "no model yet")
    return table


def rounds_table(rounds: Sequence[Round]) -> Table:
    """All rounds side by side."""
    table = Table(title=f"Revenue per 1,000 messages ({WORLD.currency})", title_justify="left", title_style="bold")
    for column in ("round", "examples", "model", "measured", "truly worth", "without feedback", "ahead by"):
        table.add_column(column, justify="right")
    for number, one in enumerate(rounds, 1):
        ahead = f"{one.true / one.plain - 1:+.0%}" if one.plain else ""
        money = (f"{value:,.0f}" for value in (one.measured, one.true, one.plain))
        table.add_row(str(number), str(one.made.examples), one.made.model_version or "none", *money, ahead)
    return table


def record_of(loop_id: str, rounds: Sequence[Round], now: int) -> Record:
    """The rounds as one run in MLflow."""
    figures: dict[str, float] = {}
    for number, one in enumerate(rounds, 1):
        figures |= {
            f"round {number} measured": one.measured,
            f"round {number} true": one.true,
            f"round {number} without feedback": one.plain,
        }
    lines = [
        f"| {number} | {one.measured:,.0f} | {one.true:,.0f} | {one.plain:,.0f} |"
        for number, one in enumerate(rounds, 1)
    ]
    digest = hashlib.sha256(canonical_json([loop_id, figures])).hexdigest()
    head = "Revenue per 1,000 messages of the copy that each round kept.\n\n"
    return Record(
        version="outer loop",
        name="outer loop",
        digest=digest,
        description=head
        + "\n".join(["| round | measured | truly worth | without feedback |", "|---|---|---|---|", *lines]),
        at=now,
        dataset_digest=digest,
        as_of=0,
        metrics=figures,
        tags={"rewardloop.loop": loop_id, "rewardloop.kind": "copy"},
    )


def print_rounds(rounds: Sequence[Round], settings: Settings, console: Console) -> None:
    """What came of it, and where to look further."""
    console.print(rounds_table(rounds))
    loop_id = rounds[0].made.loop_id
    for line in (
        f"Copy, verdicts and provenance: rewardloop up, then http://127.0.0.1:{settings.port}/campaigns/{rounds[-1].made.campaign_id}",
        f"MLflow: rewardloop up, then http://127.0.0.1:{settings.mlflow_port} (Model training, experiment {loop_id}; GenAI, Prompts)",
        "One run is luck as well: make bench NAME=generate has the interval.",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
