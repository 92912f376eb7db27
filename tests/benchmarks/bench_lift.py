"""Always-on lift: looks after every unit while a bandit allocates nine units in ten, against known truths.

Every run is a campaign of the product: units come one after the other, each is held out with probability 10 % (uniform
over the contents) or gets what the product's posterior and policy draw, updated sixty times. The lift is measured by
``lift.lift_so_far``'s own functions with the default settings, and looked at after every unit past the burn-in (100 units and 5
responses in each group).

1. no effect: all contents are alike. How often is a lift ever claimed?
2. an effect: contents differ, the policy learns, the lift grows. How often is the interval ever off the truth, the mean
   over the units so far of Σ policy·μ − mean μ?
3. stopping: units until 0 is excluded, over the units that a fixed-sample test (two-sided, 5 %) needs for 80 % power at the
   run's own mean lift. Three sizes of effect, which need about 1,000, 3,000 and 12,000 units.

Real customers, where the data folder is there: the A/A drill of ``rewardloop drill`` on Hillstrom's visits and spend, and how
much noise covariates take out there and on Complete Journey's households (spend of six months, by the six months before).

Worlds: clicks; spend (4 % buy, lognormal with σ = 1); drift (clicks with a weekly season, and effects that fade).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from ingestion.loops import LiftSettings, PolicySettings
from reward_models.covariates import context_columns
from reward_models.drill import claimed, drill
from reward_models.lift import noise_removed
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects
from reward_models.sequences import Dealt, ready, running, sequence
from tests.benchmarks.harness import Goal, finish

FOLDER = Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
SEED = 20_261_122
HOLDOUT = 0.1
BATCHES = 60
UNITS = 12_000
RUNS = 200 if os.environ.get("REWARDLOOP_BENCH_QUICK") else 2_000
STOPS = RUNS // 4
TOGETHER = 10
"""Runs per task of the pool."""
SETTINGS = LiftSettings()
POLICY = PolicySettings()
NORMAL_95, NORMAL_80 = 1.959964, 0.841621

Floats = np.ndarray
ByWorld = Mapping[str, Floats]
"""What was found, by the name of the world."""


@dataclass(frozen=True)
class World:
    """One kind of campaign. ``spread``: standard deviation of the logarithm of the contents' rates."""

    name: str
    rate: float
    spread: float
    units: int = UNITS
    money: bool = False
    drift: bool = False
    contents: int = 5


@dataclass(frozen=True)
class Campaign:
    """One run: what is measured, and what is true for every unit, shape (n,)."""

    dealt: Dealt
    lift: Floats
    variance: Floats
    """Of the totals, weighted as a difference of means with these group sizes has it."""


CALM = (
    World("clicks", 0.08, 0.0),
    World("spend", 0.04, 0.0, money=True),
    World("drift", 0.08, 0.0, drift=True),
)
LEARNING = tuple(replace(world, spread=0.3) for world in CALM)
STOPPING = (
    World("clicks, large effect", 0.25, 0.45, units=8_000),
    World("clicks, medium effect", 0.15, 0.35, units=24_000),
    World("clicks, small effect", 0.08, 0.25, units=80_000),
)


def play(world: World, generator: np.random.Generator) -> Campaign:
    """One campaign, batch by batch; the policy knows the batches before."""
    effects = np.exp(world.spread * _spaced(world.contents))
    counts = np.zeros((4, world.contents))
    columns: list[tuple[Floats, ...]] = []
    for batch in np.array_split(np.arange(world.units), BATCHES):
        policy = _policy(counts)
        held = generator.random(len(batch)) < HOLDOUT
        chosen = np.where(
            held, generator.integers(world.contents, size=len(batch)), _draw(policy, len(batch), generator)
        )
        rates = _rates(world, batch, effects)
        answered = generator.random(len(batch)) < rates[np.arange(len(batch)), chosen]
        value = np.exp(generator.standard_normal(len(batch)) - 0.5) if world.money else np.ones(len(batch))
        total = answered * value
        for row, values in enumerate((np.ones(len(batch)), total, total**2)):
            counts[row] += np.bincount(chosen, values, world.contents)
        square = float(np.e) if world.money else 1.0
        treated, base = rates @ policy, rates.mean(axis=1)
        variance = (square * treated - treated**2) / (1 - HOLDOUT) + (square * base - base**2) / HOLDOUT
        columns.append((~held, total, treated - base, variance))
    treatment, total, lift, variance = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return Campaign(Dealt(treatment, np.full(world.units, HOLDOUT), total), lift, variance)


def looked_at(campaign: Campaign) -> tuple[bool, bool, bool, bool]:
    """Whether any look that counts misses the truth, claims a lift, claims one by the plain test, claims harm."""
    looks = ready(campaign.dealt, SETTINGS.min_units, SETTINGS.min_responses)
    estimate = running(campaign.dealt)
    interval = sequence(estimate, SETTINGS.alpha, SETTINGS.tuned_units)
    truth = _mean_so_far(campaign.lift)
    missed = looks & ((truth < interval.low) | (truth > interval.high))
    found, plain = claimed(campaign.dealt, SETTINGS, looks)
    harm = looks & (sequence(estimate, SETTINGS.alpha, SETTINGS.tuned_units, sides=1).low > 0.0)
    return bool(missed.any()), bool(found.any()), bool(plain.any()), bool(harm.any())


def stopped(campaign: Campaign) -> tuple[float, float]:
    """Units at the first claim (infinite for none) and units of the fixed-sample test."""
    looks = ready(campaign.dealt, SETTINGS.min_units, SETTINGS.min_responses)
    found, _ = claimed(campaign.dealt, SETTINGS, looks)
    count = np.arange(1, len(found) + 1)
    z = _mean_so_far(campaign.lift) * np.sqrt(count / _mean_so_far(campaign.variance))
    enough = np.flatnonzero(z >= NORMAL_95 + NORMAL_80)
    return _first(found), float(enough[0] + 1) if len(enough) else np.inf


def main() -> None:
    """Play all runs on both cores, print the tables and the goals."""
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        calm = {world.name: _all(pool, _look, world, RUNS, console, "no effect") for world in CALM}
        learning = {world.name: _all(pool, _look, world, RUNS, console, "learning") for world in LEARNING}
        stops = {world.name: _all(pool, _stop, world, STOPS, console, "stopping") for world in STOPPING}
    ratios = {name: values[:, 0] / values[:, 1] for name, values in stops.items()}
    real = on_real_customers()
    _print(calm, learning, stops, ratios, real)
    worst_claim = max(calm, key=lambda name: float(calm[name][:, 1].mean()))
    worst_miss = max(learning, key=lambda name: float(learning[name][:, 0].mean()))
    slowest = max(ratios, key=lambda name: float(np.median(ratios[name])))
    finish(
        "lift",
        [
            _share(f"simultaneous miscoverage, worst world ({worst_miss})", learning[worst_miss][:, 0], "<= 0.06"),
            _share(f"false positives, worst world ({worst_claim})", calm[worst_claim][:, 1], "<= 0.05"),
            Goal(
                f"median stopping time over the fixed sample, worst effect ({slowest})",
                float(np.median(ratios[slowest])),
                "<= 1.6",
                _median_interval(ratios[slowest]),
            ),
        ],
        {
            "runs": RUNS,
            "looks": "after every unit",
            "burn_in": {"units_per_group": SETTINGS.min_units, "responses_per_group": SETTINGS.min_responses},
            "false_positives": {name: float(values[:, 1].mean()) for name, values in calm.items()},
            "false_positives_of_a_plain_test": {name: float(values[:, 2].mean()) for name, values in calm.items()},
            "false_alarms_of_a_guardrail": {name: float(values[:, 3].mean()) for name, values in calm.items()},
            "miscoverage": {name: float(values[:, 0].mean()) for name, values in learning.items()},
            "found": {name: float(values[:, 1].mean()) for name, values in learning.items()},
            "median_stop_over_fixed": {name: float(np.median(values)) for name, values in ratios.items()},
            "median_fixed_sample": {name: float(np.median(values[:, 1])) for name, values in stops.items()},
            **real,
        },
    )


def on_real_customers() -> dict[str, dict[str, float]]:
    """Shares of drills that claim a lift, and shares of variance that covariates take out; empty without the data."""
    if not (FOLDER / "hillstrom").exists() or not (FOLDER / "complete_journey").exists():
        return {}
    hillstrom = pd.read_csv(FOLDER / "hillstrom" / "hillstrom.csv")
    known = ["recency", "history", "mens", "womens", "zip_code", "newbie", "channel"]
    covariates = context_columns(hillstrom[known].to_dict("records"))
    customers = {name: _customers(hillstrom[name], covariates) for name in ("visit", "spend")}
    lines = pd.read_csv(
        FOLDER / "complete_journey" / "transactions_sample.csv.gz", parse_dates=["transaction_timestamp"]
    )
    half = np.where(lines["transaction_timestamp"] < "2017-07-01", "before", "after")
    spend = lines.groupby(["household_id", half])["sales_value"].sum().unstack(fill_value=0.0)
    customers["household spend"] = _customers(spend["after"], np.log1p(spend[["before"]].to_numpy(dtype=np.float64)))
    drills = {name: drill(dealt, SETTINGS, STOPS, SEED) for name, dealt in customers.items()}
    return {
        "drill_claims": {name: found.claimed for name, found in drills.items()},
        "drill_claims_of_a_plain_test": {name: found.peeking for name, found in drills.items()},
        "variance_taken_out_by_covariates": {name: noise_removed(dealt) for name, dealt in customers.items()},
    }


def _customers(total: pd.Series, covariates: Floats) -> Dealt:
    """In an order drawn once, as the files have no dates of arrival; to be dealt by the drill."""
    order = np.random.default_rng(SEED).permutation(len(total))
    values = total.to_numpy(dtype=np.float64)[order]
    return Dealt(np.ones(len(values), dtype=bool), np.full(len(values), HOLDOUT), values, covariates[order])


Task = Callable[[World, np.random.Generator], tuple[float, ...]]
"""One run in a world: what came of it, as numbers."""


def _all(pool: ProcessPoolExecutor, task: Task, world: World, runs: int, console: Console, what: str) -> Floats:
    jobs = [(task, world, runs_of) for runs_of in _chunks(runs)]
    found = track(pool.map(_run, jobs), f"{what}: {world.name}", total=len(jobs), console=console, transient=True)
    return np.array([row for part in found for row in part], dtype=np.float64)


def _chunks(runs: int) -> Iterator[Sequence[int]]:
    for begin in range(0, runs, TOGETHER):
        yield range(begin, min(begin + TOGETHER, runs))


def _run(job: tuple[Task, World, Sequence[int]]) -> list[tuple[float, ...]]:
    task, world, runs = job
    return [task(world, np.random.default_rng((SEED, run, len(world.name), int(100 * world.spread)))) for run in runs]


def _look(world: World, generator: np.random.Generator) -> tuple[bool, bool, bool, bool]:
    return looked_at(play(world, generator))


def _stop(world: World, generator: np.random.Generator) -> tuple[float, float]:
    return stopped(play(world, generator))


def _policy(counts: Floats) -> Floats:
    effects = content_effects(ArmCounts(*counts), 0.0)
    return pmf(POLICY, effects.effect, effects.sd)


def _draw(policy: Floats, size: int, generator: np.random.Generator) -> Floats:
    cumulative = np.cumsum(policy)
    place = np.searchsorted(cumulative, generator.random(size) * cumulative[-1], side="right")
    return np.asarray(np.minimum(place, len(policy) - 1))


def _rates(world: World, units: Floats, effects: Floats) -> Floats:
    """True response rates, (units, contents). A week has 700 units; a fading effect halves every 4,000."""
    if not world.drift:
        return np.tile(world.rate * effects, (len(units), 1))
    season = 1.0 + 0.4 * np.sin(2.0 * np.pi * units / 700.0)
    fresh = 0.5 ** (units / 4_000.0)
    return world.rate * season[:, None] * effects ** fresh[:, None]


def _spaced(contents: int) -> Floats:
    """Normal scores: contents as different as a sample of so many usually is."""
    return np.asarray(stats.norm.ppf((np.arange(contents) + 0.5) / contents))


def _mean_so_far(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1))


def _first(found: Floats) -> float:
    where = np.flatnonzero(found)
    return float(where[0] + 1) if len(where) else np.inf


def _share(name: str, hits: Floats, goal: str) -> Goal:
    n, k = len(hits), int(hits.sum())
    low = float(stats.beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    return Goal(name, k / n, goal, (low, float(stats.beta.ppf(0.975, k + 1, n - k))))


def _median_interval(values: Floats) -> tuple[float, float]:
    """Order statistics around the median, 95 % (binomial)."""
    ordered, n = np.sort(values), len(values)
    reach = NORMAL_95 * np.sqrt(n) / 2.0
    return float(ordered[max(0, int(n / 2 - reach))]), float(ordered[min(n - 1, int(np.ceil(n / 2 + reach)))])


def _print(
    calm: ByWorld, learning: ByWorld, stops: ByWorld, ratios: ByWorld, real: Mapping[str, Mapping[str, float]]
) -> None:
    console = Console(width=110)
    table = Table(title=f"{RUNS:,} runs per world, looks after every unit", title_justify="left")
    for column in (
        "world",
        "false positives",
        "plain test, peeking",
        "guardrail's false alarms",
        "ever off the truth",
        "found",
    ):
        table.add_column(column, justify="left" if column == "world" else "right")
    for name in calm:
        shares = (calm[name][:, 1], calm[name][:, 2], calm[name][:, 3], learning[name][:, 0], learning[name][:, 1])
        table.add_row(name, *(f"{float(values.mean()):.1%}" for values in shares))
    console.print(table)
    table = Table(title=f"Stopping, {STOPS:,} runs each", title_justify="left")
    for column in ("world", "fixed sample", "stopped at (median)", "ratio (median)", "ratio (9 in 10)"):
        table.add_column(column, justify="left" if column == "world" else "right")
    for name, values in stops.items():
        median, late = (float(np.quantile(ratios[name], q, method="higher")) for q in (0.5, 0.9))
        fixed, stop = (float(np.median(values[:, column])) for column in (1, 0))
        table.add_row(name, f"{fixed:,.0f}", f"{stop:,.0f}", f"{median:.2f}", f"{late:.2f}")
    console.print(table)
    table = Table(title=f"Real customers, dealt anew {STOPS:,} times without an effect", title_justify="left")
    for column in ("customers", "claims", "plain test, peeking", "variance taken out by covariates"):
        table.add_column(column, justify="left" if column == "customers" else "right")
    for name in real.get("drill_claims", {}):
        table.add_row(name, *(f"{values[name]:.1%}" for values in real.values()))
    console.print(table if real else f"No data under {FOLDER}: real customers are left out.")


if __name__ == "__main__":
    main()
