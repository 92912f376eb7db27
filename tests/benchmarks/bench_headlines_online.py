"""Online choice of headlines by LOLA's protocol: 2,053 Upworthy tests, traffic of 50, 200 and 600 per headline.

Ye, Yoganarasimhan and Zheng 2025 (LOLA, Marketing Science 44(5)): a campaign of K headlines has τ·K impressions; a
reader of headline k clicks with its rate. Here all learners hear of the clicks after each of 60 equal batches.

1. predictions: the product's reward model, 5 folds by components of test and headline
2. rates that readers click with, and rates that choices are scored by. half-split (primary): impressions are split at
   random, readers click with the one half's rate and the other half scores, so that luck in the data earns nothing;
   shrunk: one rate, shrunk to its test's mean; observed: one rate, as counted (LOLA's choice)
3. every learner plays every test on the same clicks: the j-th reader of a headline does the same for all of them
4. what has a constant to choose (*) takes the one that was best over the other folds
5. gains: mean over tests of the rate of what was shown, in % of another learner's. 95 % intervals are paired and
   clustered by component

Learners. Rewardloop*: ``posterior.content_effects`` and ``policies.pmfs``; damping is chosen, the floor is 0.2 % a
headline. Rewardloop as it comes: default settings. Explore then commit*: uniform, then the best rate so far. UCB
(z = 0.08), Thompson (a Beta prior of the archive's rates) with LOLA's constants. LLM-2UCB*: the lower of UCB
and of UCB with n pseudo-impressions at *our* model's prediction. Text only: the model's favourite.

Probabilities are checked where they were drawn with: the martingale z of the model's favourite, and of the IPS values of
a uniform choice and of each test's first headline against their true values.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingestion.loops import ModelSettings, PolicySettings
from reward_models.boosted import fit
from reward_models.folds import deal
from reward_models.policies import pmfs
from reward_models.posterior import ArmCounts, Prior, content_effects
from reward_models.priors import prior_of
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.upworthy import Archive, load_archive

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = (1,) if QUICK else (1, 2, 3)
TRUTHS = ("half-split",) if QUICK else ("half-split", "shrunk", "observed")
TRAFFIC = (50, 200, 600)
FOLDS = 5
FOLD_SEED = 7
BATCHES = 60
WITHIN_TEST = 0.23
"""Coefficient of variation of true rates within a test, for the shrunk truth (research on the archive)."""

OURS, DEFAULT = "Rewardloop", "Rewardloop as it comes"
COMMIT, UCB, THOMPSON, TWO_UCB = "explore then commit", "UCB", "Thompson", "LLM-2UCB"
TEXT, ORACLE = "text only", "oracle"
STRETCH = {50: 6.0, 200: 4.0, 600: 2.5}
STRETCH_TWO_UCB = 2.0


@dataclass(frozen=True)
class Tests:
    """Tests with equally many headlines, (m, k) each: what a learner may know of them, and the truth."""

    predicted: Floats
    prior: Prior
    clicking: Floats
    """Rate with which a reader of each headline clicks."""
    scoring: Floats


@dataclass(frozen=True)
class Play:
    """One test after some batches. ``shown``, ``clicks``: so far, (m, k). ``done``: share of the traffic."""

    tests: Tests
    shown: Floats
    clicks: Floats
    done: float
    size: int
    """Readers in the next batch."""
    generator: np.random.Generator
    memory: dict[str, Floats]
    """What the learner keeps for itself."""


Learner = Callable[[Play], Floats]
"""Probability of each headline for the next batch, (m, k)."""


def rewardloop(play: Play, settings: PolicySettings) -> Floats:
    """The product: model, counts held against it, policy."""
    counts = ArmCounts(play.shown, play.clicks, play.clicks, play.shown * play.tests.predicted)
    effects = content_effects(counts, play.tests.prior)
    return pmfs(settings, effects.mean(play.tests.predicted), effects.sd)


def explore_then_commit(play: Play, share: float) -> Floats:
    """An A/B test: uniform for a share of the traffic, then for good what did best in it."""
    if play.done < share:
        return np.full(play.shown.shape, 1.0 / play.shown.shape[1])
    return play.memory.setdefault("committed", greedy(rate(play.clicks, play.shown)))


def ucb(play: Play) -> Floats:
    """LOLA's UCB."""
    return greedy(upper(play.clicks, play.shown, play.shown.sum(axis=1, keepdims=True)))


def two_ucb(play: Play, pseudo: float) -> Floats:
    """LOLA's LLM-2UCB."""
    clicks, shown = play.clicks + pseudo * play.tests.predicted, play.shown + pseudo
    total = play.shown.sum(axis=1, keepdims=True)
    both = upper(clicks, shown, total + pseudo * shown.shape[1])
    return greedy(np.minimum(upper(play.clicks, play.shown, total), both))


def thompson(play: Play) -> Floats:
    """Shares of one draw per reader from LOLA's Beta(1.383, 96.11) posterior."""
    a, b = 1.383 + play.clicks, 96.11 + play.shown - play.clicks
    drawn = play.generator.beta(a[..., None], b[..., None], size=(*a.shape, play.size))
    best = drawn.argmax(axis=1)
    return np.stack([(best == arm).mean(axis=1) for arm in range(a.shape[1])], axis=1)


def text_only(play: Play) -> Floats:
    """The model's favourite."""
    return greedy(play.tests.predicted)


def oracle(play: Play) -> Floats:
    """The best by the rates that score: nobody can do better."""
    return greedy(play.tests.scoring)


def greedy(values: Floats) -> Floats:
    """All on the largest of each row, ties split."""
    best = values == values.max(axis=1, keepdims=True)
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def upper(clicks: Floats, shown: Floats, total: Floats, z: float = 0.08) -> Floats:
    """Upper confidence bounds; what was never shown comes first."""
    width = np.sqrt(np.log(np.maximum(total, 1.0)) / np.maximum(shown, 1.0))
    return np.where(shown > 0.0, rate(clicks, shown) + z * width, np.inf)


def rate(clicks: Floats, shown: Floats) -> Floats:
    """Clicks per impression, 0 where nothing was shown."""
    return clicks / np.maximum(shown, 1.0)


LEAN = partial(PolicySettings, floor=0.002, uniform_slice=0.0)
LEARNERS: Mapping[str, Mapping[str, Learner]] = {
    OURS: {f"damping {d}": partial(rewardloop, settings=LEAN(damping=d)) for d in (0.05, 0.1, 0.2, 0.4)},
    DEFAULT: {"": partial(rewardloop, settings=PolicySettings())},
    COMMIT: {f"first {share:.0%}": partial(explore_then_commit, share=share) for share in (0.1, 0.2, 0.3, 0.4, 0.5)},
    UCB: {"": ucb},
    THOMPSON: {"": thompson},
    TWO_UCB: {f"n = {n}": partial(two_ucb, pseudo=n) for n in (300, 1_000, 3_000)},
    TEXT: {"": text_only},
    ORACLE: {"": oracle},
}
CHECKED = (OURS, "damping 0.2")
CHECKS = ("share of the favourite", "IPS of uniform", "IPS of the first headline")


@dataclass(frozen=True)
class Predicted:
    """The archive with what models that saw none of a headline's component say of it, (n,)."""

    archive: Archive
    fold: Ints
    """By test."""
    mean: Floats
    level: Floats
    level_sd: Floats
    spread: Floats


@dataclass(frozen=True)
class Task:
    """One world: whose rates, how much traffic, which random numbers."""

    truth: str
    traffic: int
    seed: int


@dataclass(frozen=True)
class Played:
    """Rate earned per test by learner and variant; and of the checks Σ (found − expected) and Σ variance, (3, 2)."""

    task: Task
    earned: Mapping[tuple[str, str], Floats]
    checks: Floats


def main() -> None:
    """Play all worlds and print what was earned."""
    predicted = predict(load_archive())
    tasks = [Task(truth, traffic, seed) for truth in TRUTHS for traffic in TRAFFIC for seed in SEEDS]
    console = Console(stderr=True)
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        running = pool.map(partial(play_world, predicted), sorted(tasks, key=lambda task: -task.traffic))
        played = list(track(running, description="worlds", total=len(tasks), console=console))
    report(predicted, played)


def predict(archive: Archive) -> Predicted:
    """Predictions of every headline by the fold's model, and what that model believes of a new campaign."""
    fold = deal(archive.component, FOLDS, FOLD_SEED)
    mean, level, level_sd, spread = np.empty((4, len(archive)))
    for number in track(range(FOLDS), description="models", console=Console(stderr=True)):
        inside = fold == number
        model = fit(archive.training(~inside), ModelSettings())
        contents = list(archive.contents[inside])
        mean[inside] = model.rows([{}] * len(contents), contents)
        prior = prior_of(model, contents[0].campaign_id)
        level[inside], level_sd[inside], spread[inside] = prior.level, prior.level_sd, prior.spread
    first = np.unique(archive.test, return_index=True)[1]
    return Predicted(archive, fold[first], mean, level[first], level_sd[first], spread[first])


def rates(archive: Archive, truth: str, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Rates that readers click with, and rates that score, (n,) each."""
    shown, clicks = archive.impressions, archive.clicks
    if truth == "half-split":
        half = generator.binomial(shown.astype(np.int64), 0.5)
        kept = generator.hypergeometric(clicks.astype(np.int64), (shown - clicks).astype(np.int64), half)
        return kept / half, (clicks - kept) / (shown - half)
    observed = clicks / shown
    if truth == "observed":
        return observed, observed
    mean = (np.bincount(archive.test, clicks) / np.bincount(archive.test, shown))[archive.test]
    between = (WITHIN_TEST * mean) ** 2
    shrunk = mean + between / (between + mean / shown) * (observed - mean)
    return shrunk, shrunk


def play_world(predicted: Predicted, task: Task) -> Played:
    """Every learner through every test of one world."""
    archive = predicted.archive
    generator = np.random.default_rng([task.seed, task.traffic, TRUTHS.index(task.truth)])
    clicking, scoring = rates(archive, task.truth, generator)
    size = np.bincount(archive.test)
    first = np.unique(archive.test, return_index=True)[1]
    earned = {(name, variant): np.empty(len(size)) for name, variants in LEARNERS.items() for variant in variants}
    checks = np.zeros((len(CHECKS), 2))
    for k in np.unique(size):
        tests = np.flatnonzero(size == k)
        rows = first[tests][:, None] + np.arange(k)
        prior = Prior(predicted.level[tests], predicted.level_sd[tests], predicted.spread[tests], proportional=True)
        group = Tests(predicted.mean[rows], prior, clicking[rows], scoring[rows])
        tape = clicks_on(group.clicking, task.traffic * int(k), generator)
        for (name, variant), rate_of in earned.items():
            found, moved = play(group, tape, LEARNERS[name][variant], [task.seed, task.traffic, int(k)])
            rate_of[tests] = found
            checks += moved if (name, variant) == CHECKED else 0.0
    return Played(task, earned, checks)


def clicks_on(clicking: Floats, traffic: int, generator: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Clicks of the first 0, 1, 2 … readers of each headline, (m, k, traffic + 1)."""
    tape = np.zeros((*clicking.shape, traffic + 1), dtype=np.uint16)
    drawn = generator.random((*clicking.shape, traffic), dtype=np.float32) < clicking[..., None]
    np.cumsum(drawn, axis=2, out=tape[:, :, 1:], dtype=np.uint16)
    return tape


def play(tests: Tests, tape: npt.NDArray[np.uint16], learner: Learner, seed: list[int]) -> tuple[Floats, Floats]:
    """Rate earned per test, (m,), and the checks of the probabilities."""
    traffic = tape.shape[2] - 1
    ends = np.round(np.linspace(0, traffic, BATCHES + 1)).astype(np.int64)
    shown, clicks = np.zeros(tape.shape[:2], dtype=np.int64), np.zeros(tape.shape[:2])
    generator, checks = np.random.default_rng(seed), np.zeros((len(CHECKS), 2))
    memory: dict[str, Floats] = {}
    for start, end in pairwise(ends):
        if start == end:
            continue
        now = Play(tests, shown.astype(np.float64), clicks, start / traffic, int(end - start), generator, memory)
        probability = learner(now)
        more = generator.multinomial(end - start, probability)
        shown = shown + more
        before, clicks = clicks, np.take_along_axis(tape, shown[..., None], axis=2)[..., 0].astype(np.float64)
        checks += check(tests, probability, more, clicks - before) if (probability > 0.0).all() else 0.0
    return (shown * tests.scoring).sum(axis=1) / traffic, checks


def check(tests: Tests, probability: Floats, more: Ints, clicked: Floats) -> Floats:
    """Of one batch, for every check: Σ (found − expected) and its variance given the past."""
    readers = more.sum(axis=1)
    favourite = greedy(tests.predicted) == 1.0
    share = np.where(favourite, probability, 0.0).sum(axis=1)
    told = np.where(favourite, more, 0).sum(axis=1)
    moved = [(float((told - readers * share).sum()), float((readers * share * (1.0 - share)).sum()))]
    for policy in (np.full_like(probability, 1.0 / probability.shape[1]), _first(probability)):
        value = (policy * tests.clicking).sum(axis=1)
        spread = (policy**2 * tests.clicking / probability).sum(axis=1) - value**2
        found = (clicked * policy / probability).sum(axis=1)
        moved.append((float((found - readers * value).sum()), float((readers * spread).sum())))
    return np.array(moved)


def _first(probability: Floats) -> Floats:
    policy = np.zeros_like(probability)
    policy[:, 0] = 1.0
    return policy


def report(predicted: Predicted, played: list[Played]) -> None:
    """Tables for people, then the goals."""
    first = np.unique(predicted.archive.test, return_index=True)[1]
    component = predicted.archive.component[first]
    goals, figures = [], {}
    for truth in TRUTHS:
        for traffic in TRAFFIC:
            worlds = [one for one in played if (one.task.truth, one.task.traffic) == (truth, traffic)]
            earned, chosen = tuned(worlds, predicted.fold)
            against = {
                name: {other: gain(earned[name], earned[other], component) for other in earned if other != name}
                for name in earned
            }
            show(truth, traffic, earned, against, chosen)
            goals += _goals(truth, traffic, against[OURS])
            figures[f"{truth}, {traffic} per headline"] = _figures(earned, against, chosen)
    zs = _zs(played)
    goals.append(Goal("largest |z| of the probabilities", max(abs(z) for z in zs.values()), "<= 3"))
    tests = {"tests": len(component), "headlines": len(predicted.archive), "components": len(np.unique(component))}
    finish("headlines-online", goals, {**tests, "seeds": len(SEEDS), "z": zs, **figures})


def tuned(worlds: list[Played], fold: Ints) -> tuple[dict[str, Floats], dict[str, list[str]]]:
    """Rate per test by learner, its constant chosen on the other folds; and the constants, by fold."""
    earned, chosen = {}, {}
    for name, variants in LEARNERS.items():
        table = {variant: np.mean([one.earned[name, variant] for one in worlds], axis=0) for variant in variants}
        best = [max(table, key=lambda variant: float(table[variant][fold != held].mean())) for held in range(FOLDS)]
        earned[name] = np.choose(fold, [table[variant] for variant in best])
        chosen[name] = best if len(variants) > 1 else []
    return earned, chosen


def gain(ours: Floats, theirs: Floats, component: Ints) -> tuple[float, float, float]:
    """mean / mean − 1 in %, and its 95 % interval: linearised, clustered by component."""
    ratio = ours.mean() / theirs.mean()
    influence = np.bincount(component, (ours - ratio * theirs) / theirs.mean())
    width = 1.96 * float(np.sqrt((influence**2).sum())) / len(ours)
    value = float(ratio - 1.0)
    return 100.0 * value, 100.0 * (value - width), 100.0 * (value + width)


Gains = Mapping[str, Mapping[str, tuple[float, float, float]]]


def _goals(truth: str, traffic: int, against: Mapping[str, tuple[float, float, float]]) -> list[Goal]:
    where = f"{truth}, {traffic} per headline"
    goals = [
        Goal(f"{where}: gain over {other} in %, lower end", against[other][1], ">= 0", against[other][1:])
        for other in (COMMIT, UCB, THOMPSON)
    ]
    if truth == TRUTHS[0]:
        least = ((COMMIT, STRETCH[traffic]), (TWO_UCB, STRETCH_TWO_UCB))
        goals += [
            Goal(f"stretch: {where}: gain over {other} in %", against[other][0], f">= {size}", against[other][1:])
            for other, size in least
        ]
    return goals


def show(
    truth: str, traffic: int, earned: Mapping[str, Floats], against: Gains, chosen: Mapping[str, list[str]]
) -> None:
    """One table."""
    table = Table("learner", "clicks per 1,000", f"% over {COMMIT}", f"{OURS} over it, %", "chosen on other folds")
    table.title = f"{truth}, {traffic} impressions per headline"
    for name, rates_ in earned.items():
        table.add_row(
            name,
            f"{1_000 * rates_.mean():.3f}",
            _interval(against[name].get(COMMIT)),
            _interval(against[OURS].get(name)),
            ", ".join(sorted(set(chosen[name]))),
        )
    Console(width=140).print(table)


def _interval(found: tuple[float, float, float] | None) -> str:
    return "" if found is None else f"{found[0]:+.2f} [{found[1]:+.2f}, {found[2]:+.2f}]"


def _figures(earned: Mapping[str, Floats], against: Gains, chosen: Mapping[str, list[str]]) -> dict[str, Any]:
    ours, commit, best = (float(earned[name].mean()) for name in (OURS, COMMIT, ORACLE))
    return {
        "clicks_per_1000": {name: 1_000 * float(rates_.mean()) for name, rates_ in earned.items()},
        "gain_over_explore_then_commit": {name: found[COMMIT] for name, found in against.items() if COMMIT in found},
        "gain_of_rewardloop": against[OURS],
        "gap_to_oracle_closed": (ours - commit) / (best - commit),
        "chosen": {name: found for name, found in chosen.items() if found},
    }


def _zs(played: list[Played]) -> dict[str, float]:
    """z of every check and amount of traffic, over all worlds."""
    found = {}
    for traffic in TRAFFIC:
        moved = np.sum([one.checks for one in played if one.task.traffic == traffic], axis=0)
        for name, (off, variance) in zip(CHECKS, moved, strict=True):
            found[f"{name}, {traffic} per headline"] = float(off / np.sqrt(variance))
    return found


if __name__ == "__main__":
    main()
