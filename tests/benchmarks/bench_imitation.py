"""Learning from marketers: planted weights recovered, and the regret of a campaign's first decisions.

**Weights.** Marketers whose taste differs by tier choose among five contents; 95 % intervals of the implied weights (which
the command `demonstrations show` prints) are held against the weights that made them choose.

**Regret.** A new campaign of 20 contents, 5,000 customers of the simulator, a decision each. The product serves as
``/v1/rank`` does, posterior and contexts renewed all along, and starts with

- nothing: no model, uniform
- choices: the model that ``demonstrations fit`` makes of 500 choices, made in *another* campaign with other copy
- the apprentice never learns: it plays the probabilities with which marketers would choose

by marketers who know the simulator's taste (utility = sharpness · log click rate + Gumbel noise), who know half of it and are
moved as much by a taste of their own, and who believe the contrary. Regret is what the best content for each customer is
worth, less what was chosen (``served.py``). All starts meet the same customers, copy and luck; what is compared is the sum over
worlds, paired. Nothing was tuned on these seeds.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingestion.events import Content
from ingestion.loops import parse_definition
from pipelines.simulator import TIERS, World, draw_customers, true_values
from pipelines.templates import FACTORS
from reward_models.boosted import RewardModel, fit
from reward_models.demonstrations.choices import Demonstration
from reward_models.demonstrations.cloning import Clone, clone_of
from reward_models.demonstrations.implied import implied_by
from reward_models.demonstrations.prior import widened
from reward_models.demonstrations.teaching import taught
from tests.benchmarks.bandit_worlds import CAMPAIGN, Rounds, shop
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.served import ratio_of, regrets
from tests.reward_models.demonstrations.worlds import chosen, copy_of
from tests.reward_models.training import training_set

Floats = npt.NDArray[np.float64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = range(431, 434) if QUICK else range(431, 467)
FEWER = SEEDS[:1] if QUICK else SEEDS[:8]
"""Worlds of those marketers that no goal is about."""
ROUNDS = 1_000 if QUICK else 5_000
CONTENTS, CHOICES, USUAL = 20, 500, 0.1
RECOVERED = 8 if QUICK else 40
"""Worlds of planted weights."""
NOTHING = "nothing"
MARKETERS = ("sharp (3)", "noisy (1)", "half their own taste", "the contrary")
RULES = parse_definition({"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}})


def main() -> None:
    """Both parts, on all cores; print tables and goals."""
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        recovered = list(pool.map(recover, range(900, 900 + RECOVERED)))
        jobs = [(seed, start) for start in (NOTHING, *MARKETERS) for seed in worlds_of(start)]
        found = pool.map(_play, jobs)
        played = dict(
            zip(jobs, track(found, "imitation", total=len(jobs), console=console, transient=True), strict=True)
        )
    held, planted, weights = (np.concatenate([one[place] for one in recovered]) for place in range(3))
    rows = _rows(played)
    _print(rows, float(held.mean()), float(np.corrcoef(planted, weights)[0, 1]), len(held))
    finish("imitation", _goals(rows, recovered), {"regret per decision": rows, "weights": len(held)})


def recover(seed: int) -> tuple[Floats, Floats, Floats]:
    """Of every tier and factor: whether the interval holds the planted weight, the weight, and its estimate."""
    rng = np.random.default_rng(seed)
    contents, customers = copy_of(rng, 24), draw_customers(World(bots=0.0), rng, CHOICES)
    taste = {tier: rng.normal(0.0, 0.7, len(FACTORS)) for tier in TIERS}
    f = np.array([[float(content.features[name]) for name in FACTORS] for content in contents])
    implied = implied_by(chosen(rng, customers, contents, np.array([taste[one.tier] for one in customers]) @ f.T))
    held, planted, found = [], [], []
    for tier in TIERS:
        for weight in implied.weights({"tier": tier, "device": "mobile", "days_since_order": 30}):
            truth = float(taste[tier][FACTORS.index(weight.name)])
            held.append(float(weight.low <= truth <= weight.high))
            planted.append(truth)
            found.append(weight.weight)
    return np.array(held), np.array(planted), np.array(found)


def choices_of(marketers: str, seed: int) -> list[Demonstration]:
    """Choices in an earlier campaign, by one kind of marketers, in a world with the quirks of ``seed``."""
    rng = np.random.default_rng([seed, 7])
    world = World(seed=seed, quirk=0.4, bots=0.0)
    contents = copy_of(rng, 24, "may")
    customers = draw_customers(world, rng, CHOICES)
    worth = np.log(true_values(world, customers, [one.features for one in contents]).click)
    worth -= worth.mean(axis=1, keepdims=True)
    if marketers == MARKETERS[2]:
        own = np.array([[float(one.features[name]) for name in FACTORS] for one in contents]) @ rng.normal(
            0.0, 1.0, len(FACTORS)
        )
        worth = 0.5 * worth + 0.5 * (own - own.mean()) * worth.std() / own.std()
    sharpness = {MARKETERS[0]: 3.0, MARKETERS[3]: -1.0}.get(marketers, 1.0)
    return chosen(rng, customers, contents, sharpness * worth, people=4)


def _play(job: tuple[int, str]) -> tuple[float, float, float]:
    """Mean regret of the product, of the apprentice (nan without one) and of a uniform choice."""
    seed, start = job
    world = shop(seed, ROUNDS, CONTENTS, "stationary")
    model, clone = (None, None) if start == NOTHING else _started(world, choices_of(start, seed))
    lost = float(regrets(world, RULES, model, seed).mean())
    all_lost = world.value.max(axis=1)[:, None] - world.value
    return lost, float("nan") if clone is None else _aped(world, clone, all_lost.T), float(all_lost.mean())


def _started(world: Rounds, shown: list[Demonstration]) -> tuple[RewardModel, Clone]:
    """What ``demonstrations fit`` and ``show`` make of the choices, for the new campaign's contents."""
    found = taught(training_set(()), shown, _copy(world.contents), USUAL)
    model = widened(fit(found.believed.training, RULES.model), found.believed.share)
    return replace(model, loop_id="mail"), clone_of(shown, implied_by(shown))


def _copy(contents: tuple[Content, ...]) -> list[Content]:
    return [msgspec.structs.replace(content, campaign_id=CAMPAIGN) for content in contents]


def _aped(world: Rounds, clone: Clone, regret: Floats) -> float:
    """Mean regret of one who chooses as marketers would, on every tenth customer."""
    rows = range(0, len(world), 10)
    lost = [float(clone.probabilities(world.contexts[t], world.contents) @ regret[:, t]) for t in rows]
    return float(np.mean(lost))


def worlds_of(start: str) -> range:
    """The seeds that a start is played on."""
    return FEWER if start in MARKETERS[2:] else SEEDS


def _rows(played: dict[tuple[int, str], tuple[float, float, float]]) -> list[dict[str, float | str]]:
    """By start: mean regret per decision, and its share of what is lost with nothing, paired by world."""
    nothing = np.array([played[seed, NOTHING] for seed in SEEDS])
    cold = nothing[:, 0]
    rows = [_row("uniform, never learns", nothing[:, 2], cold), _row(NOTHING, cold, cold)]
    for kind in MARKETERS:
        found = np.array([played[seed, kind] for seed in worlds_of(kind)])
        same = cold[: len(found)]
        rows += [_row(f"choices: {kind}", found[:, 0], same), _row(f"apprentice: {kind}", found[:, 1], same)]
    return rows


def _row(name: str, regret: Floats, cold: Floats) -> dict[str, float | str]:
    """Ratio of the sums over worlds, so that no world of little regret counts for much; 95 % by Fieller's theorem."""
    low, ratio, high = ratio_of(regret, cold)
    mean = float(regret.mean())
    return {"start": name, "worlds": len(regret), "regret": mean, "of nothing": ratio, "low": low, "high": high}


def _print(rows: list[dict[str, float | str]], held: float, correlation: float, count: int) -> None:
    columns = ("starts with", "worlds", "regret per decision", "of nothing's", "95 %")
    table = Table(*columns, title=f"First {ROUNDS:,} decisions")
    for row in rows:
        table.add_row(
            str(row["start"]),
            str(row["worlds"]),
            f"{row['regret']:.4f}",
            f"{row['of nothing']:.2f}",
            f"{row['low']:.2f} … {row['high']:.2f}",
        )
    console = Console(stderr=True, width=110)
    console.print(table)
    console.print(f"{held:.1%} of {count} planted weights are in their 95 % intervals; correlation {correlation:.3f}")


def _goals(rows: list[dict[str, float | str]], recovered: list[tuple[Floats, Floats, Floats]]) -> list[Goal]:
    by = {str(row["start"]): row for row in rows}
    share = np.array([held.mean() for held, _, _ in recovered])
    width = 1.96 * float(share.std(ddof=1)) / float(np.sqrt(len(share)))
    covered = float(share.mean())
    goals = [
        Goal("planted weights inside their 95 % intervals", covered, ">= 0.93", (covered - width, covered + width))
    ]
    for kind in MARKETERS[:2]:
        row = by[f"choices: {kind}"]
        low, middle, high = (float(row[name]) for name in ("low", "of nothing", "high"))
        goals.append(Goal(f"regret of the first decisions against none, {kind}", middle, "<= 0.5", (low, high)))
    return goals


if __name__ == "__main__":
    main()
