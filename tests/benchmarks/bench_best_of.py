"""Best of N by the reward model: what the kept copy is truly worth, guarded and not, as N grows.

Each world: 240 lines of 24 campaigns were sent 1,500 times each, and a reward model was fitted to what they earned, from
their text alone. New lines are written, some of them overdone in a way that no earlier line was; of 4·N of them four are
kept. The same drafts, the same model; kept are (a) the four of the largest prediction (b) the four that the guard keeps,
one of them for being unlike the others (``pipelines/generation/best_of.py``). The reward is relative to what the 240 lines
earned. Intervals are over worlds (Student's t); the guard was chosen on other worlds.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import t as student

from pipelines.generation.best_of import UNGUARDED, Guard, Weighed, keep, weigh
from reward_models.support import fit_support
from tests.benchmarks.copy_worlds import learned, lines, taste
from tests.benchmarks.harness import Goal, finish

Floats = npt.NDArray[np.float64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = range(1, 4) if QUICK else range(1, 25)
EACH = (1, 2, 4, 8, 16, 32, 64)
KEPT = 4
DEALS = 2 if QUICK else 3
"""Sets of drafts per world."""
CAMPAIGNS, LINES, SENDS = 24, 10, 1_500
GUARDS = {"unguarded": UNGUARDED, "guarded": Guard(), "guarded, best only": Guard(unlike=0.0)}


def main() -> None:
    """Play all worlds, print the table and the goals."""
    curves = {name: [] for name in GUARDS}  # type: dict[str, list[Floats]]
    for seed in track(SEEDS, description="worlds", console=Console(stderr=True)):
        for name, curve in world_curves(seed, DEALS).items():
            curves[name].append(curve)
    found = {name: np.array(rows) for name, rows in curves.items()}
    Console(width=120).print(table_of(found))
    finish("best-of", goals_of(found), figures_of(found))


def world_curves(seed: int, deals: int, campaigns: int = CAMPAIGNS) -> dict[str, Floats]:
    """True reward of what each guard keeps, relative to the known lines, shape (N,): of one world."""
    world = taste(seed)
    known = [line for campaign in range(campaigns) for line in lines(seed, campaign, LINES, overdone=0.0)]
    rates = world.rates(known)
    clicks = np.random.default_rng([seed, 2]).binomial(SENDS, rates)
    model, support = learned(known, SENDS, clicks), fit_support([line.slots["subject"] for line in known])
    curves = {name: np.zeros(len(EACH)) for name in GUARDS}
    for deal in range(deals):
        drafts = lines(1_000_000 + seed, deal, KEPT * EACH[-1])
        truth = world.rates(drafts) / rates.mean()
        for name, guard in GUARDS.items():
            weighed = weigh(model, support, drafts, guard=guard)
            curves[name] += [worth(first(weighed, KEPT * n), truth, guard) / deals for n in EACH]
    return curves


def worth(weighed: Weighed, truth: Floats, guard: Guard) -> float:
    """Mean true reward of what is kept; with nothing within the support the first drafts are taken as they come."""
    kept = [one.place for one in keep(weighed, KEPT, guard=guard)] or list(range(KEPT))
    return float(truth[kept].mean())


def first(weighed: Weighed, count: int) -> Weighed:
    """Of the first candidates alone."""
    return replace(
        weighed,
        texts=weighed.texts[:count],
        expected=weighed.expected[:count],
        low=weighed.low[:count],
        distance=weighed.distance[:count],
    )


def goals_of(found: dict[str, Floats]) -> list[Goal]:
    """What the issue names: it rises, and it does not turn down."""
    guarded, unguarded = found["guarded"], found["unguarded"]
    gain = interval(guarded[:, -1] - guarded[:, 0])
    highest = int(guarded.mean(axis=0)[:-1].argmax())
    turn = interval(guarded[:, -1] - guarded[:, highest])
    ahead = interval(guarded[:, -1] - unguarded[:, -1])
    return [
        Goal("guarded: N = 64 over N = 1, lower end", gain[1], ">= 0", (gain[1], gain[2])),
        Goal(
            f"guarded: N = 64 over the best before (N = {EACH[highest]}), upper end",
            turn[2],
            ">= 0",
            (turn[1], turn[2]),
        ),
        Goal("guarded over unguarded at N = 64, lower end", ahead[1], ">= 0", (ahead[1], ahead[2])),
    ]


def figures_of(found: dict[str, Floats]) -> dict[str, object]:
    """Every curve, and the turn of the unguarded one."""
    unguarded = found["unguarded"]
    highest = int(unguarded.mean(axis=0).argmax())
    _, low, high = interval(unguarded[:, -1] - unguarded[:, highest])
    curves = {
        name: dict(zip(map(str, EACH), rows.mean(axis=0).round(4).tolist(), strict=True))
        for name, rows in found.items()
    }
    return {
        "worlds": len(unguarded),
        "curves": curves,
        "unguarded: best N": EACH[highest],
        "unguarded: N = 64 less its best, interval": [round(low, 4), round(high, 4)],
    }


def table_of(found: dict[str, Floats]) -> Table:
    """One row per N: mean and half width of the interval."""
    table = Table(title="True reward of the kept copy, relative to known copy", title_justify="left")
    for column in ("N", *found):
        table.add_column(column, justify="right")
    for place, n in enumerate(EACH):
        cells = (interval(rows[:, place]) for rows in found.values())
        table.add_row(str(n), *(f"{mean:.3f} ± {high - mean:.3f}" for mean, _, high in cells))
    return table


def interval(values: Floats | Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over worlds."""
    values = np.asarray(values)
    reach = float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return mean, mean - reach, mean + reach


if __name__ == "__main__":
    main()
