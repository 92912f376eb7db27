"""What opinions are worth before customers have spoken: regret of a campaign's first decisions, with people and judges heard or not.

Each world: 24 campaigns of ten lines were sent, 1,500 times a line; a new one of 20 lines begins. Customers' taste is the simulator's,
and each line has a quirk of its own that no text tells. The product serves the new campaign as ``/v1/rank`` does (``served.py``)

- without a model: opinions are held against what all 24 campaigns earned
- with a model of the first twelve campaigns' texts: opinions are held against what the other twelve earned beyond its predictions

and hears nobody; people whose preferences (four people, 45 comparisons a campaign, 90 of the new one) go with what lines are truly worth
(correlation 0.7), have nothing to do with it, or are the contrary; or a judge's ratings that go with it. Who is listened to, and how much, is
``reward_models/opinions.py``'s own finding. All starts meet the same customers, copy and luck. Nothing was tuned on these seeds; that the
first 500 decisions are looked at was settled on seeds 601 to 620, where 2,000 drowned it.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingestion.events import Content
from ingestion.loops import parse_definition
from pipelines.simulator import draw_customers, true_values
from pipelines.templates import read_factors
from reward_models.boosted import RewardModel
from reward_models.judging.ratings import Rating
from reward_models.opinions import PEOPLE, earned_of, hear
from reward_models.posterior import ArmCounts
from reward_models.preferences.judgements import Comparison
from reward_models.preferences.strengths import fit_strengths
from reward_models.statistics import in_proportion
from tests.benchmarks.bandit_worlds import CAMPAIGN, Rounds
from tests.benchmarks.copy_worlds import Taste, learned, lines, taste
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.served import ratio_of, regrets

Floats = npt.NDArray[np.float64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = range(621, 625) if QUICK else range(621, 661)
ROUNDS = 500
CAMPAIGNS, LINES, NEW, SENDS = 24, 10, 20, 1_500
SHARED = 0.7
"""Correlation of an opinion that agrees with what copy is worth."""
PAIRS, SHARPNESS = 45, 1.5
STARTS = ("without a model", "with a model")
NOBODY = "nobody"
KINDS = {
    "people who agree": SHARED,
    "people of another taste": 0.0,
    "people of the contrary": -SHARED,
    "a judge that agrees": SHARED,
}
RULES = parse_definition({"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}})


def main() -> None:
    """All worlds, on all cores; print the table and the goals."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(
            track(pool.map(play, SEEDS), "opinions", total=len(SEEDS), console=Console(stderr=True), transient=True)
        )
    rows = [_row(start, kind, found) for start in STARTS for kind in KINDS]
    _print(rows)
    finish("opinions", _goals(rows), {"worlds": len(found), "decisions": ROUNDS, "rows": rows})


def play(seed: int) -> dict[tuple[str, str], tuple[float, bool]]:
    """Mean regret of the first decisions by start and who is heard, and whether anybody was."""
    world, found = taste(seed), dict[tuple[str, str], tuple[float, bool]]()
    past = [lines(seed, campaign, LINES, overdone=0.0) for campaign in range(CAMPAIGNS)]
    fresh = lines(seed, CAMPAIGNS, NEW, overdone=0.0)
    rng = np.random.default_rng([seed, 3])
    clicks = [rng.binomial(SENDS, world.rates(copy)).astype(float) for copy in past]
    half = CAMPAIGNS // 2
    model = learned([line for copy in past[:half] for line in copy], SENDS, np.concatenate(clicks[:half]))
    rounds = _rounds(world, fresh, seed)
    said = {kind: _said(world, [*past, fresh], kind, seed) for kind in KINDS}
    for start, served, counted in ((STARTS[0], None, range(CAMPAIGNS)), (STARTS[1], model, range(half, CAMPAIGNS))):
        counts = {f"k{n}": _counts(past[n], clicks[n], served) for n in counted}
        found[start, NOBODY] = float(regrets(rounds, RULES, served, seed).mean()), False
        for kind, ratings in said.items():
            opinions = hear(ratings, earned_of(counts), {CAMPAIGN: [line.content_id for line in fresh]})
            starts = opinions.said.get(CAMPAIGN, {})
            same = found[start, NOBODY][0]
            lost = float(regrets(rounds, RULES, served, seed, starts).mean()) if starts else same
            found[start, kind] = lost, bool(starts)
    return found


def _counts(copy: Sequence[Content], clicks: Floats, model: RewardModel | None) -> tuple[list[str], ArmCounts]:
    shown = np.full(len(copy), float(SENDS))
    expected = np.zeros(len(copy)) if model is None else shown * model.scores([{}], model.prepare(copy))[0]
    return [line.content_id for line in copy], in_proportion(ArmCounts(shown, clicks, clicks, expected))


def _said(
    world: Taste, campaigns: Sequence[Sequence[Content]], kind: str, seed: int
) -> Mapping[str, Mapping[str, Rating]]:
    """Ratings, or strengths from comparisons, of all lines by one kind of opinion."""
    rng, ratings, compared = np.random.default_rng([seed, 4]), dict[str, Rating](), list[Comparison]()
    for place, copy in enumerate(campaigns):
        worth = np.log(world.rates(copy))
        worth = (worth - worth.mean()) / worth.std()
        opinion = KINDS[kind] * worth + np.sqrt(1.0 - KINDS[kind] ** 2) * rng.standard_normal(len(copy))
        names = [line.content_id for line in copy]
        ratings |= {name: Rating(float(value), place) for name, value in zip(names, opinion, strict=True)}
        for number in range(PAIRS * len(copy) // LINES):
            first, second = rng.choice(len(copy), 2, replace=False)
            if rng.random() > 1.0 / (1.0 + np.exp(SHARPNESS * (opinion[second] - opinion[first]))):
                first, second = second, first
            compared.append(Comparison(f"k{place}", names[first], names[second], f"person-{number % 4}"))
    if kind.startswith("a judge"):
        return {"judge": ratings}
    strength = fit_strengths(compared).strength
    return {PEOPLE: {name: Rating(value, ratings[name].at) for name, value in strength.items()}}


def _rounds(world: Taste, copy: Sequence[Content], seed: int) -> Rounds:
    rng = np.random.default_rng([seed, 5])
    customers = draw_customers(world.world, rng, ROUNDS)
    features = [{**read_factors(line.slots["subject"]), "line": line.slots["subject"]} for line in copy]
    value = true_values(world.world, customers, features).click
    reward = (rng.random((ROUNDS, 1)) < value).astype(float)
    contexts = [customer.context for customer in customers]
    own = tuple(copy)
    return Rounds(f"copy {seed}", contexts, np.zeros((ROUNDS, 0)), own, None, reward, value)


def _row(
    start: str, kind: str, found: Sequence[Mapping[tuple[str, str], tuple[float, bool]]]
) -> dict[str, float | str]:
    alone, heard = (np.array([one[start, name][0] for one in found]) for name in (NOBODY, kind))
    low, ratio, high = ratio_of(heard, alone)
    listened = float(np.mean([one[start, kind][1] for one in found]))
    return {
        "start": start,
        "heard": kind,
        "listened to": listened,
        "regret": float(heard.mean()),
        "ratio": ratio,
        "low": low,
        "high": high,
    }


def _goals(rows: Sequence[dict[str, float | str]]) -> list[Goal]:
    goals = []
    for row in rows:
        interval = float(row["low"]), float(row["high"])
        name, agrees = f"{row['heard']}, {row['start']}: regret of nobody's", KINDS[str(row["heard"])] > 0.0
        end = "upper" if agrees else "lower"
        goals.append(Goal(f"{name}, {end} end", interval[1 if agrees else 0], "<= 1", interval))
    return goals


def _print(rows: Sequence[dict[str, float | str]]) -> None:
    table = Table("start", "heard", "listened to", "regret per decision", "of nobody's", "95 %")
    for row in rows:
        table.add_row(
            str(row["start"]),
            str(row["heard"]),
            f"{row['listened to']:.0%}",
            f"{row['regret']:.5f}",
            f"{row['ratio']:.3f}",
            f"{row['low']:.3f} … {row['high']:.3f}",
        )
    Console(stderr=True, width=110).print(table)


if __name__ == "__main__":
    main()
