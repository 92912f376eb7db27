"""Off-policy evaluation on semi-synthetic logs with known truth: which estimate to believe, and what it is worth.

18 settings: logging fixed or adaptive, 3 overlaps, 1,000 / 10,000 / 100,000 decisions (``offpolicy_worlds.py``). In each, a
reward model is fitted on an earlier log of other customers of the same size (the product's ``fit``), then logs are drawn
and the target is valued by every estimator; several models per setting, because their luck counts too.

1. error: root mean squared error over all logs, also those the gate would refuse. The automatic estimate against the
   best single estimator in hindsight, per setting; the interval is a bootstrap over models, both on the same logs, the
   best one as named (which flatters the best one: it was picked on these logs)
2. coverage: of the gate's estimate (target less what ran, doubly robust), over logs that are not refused at the gate's
   default floor; some logs are drawn for this alone
3. refusals: per overlap, and where there is none: a target that was never shown, or once in thousands
4. ranking: Kendall's τ between the truth and the automatic values of twenty policies

The rule was chosen on other seeds and other worlds: logs of logistic tastes with two kinds of simple models, and of this
world with other blends, models and seeds (``DECISIONS.md``).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from infra.errors import EstimateRefused
from ingestion.loops import GateSettings
from reward_models import offpolicy
from reward_models.automatic import automatic
from reward_models.logged import Floor, Logged
from reward_models.offpolicy import Estimate, difference
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.offpolicy_worlds import K, Logging, World, greedy

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEED = 20_261_131
OVERLAPS = {"good": 0.9, "fair": 0.3, "poor": 0.06}
"""Share that the logging policy draws evenly."""
LOGGINGS: tuple[Logging, ...] = ("fixed", "adaptive")
MODELS, LOGS = (
    ({1_000: 4, 10_000: 3, 100_000: 2}, {1_000: 12, 10_000: 4, 100_000: 1})
    if QUICK
    else ({1_000: 12, 10_000: 8, 100_000: 3}, {1_000: 15, 10_000: 6, 100_000: 3})
)
"""Reward models per setting, and logs per model, by decisions."""
COVERED = {1_000: 40, 10_000: 8, 100_000: 0} if QUICK else {1_000: 15, 10_000: 10, 100_000: 3}
"""Logs per model beside those, for coverage alone."""
RESAMPLED = 1_000
RANKED = 1
"""Logs per model in which twenty policies are ranked."""
GONE = {"never shown": 0.0, "once in 5,000": 0.001}

ANY = Floor(units=2, effective=0.0)
GATE = GateSettings()
GATE_FLOOR = Floor(GATE.min_units, GATE.min_effective)
SINGLE: Mapping[str, Callable[..., Estimate]] = {
    "IPS": offpolicy.ips,
    "SNIPS": offpolicy.snips,
    "DM": offpolicy.dm,
    "DR": offpolicy.dr,
    "SNDR": offpolicy.sndr,
    "Switch-DR": offpolicy.switch_dr,
    "DRos": offpolicy.dr_os,
    "stable DR": offpolicy.stable_dr,
}
CHOSEN = "automatic"


class Setting(NamedTuple):
    """How logs are drawn."""

    logging: Logging
    overlap: str
    n: int


@dataclass(frozen=True)
class Found:
    """What the logs of one model in one setting gave. Errors per estimator, one per log."""

    setting: Setting
    errors: Mapping[str, list[float]]
    covered: list[bool]
    """Of the logs that were not refused."""
    refused: int
    tau: list[float]
    seconds: float
    """Of the processor."""


def main() -> None:
    """All settings, then the tables and the goals."""
    found = list(_measured(_tasks()))
    gone = _gone()
    settings = [Setting(*each) for each in product(LOGGINGS, OVERLAPS, LOGS)]
    rows = {setting: _row([one for one in found if one.setting == setting]) for setting in settings}
    _print(rows, gone)
    figures = {
        "settings": [_figures(*item) for item in rows.items()],
        "gone": gone,
        "processor_seconds": sum(one.seconds for one in found),
    }
    finish("offpolicy", _goals(rows, gone), figures)


def _tasks() -> list[tuple[Setting, int]]:
    """Every setting with every model, the long ones first."""
    settings = [Setting(*each) for each in product(LOGGINGS, OVERLAPS, LOGS)]
    return sorted(((each, model) for each in settings for model in range(MODELS[each.n])), key=lambda task: -task[0].n)


def _measured(tasks: list[tuple[Setting, int]]) -> Iterator[Found]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        done = pool.map(measure, tasks)
        yield from track(done, "off-policy", len(tasks), console=Console(stderr=True))


@cache
def _world() -> World:
    return World()


def measure(task: tuple[Setting, int]) -> Found:
    """The logs of one reward model."""
    setting, model = task
    world, even = _world(), OVERLAPS[setting.overlap]
    truth, begun = world.value(world.target), time.process_time()
    place = (LOGGINGS.index(setting.logging), list(OVERLAPS).index(setting.overlap), setting.n, model)
    generator = np.random.default_rng([SEED, *place])
    q = world.predictions(world.log(setting.logging, even, setting.n, generator))
    errors: dict[str, list[float]] = {name: [] for name in (*SINGLE, CHOSEN)}
    held: list[bool | None] = []
    tau = []
    for number in range(LOGS[setting.n] + COVERED[setting.n]):
        log = world.log(setting.logging, even, setting.n, generator)
        logged = world.logged(log, q, world.target)
        held.append(_covers(logged, truth - log.ran))
        if number < LOGS[setting.n]:
            for name, estimator in {**SINGLE, CHOSEN: automatic}.items():
                errors[name].append(estimator(logged, floor=ANY).value - truth)
        if number < RANKED:
            values = [automatic(world.logged(log, q, policy), floor=ANY).value for policy in world.policies]
            truths = [world.value(policy) for policy in world.policies]
            tau.append(float(stats.kendalltau(values, truths).statistic))
    covered = [each for each in held if each is not None]
    return Found(setting, errors, covered, len(held) - len(covered), tau, time.process_time() - begun)


def _covers(logged: Logged, truth: float) -> bool | None:
    """Whether the gate's interval holds the truth; None: refused."""
    try:
        estimate = difference(logged, floor=GATE_FLOOR)
    except EstimateRefused:
        return None
    return estimate.low <= truth <= estimate.high


def _gone() -> dict[str, float]:
    """Share of logs that the gate refuses when the target is what the log never, or hardly ever, shows."""
    world, generator, shares = _world(), np.random.default_rng([SEED, 9]), {}
    for name, even in GONE.items():
        opposite = world.learned[1]
        target = greedy(opposite, 0.0)
        policy = (1.0 - even) * _never(target) + even / K
        logs = [world.fixed(n, policy, generator) for n in (1_000, 10_000, 100_000) for _ in range(4 if QUICK else 20)]
        verdicts = [_covers(world.logged(log, opposite, target), 0.0) for log in logs]
        shares[name] = float(np.mean([verdict is None for verdict in verdicts]))
    return shares


def _never(target: np.ndarray) -> np.ndarray:
    """Evenly what the target does not play."""
    others = 1.0 - target
    return np.asarray(others / others.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Row:
    """One setting. ``ratio``: error of the automatic estimate to that of the best single one, with its interval."""

    rmse: Mapping[str, float]
    best: str
    ratio: float
    interval: tuple[float, float]
    logs: int
    refused: float
    covered: list[bool]
    tau: float

    @property
    def coverage(self) -> float:
        return float(np.mean(self.covered)) if self.covered else float("nan")


def _row(found: list[Found]) -> Row:
    errors = {name: np.concatenate([one.errors[name] for one in found]) for name in (*SINGLE, CHOSEN)}
    rmse = {name: float(np.sqrt(np.mean(values**2))) for name, values in errors.items()}
    best = min(SINGLE, key=lambda name: rmse[name])
    covered = [held for one in found for held in one.covered]
    refused = sum(one.refused for one in found)
    tau = float(np.mean([value for one in found for value in one.tau]))
    return Row(
        rmse=rmse,
        best=best,
        ratio=rmse[CHOSEN] / rmse[best],
        interval=_resampled(found, best),
        logs=len(errors[CHOSEN]),
        refused=refused / (refused + len(covered)),
        covered=covered,
        tau=tau,
    )


def _resampled(found: list[Found], best: str) -> tuple[float, float]:
    """95 % of the ratios of errors when models are drawn again, with all their logs."""
    squares = np.array([[np.mean(np.square(one.errors[name])) for name in (CHOSEN, best)] for one in found])
    drawn = np.random.default_rng(SEED).integers(0, len(found), (RESAMPLED, len(found)))
    means = squares[drawn].mean(axis=1)
    low, high = np.quantile(np.sqrt(means[:, 0] / means[:, 1]), (0.025, 0.975))
    return float(low), float(high)


def _goals(rows: Mapping[Setting, Row], gone: Mapping[str, float]) -> list[Goal]:
    near = {
        logging: [row.ratio <= 1.1 for each, row in rows.items() if each.logging == logging] for logging in LOGGINGS
    }
    held = [covered for row in rows.values() for covered in row.covered]
    interval = _binomial(held)
    coverage = float(np.mean(held))
    good = max(row.refused for each, row in rows.items() if each.overlap == "good")
    return [
        *(
            Goal(f"settings of 9 within 10 % of the best in hindsight, {name} logging", sum(near[name]), ">= 7")
            for name in LOGGINGS
        ),
        Goal("coverage of the gate's 95 % interval, at least", coverage, ">= 0.93", interval),
        Goal("coverage of the gate's 95 % interval, at most", coverage, "<= 0.97", interval),
        Goal("replicates behind it", len(held), ">= 1000"),
        Goal("refusal rate where overlap is good, worst setting", good, "<= 0"),
        Goal("refusal rate where overlap is gone, least", min(gone.values()), ">= 1"),
    ]


def _binomial(held: list[bool]) -> tuple[float, float]:
    interval = stats.binomtest(sum(held), len(held)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _print(rows: Mapping[Setting, Row], gone: Mapping[str, float]) -> None:
    table = Table("logging", "overlap", "decisions", *SINGLE, CHOSEN, "to best", "refused", "coverage", "Kendall τ")
    for setting, row in rows.items():
        errors = [f"{1e3 * row.rmse[name]:.2f}{' *' if name == row.best else ''}" for name in (*SINGLE, CHOSEN)]
        held = f"{row.coverage:.1%} of {len(row.covered)}" if row.covered else "all refused"
        ratio = f"{row.ratio:.2f} ({row.interval[0]:.2f} to {row.interval[1]:.2f})"
        table.add_row(*map(str, setting), *errors, ratio, f"{row.refused:.0%}", held, f"{row.tau:.2f}")
    console = Console(width=200)
    console.print("Root mean squared error, per 1,000 decisions; * the best single one in hindsight")
    console.print(table)
    console.print("Refused where overlap is gone: " + ", ".join(f"{name} {share:.0%}" for name, share in gone.items()))


def _figures(setting: Setting, row: Row) -> dict[str, object]:
    return {
        **setting._asdict(),
        "rmse_per_1000": {name: 1e3 * value for name, value in row.rmse.items()},
        "best": row.best,
        "automatic_to_best": row.ratio,
        "automatic_to_best_interval": row.interval,
        "logs": row.logs,
        "refused": row.refused,
        "coverage": row.coverage if row.covered else None,
        "coverage_interval": _binomial(row.covered) if row.covered else None,
        "kendall_tau": row.tau,
    }


if __name__ == "__main__":
    main()
