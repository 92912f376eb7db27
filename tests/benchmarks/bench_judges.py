"""Judges of copy in the simulator, whose taste is known: trust that is earned, misleading ones found, intervals that cover.

Campaigns of the simulator, eight template lines each; what a line is truly worth is its mean click rate over customers, what is
seen of it is 1,000 decisions. Judges rate every line from 1 to 5:

- good: correlates 0.6 with the log of the true rate, within the campaign
- wordy: likes length, which customers mostly do not, and nothing else
- contrary: correlates -0.6
- turning: good in the first half of the campaigns, contrary in the second

**Weight.** After so many rated lines with outcomes: state and weight (``agreement_of``). **Use.** The next campaign has 20
drafts without any outcome: what the best rated one is worth against the mean draft, when every judge is believed blindly, and by
weight (a judge without weight chooses by lot). **Surrogate.** Mean rate of copy by one generator from 40 lines with outcomes and
400 that were only rated: coverage of the 95 % interval and outcomes saved (``powered_mean``).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipelines.simulator import World, draw_customers, true_values
from pipelines.templates import write_drafts
from reward_models.judging.agreement import Agreement, agreement_of
from reward_models.judging.prediction_powered import powered_mean
from reward_models.judging.realised import Realised
from tests.benchmarks.harness import Goal, finish

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
WORLDS = 10 if QUICK else 60
SAMPLES = 200 if QUICK else 3_000
SIZES = (24, 48, 96, 192, 384)
EACH, SHOWN, DRAFTS = 8, 1_000, 20
LABELLED, RATED = 40, 400


@dataclass(frozen=True)
class Copy:
    """Lines of campaigns: true rate, worth (log rate, centred in its campaign, variance 1), length; shape (k,)."""

    rate: Floats
    worth: Floats
    long: Floats
    campaign: Ints

    def __len__(self) -> int:
        return len(self.rate)


Judge = Callable[[np.random.Generator, Copy], Floats]


def _noisy(signal: Floats, correlation: float, rng: np.random.Generator) -> Floats:
    noise = np.sqrt(1.0 - correlation**2) * rng.standard_normal(len(signal))
    return np.asarray(np.clip(3.0 + correlation * signal + noise, 1.0, 5.0))


def _turning(rng: np.random.Generator, copy: Copy) -> Floats:
    early = copy.campaign < (copy.campaign.max() + 1) / 2
    return _noisy(np.where(early, 1.0, -1.0) * copy.worth, 0.6, rng)


JUDGES: Mapping[str, Judge] = {
    "good": lambda rng, copy: _noisy(copy.worth, 0.6, rng),
    "wordy": lambda rng, copy: _noisy(copy.long, 0.6, rng),
    "contrary": lambda rng, copy: _noisy(copy.worth, -0.6, rng),
    "turning": _turning,
}


def main() -> None:
    """Play all worlds, print three tables and the goals."""
    console = Console(stderr=True, width=110)
    found: dict[tuple[str, int], list[tuple[Agreement, float, float]]] = {}
    for seed in track(range(WORLDS), "judges", console=console, transient=True):
        for key, one in _world(seed).items():
            found.setdefault(key, []).append(one)
    surrogates = {name: _surrogate(name) for name in JUDGES}
    weights = _weights(found)
    _print(console, weights, surrogates)
    finish("judges", _goals(weights, surrogates), {"weights": weights, "surrogates": surrogates})


def _world(seed: int) -> dict[tuple[str, int], tuple[Agreement, float, float]]:
    """By judge and number of lines: agreement, and what the line it would choose earns, blindly and by weight."""
    rng = np.random.default_rng([seed, 31])
    copy, fresh = _write(rng, seed, SIZES[-1] // EACH, EACH), _write(rng, seed + 1_000, 1, DRAFTS)
    seen = rng.binomial(SHOWN, copy.rate) / SHOWN
    usual = (np.bincount(copy.campaign, seen) / np.bincount(copy.campaign))[copy.campaign]
    gain = fresh.rate / fresh.rate.mean() - 1.0
    result = {}
    for name, judge in JUDGES.items():
        rng = np.random.default_rng([seed, 32])
        for size in SIZES:
            part = Copy(copy.rate[:size], copy.worth[:size], copy.long[:size], copy.campaign[:size])
            rating = judge(rng, part)
            variance = np.maximum(usual[:size] * (1 - usual[:size]), 1e-4) / SHOWN
            realised = Realised(np.arange(size), part.campaign, seen[:size], variance, np.full(size, float(SHOWN)))
            agreement = agreement_of(rating, np.arange(size), realised)
            late = name == "turning"
            said = JUDGES["contrary" if late else name](rng, fresh)
            foretold, _ = agreement.foretell(said, fresh.campaign)
            best = foretold == foretold.max()
            result[name, size] = (agreement, float(gain[said.argmax()]), float(gain[best].mean()))
    return result


def _write(rng: np.random.Generator, seed: int, campaigns: int, each: int) -> Copy:
    world = World(seed=seed, bots=0.0)
    customers = draw_customers(world, rng, 200)
    drafts = [write_drafts("wool", each, int(rng.integers(1 << 30))) for _ in range(campaigns)]
    factors = [draft.factors for lines in drafts for draft in lines]
    rate = true_values(world, customers, factors).click.mean(axis=0)
    campaign = np.repeat(np.arange(campaigns), each)
    long = np.array([float(one["long"]) for one in factors])
    return Copy(rate, _scaled(np.log(rate), campaign), _scaled(long, campaign), campaign)


def _scaled(values: Floats, campaign: Ints) -> Floats:
    centred = values - (np.bincount(campaign, values) / np.bincount(campaign))[campaign]
    return np.asarray(centred / max(float(centred.std()), 1e-9))


def _surrogate(name: str) -> dict[str, float]:
    """Coverage of the mean rate of all lines, outcomes saved, and coverage of the outcomes alone."""
    rng = np.random.default_rng([77, list(JUDGES).index(name)])
    population = _write(rng, 5, 200, EACH)
    truth, held, plain, saved = float(population.rate.mean()), 0, 0, []
    rating = JUDGES[name](rng, population)
    for _ in range(SAMPLES):
        drawn = rng.integers(0, len(population), LABELLED + RATED)
        few, many = drawn[:LABELLED], drawn[LABELLED:]
        seen = rng.binomial(SHOWN, population.rate[few]) / SHOWN
        found = powered_mean(seen, rating[few], rating[many])
        held += found.interval[0] <= truth <= found.interval[1]
        plain += found.plain_interval[0] <= truth <= found.plain_interval[1]
        saved.append(found.saved)
    return {"coverage": held / SAMPLES, "outcomes alone": plain / SAMPLES, "saved": float(np.mean(saved))}


def _weights(found: Mapping[tuple[str, int], list[tuple[Agreement, float, float]]]) -> list[dict[str, float | str]]:
    rows: list[dict[str, float | str]] = []
    for (name, size), worlds in found.items():
        states = [agreement.state for agreement, _, _ in worlds]
        rows.append(
            {
                "judge": name,
                "lines": size,
                "weight": float(np.mean([agreement.weight for agreement, _, _ in worlds])),
                "trusted": states.count("trusted") / len(states),
                "misleading": states.count("misleading") / len(states),
                "blindly": float(np.mean([blind for _, blind, _ in worlds])),
                "by weight": float(np.mean([weighed for _, _, weighed in worlds])),
            }
        )
    return rows


def _print(
    console: Console, weights: list[dict[str, float | str]], surrogates: Mapping[str, Mapping[str, float]]
) -> None:
    columns = ("judge", "lines", "weight", "trusted", "misleading", "blindly", "by weight")
    table = Table(*columns, title="A judge after so many rated lines with outcomes; the next choice, against the mean")
    for row in weights:
        cells = [str(row["judge"]), str(row["lines"]), f"{row['weight']:.2f}"]
        cells += [f"{row[name]:.0%}" for name in ("trusted", "misleading")]
        table.add_row(*cells, *(f"{row[name]:+.1%}" for name in ("blindly", "by weight")))
    console.print(table)
    title = f"Mean of {LABELLED} lines with outcomes and {RATED} rated ones"
    table = Table("judge", "95 % interval covers", "outcomes alone", "outcomes saved", title=title)
    for name, one in surrogates.items():
        table.add_row(name, *(f"{one[key]:.1%}" for key in ("coverage", "outcomes alone", "saved")))
    console.print(table)


def _goals(weights: list[dict[str, float | str]], surrogates: Mapping[str, Mapping[str, float]]) -> list[Goal]:
    by = {(row["judge"], row["lines"]): row for row in weights}
    last = SIZES[-1]
    return [
        Goal("contrary judge called misleading after 96 lines", float(by["contrary", 96]["misleading"]), ">= 0.9"),
        Goal("weight of the contrary judge after 96 lines", float(by["contrary", 96]["weight"]), "<= 0.01"),
        Goal("good judge trusted after 192 lines", float(by["good", 192]["trusted"]), ">= 0.9"),
        Goal(f"weight of the judge that turned, after {last} lines", float(by["turning", last]["weight"]), "<= 0.1"),
        Goal(
            "least coverage of prediction-powered intervals", min(s["coverage"] for s in surrogates.values()), ">= 0.93"
        ),
        Goal("outcomes that the good judge saves", surrogates["good"]["saved"], ">= 0.1"),
    ]


if __name__ == "__main__":
    main()
