"""Late spending foretold from the first two weeks, on households of Complete Journey, against what really came.

An experiment is made of real households: the panel is split in halves by chance; from a day on each basket of the treated is
doubled with a probability (the planted lift), early and late alike. One half of all households is the past, seen whole, in an
earlier season, which the index is learned from; the other half is the experiment, seen for two weeks. Its own later weeks
are the truth that the index never sees.

    lifts        0, 5, 10, 25 and 50 %; of each as many random splits as there is time for
    decisions    by the index and by the late outcome itself: sure when the 95 % interval leaves out 0
    clickbait    baskets of the first two weeks are doubled and as many later ones are lost: the early effect is real, the late
                 one is the opposite of what it promises

A lift that lasts is not all in the first two weeks: they are a noisy sign of what a household buys, so the index understates
it. That is surrogacy failing too, and the larger the lift the more it should be flagged; without a lift, hardly ever.

Source: the panel of 84.51°/dunnhumby, a sample of its lines. Skips where the data is not there.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from reward_models.episodes.surrogates import Effect, Sample, difference, surrogate
from tests.benchmarks.harness import Goal, finish

Floats = npt.NDArray[np.float64]

FOLDER = Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "complete_journey"
EARLY, LATE, BEFORE = 14, 63, 90
"""Days of the early and the late outcome, and days before that are known."""
PAST, NOW = 100, 200
"""Days of the year on which the past experiment and the one to be foretold begin."""
LIFTS = (0.0, 0.05, 0.10, 0.25, 0.50)
QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SPLITS = 10 if QUICK else 100


@dataclass(frozen=True)
class Panel:
    """Baskets of all households, in order of time: who, on which day of the year, worth what, with how many lines."""

    household: npt.NDArray[np.int64]
    day: npt.NDArray[np.int64]
    value: Floats
    lines: Floats
    households: int


def load_panel() -> Panel | None:
    """Every basket of the sample; none where the data is not there."""
    path = FOLDER / "transactions_sample.csv.gz"
    if not path.exists():
        return None
    rows = pd.read_csv(path, parse_dates=["transaction_timestamp"])
    rows["day"] = (rows.transaction_timestamp - pd.Timestamp("2017-01-01")).dt.days
    baskets = rows.groupby(["household_id", "basket_id"], sort=True).agg(
        day=("day", "min"), value=("sales_value", "sum"), lines=("product_id", "size")
    )
    baskets = baskets.reset_index().sort_values(["day", "basket_id"])
    codes, names = pd.factorize(baskets.household_id, sort=True)
    value, lines = (baskets[name].to_numpy(dtype=np.float64) for name in ("value", "lines"))
    return Panel(codes.astype(np.int64), baskets.day.to_numpy(dtype=np.int64), value, lines, len(names))


def experiment(
    panel: Panel, half: npt.NDArray[np.int64], begin: int, lift: float, random: np.random.Generator, honest: bool = True
) -> Sample:
    """These households in two groups by chance. ``lift``: chance that a basket of the treated is doubled; unless it is
    ``honest`` only in the first two weeks, at the cost of the later ones."""
    treatment = np.zeros(panel.households, dtype=np.bool_)
    treatment[random.permutation(half)[: len(half) // 2]] = True
    since = panel.day - begin
    affected = treatment[panel.household] & (since >= 0) & (honest | (since < EARLY))
    times = 1.0 + (affected & (random.random(len(since)) < lift))
    if not honest:  # what was bought early is not bought later
        times *= np.where(treatment[panel.household] & (since >= EARLY) & (random.random(len(since)) < lift), 0.0, 1.0)

    def total(first: int, last: int, what: Floats) -> Floats:
        rows = (since >= first) & (since < last)
        sums = np.bincount(panel.household[rows], weights=(times * what)[rows], minlength=panel.households)
        return np.asarray(sums[half], dtype=np.float64)

    ones = np.ones(len(since))
    early = [total(0, EARLY, what) for what in (ones, panel.value, panel.lines)]
    early += [total(7, EARLY, panel.value), (total(0, EARLY, ones) > 0).astype(np.float64)]
    before = [total(-BEFORE, 0, what) for what in (ones, panel.value, panel.lines)]
    before += [total(-28, 0, panel.value), total(-EARLY, 0, ones)]
    return Sample(np.column_stack(early), np.column_stack(before), treatment[half], total(0, LATE, panel.value))


@dataclass(frozen=True)
class Split:
    """One experiment: what the index foretold, what came, and whether it was doubted."""

    lift: float
    index: Effect
    direct: Effect
    truth: float
    explained: float
    doubted: bool
    """Surrogacy was said to fail."""


def run(panel: Panel, lift: float, number: int, honest: bool = True) -> Split:
    """Learn on one half in an earlier season, foretell the other half, and look."""
    random = np.random.default_rng([7, number])
    halves = np.array_split(random.permutation(panel.households), 2)
    known = experiment(panel, halves[0], PAST, lift, random, honest)
    new = experiment(panel, halves[1], NOW, lift, random, honest)
    plain = experiment(panel, halves[1], NOW, 0.0, np.random.default_rng([7, number, 1]))
    found = surrogate(known, Sample(new.early, new.before, new.treatment))
    assert plain.late is not None
    spent = float(plain.late.mean())
    return Split(
        lift,
        found.effect,
        difference(_adjusted(new), new.treatment),
        lift * spent if honest else lift * spent * (2 * EARLY / LATE - 1.0),
        found.explained,
        found.missed is not None and found.missed.sure,
    )


def _adjusted(sample: Sample) -> Floats:
    """Late outcomes less what was to be expected from before, by least squares: what the index must compare with."""
    assert sample.late is not None
    columns = np.column_stack([np.ones(len(sample)), sample.before])
    usual, *_ = np.linalg.lstsq(columns, sample.late, rcond=None)
    return np.asarray(sample.late - columns @ usual)


def results(panel: Panel, splits: int = SPLITS) -> Iterator[Split]:
    """All experiments in which surrogacy holds."""
    for lift in LIFTS:
        for number in range(splits):
            yield run(panel, lift, number)


def main() -> None:
    """Print the table and the goals."""
    panel = load_panel()
    if panel is None:
        sys.exit(f"No data in {FOLDER}; set REWARDLOOP_DATA")
    print(f"{panel.households:,} households, {len(panel.day):,} baskets; {SPLITS} splits per lift")
    found = list(results(panel))
    print("  lift   index sure   late sure   same sign   index sd / late sd    flagged   index mean (truth)")
    for lift in LIFTS:
        print(_line([one for one in found if one.lift == lift], lift))
    baits = [run(panel, 0.5, 1_000 + number, honest=False) for number in range(SPLITS)]
    finish("surrogate", _goals(found, baits), _figures(found, baits))


def _line(found: list[Split], lift: float) -> str:
    index, direct = _sure(found, "index"), _sure(found, "direct")
    mean = np.mean([one.index.value for one in found])
    return (
        f"{lift:6.0%} {index:12.0%} {direct:11.0%} {_agree(found):11.0%} {_width(found):20.2f} {_doubted(found):10.0%} "
        f"{mean:12.2f} ({np.mean([one.truth for one in found]):.2f})"
    )


def _sure(found: list[Split], which: str) -> float:
    return float(np.mean([getattr(one, which).sure for one in found]))


def _doubted(found: list[Split]) -> float:
    return float(np.mean([one.doubted for one in found]))


def _agree(found: list[Split]) -> float:
    return float(np.mean([one.index.value * one.direct.value > 0.0 for one in found]))


def _width(found: list[Split]) -> float:
    """Width of the index's interval, relative to the late outcome's."""
    return float(np.mean([(one.index.high - one.index.low) / (one.direct.high - one.direct.low) for one in found]))


def _goals(found: list[Split], baits: list[Split]) -> list[Goal]:
    planted = [one for one in found if one.lift > 0.0]
    both = [one for one in planted if one.index.sure and one.direct.sure]
    launched = [one for one in planted if one.direct.sure]
    same = [one.index.value * one.direct.value > 0.0 for one in both]
    nothing = [one for one in found if one.lift == 0.0]
    return [
        Goal("same sign where both are sure", float(np.mean(same)) if same else 0.0, ">= 0.95"),
        Goal(
            "of the late outcome's discoveries the index makes", _sure(launched, "index") if launched else 0.0, ">= 0.8"
        ),
        Goal("index sure where nothing was planted", _sure(nothing, "index"), "<= 0.05"),
        Goal("variance of the index's effect against the late outcome's", _width(found) ** 2, "<= 0.5"),
        Goal("clickbait that is flagged", _doubted(baits), ">= 0.8"),
        Goal("flagged where nothing was planted", _doubted(nothing), "<= 0.1"),
        Goal("flagged where half as much again lasts", _doubted([one for one in found if one.lift == 0.5]), ">= 0.8"),
    ]


def _figures(found: list[Split], baits: list[Split]) -> dict[str, object]:
    return {
        "splits": SPLITS,
        "explained": float(np.mean([one.explained for one in found])),
        "lifts": {
            f"{lift:.0%}": {
                "index_sure": _sure(part, "index"),
                "late_sure": _sure(part, "direct"),
                "same_sign": _agree(part),
                "flagged": _doubted(part),
                "index_mean": float(np.mean([one.index.value for one in part])),
                "truth": float(np.mean([one.truth for one in part])),
            }
            for lift in LIFTS
            for part in [[one for one in found if one.lift == lift]]
        },
        "clickbait": {
            "index_mean": float(np.mean([one.index.value for one in baits])),
            "truth": float(np.mean([one.truth for one in baits])),
        },
    }


if __name__ == "__main__":
    main()
