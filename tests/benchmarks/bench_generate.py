"""Copy over five rounds: with the loop's feedback, and by the same generator without it.

Each round is a new campaign: of 64 drafts eight are kept, each is sent 1,000 times, and what it earned is all that is known of
it. The generator is the same throughout, with the same flaws. Arms:

- without feedback: prompts equally often, no examples, the first eight drafts
- with feedback: prompts by what their copy earned, winners and losers as examples, best of N by a reward model of all rounds
  so far (text alone), guarded: the very functions of the generate flow
- with examples only, with best of N only: what each part does alone

The true reward of a line is known (``copy_worlds.py``); it is told relative to the mean of the arm without feedback in
the same world. Intervals are paired over worlds (Student's t).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingestion.events import Content
from pipelines.generation.best_of import keep, weigh
from pipelines.generation.generators import Order
from pipelines.generation.past import Past, allot, losers, prompt_shares, relative_rewards, winners
from pipelines.generation.prompts import HOUSE
from pipelines.generation.steps import PROMPTS
from pipelines.generation.templated import TemplateGenerator
from reward_models.posterior import ArmCounts
from reward_models.support import fit_support
from tests.benchmarks.bench_best_of import interval
from tests.benchmarks.copy_worlds import OVERDONE, THEMES, Taste, learned, named, taste
from tests.benchmarks.harness import Goal, finish

Floats = npt.NDArray[np.float64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = range(101, 104) if QUICK else range(101, 117)
ROUNDS, DRAFTS, KEPT, SENDS, EXAMPLES = 5, 64, 8, 1_000, 5


@dataclass(frozen=True)
class Arm:
    """What of the loop is at work."""

    prompts: bool
    examples: bool
    best_of: bool


ARMS = {
    "without feedback": Arm(prompts=False, examples=False, best_of=False),
    "with feedback": Arm(prompts=True, examples=True, best_of=True),
    "examples only": Arm(prompts=False, examples=True, best_of=False),
    "best of N only": Arm(prompts=False, examples=False, best_of=True),
}


def main() -> None:
    """Play all worlds, print the table and the goals."""
    rounds: dict[str, list[Floats]] = {name: [] for name in ARMS}
    for seed in track(SEEDS, description="worlds", console=Console(stderr=True)):
        for name, rewards in play(seed).items():
            rounds[name].append(rewards)
    found = {name: np.array(rows) for name, rows in rounds.items()}
    Console(width=120).print(table_of(found))
    finish("generate", goals_of(found), {"worlds": len(SEEDS), "rounds": figures_of(found)})


def play(seed: int, arms: Sequence[str] = tuple(ARMS), rounds: int = ROUNDS) -> dict[str, Floats]:
    """True reward of the kept copy per round, relative to the arm without feedback, shape (rounds,): of one world."""
    world = taste(seed)
    found = {name: play_arm(world, seed, ARMS[name], rounds) for name in arms}
    usual = found["without feedback"].mean()
    return {name: rewards / usual for name, rewards in found.items()}


def play_arm(world: Taste, seed: int, arm: Arm, rounds: int) -> Floats:
    """True click rate of the kept copy, per round. All arms have the same luck with the generator's first round."""
    past: list[Past] = []
    clicks: list[int] = []
    rewards = []
    for number in range(rounds):
        drafts = written(seed, number, arm, past)
        copy = drafts[:KEPT] if not arm.best_of or not past else best(drafts, past, clicks)
        rates = world.rates(copy)
        heard = np.random.default_rng([seed, number, 3]).binomial(SENDS, rates)
        shown, sums = np.full(len(copy), float(SENDS)), heard.astype(np.float64)
        relative, sd = relative_rewards(ArmCounts(shown, sums, sums, np.zeros(len(copy))))
        past += [Past(*one) for one in zip(copy, [float(SENDS)] * len(copy), relative, sd, strict=True)]
        clicks += heard.tolist()
        rewards.append(float(rates.mean()))
    return np.array(rewards)


def written(seed: int, number: int, arm: Arm, past: Sequence[Past]) -> list[Content]:
    """The drafts of one round, in random order, as contents of its campaign."""
    rng = np.random.default_rng([seed, number])
    shares = prompt_shares(past, HOUSE, PROMPTS) if arm.prompts else np.full(len(HOUSE), 1 / len(HOUSE))
    shown = past if arm.examples else ()
    orders = [
        Order(
            prompt=prompt,
            count=count,
            seed=int(rng.integers(2**31)),
            brief=f"News about {THEMES[number]}.",
            winners=winners(shown, EXAMPLES),
            losers=losers(shown, EXAMPLES),
        )
        for prompt, count in zip(HOUSE, allot(shares, DRAFTS, rng), strict=True)
    ]
    drafts = TemplateGenerator(OVERDONE).write(orders).drafts
    contents = [draft.content(f"k{number}") for draft in drafts]
    distinct = list({content.fingerprint: content for content in contents}.values())
    return named([distinct[place] for place in rng.permutation(len(distinct))], f"k{number}")


def best(drafts: Sequence[Content], past: Sequence[Past], clicks: Sequence[int]) -> list[Content]:
    """What the guard keeps by a model of all that was heard so far, filled up with drafts as they come."""
    known = [one.content for one in past]
    texts = [content.slots["subject"] for content in known]
    new = [msgspec.structs.replace(draft, features={}) for draft in drafts]
    weighed = weigh(learned(known, SENDS, clicks), fit_support(texts), new)
    places = [one.place for one in keep(weighed, KEPT, texts)]
    places += [place for place in range(len(drafts)) if place not in set(places)][: KEPT - len(places)]
    return [drafts[place] for place in places]


def goals_of(found: dict[str, Floats]) -> list[Goal]:
    """What the issue names."""
    ours, theirs = found["with feedback"], found["without feedback"]
    ahead, rise = interval(ours[:, -1] - theirs[:, -1]), interval(ours[:, -1] - ours[:, 0])
    last = f"round {ours.shape[1]}"
    return [
        Goal(f"{last}, with over without feedback, lower end", ahead[1], ">= 0", (ahead[1], ahead[2])),
        Goal(f"with feedback, {last} over round 1, lower end", rise[1], ">= 0", (rise[1], rise[2])),
    ]


def figures_of(found: dict[str, Floats]) -> dict[str, list[float]]:
    """Mean reward per round, by arm."""
    return {name: rows.mean(axis=0).round(4).tolist() for name, rows in found.items()}


def table_of(found: dict[str, Floats]) -> Table:
    """One row per arm: mean and half width of the interval, per round; the last column against no feedback."""
    table = Table(title="True reward of the kept copy, relative to no feedback", title_justify="left")
    count = next(iter(found.values())).shape[1]
    for column in ("", *(f"round {number}" for number in range(1, count + 1)), "last round, ahead by"):
        table.add_column(column, justify="right" if column else "left")
    for name, rows in found.items():
        mean, low, _ = interval(rows[:, -1] - found["without feedback"][:, -1])
        cells = [f"{one:.3f} ± {high - one:.3f}" for one, _, high in (interval(column) for column in rows.T)]
        table.add_row(name, *cells, f"{mean:+.3f} ± {mean - low:.3f}")
    return table


if __name__ == "__main__":
    main()
