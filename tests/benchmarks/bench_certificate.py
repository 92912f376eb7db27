"""The gate on a real experiment (Hillstrom): false promotions, planted uplift, and what is deployed on the real labels.

1. Null: visits permuted over all customers (no policy is better than another: the hardest null), and within each arm
   (arms keep their means, choosing by customer cannot help). The learned policy is judged each time.
2. Planted: visits within each arm permuted, then customers who bought womens goods only are made to visit 3 points more
   often after the womens e-mail than after the mens e-mail, which is best for the others. The truth is known exactly;
   what is found is the true uplift of the policy if it is promoted, else nothing.
3. Real labels: the whole evaluation as `rewardloop evaluate` runs it, every metric.

Seeds were fixed before the first run. In 1 one fold calibrates each model (``plenty=0``), for speed.
"""

import csv
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from scipy.stats import beta

from ingestion.events import NO_SEND, Candidate, Content
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.boosted import PLENTY
from reward_models.choices import Choices
from reward_models.contexts import Contexts
from reward_models.dataset import History, TrainingSet
from reward_models.evaluation import cross_fit, evaluate, report
from tests.benchmarks.harness import Goal, finish

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FILE = (
    Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "hillstrom"
    / "hillstrom.csv"
)
QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
PERMUTATIONS, PLANTED = (20, 2) if QUICK else (200, 20)
UPLIFT = 0.03
"""Points by which the womens e-mail beats the mens e-mail for those it is planted for."""
SEED = 20_261_122
ARMS = {"Mens E-Mail": "mens", "No E-Mail": NO_SEND, "Womens E-Mail": "womens"}
NUMBERS, WORDS = ("recency", "history", "mens", "womens", "newbie"), ("history_segment", "zip_code", "channel")
METRICS = ("visit", "conversion", "spend")


def main() -> None:
    """Run the benchmark."""
    if not FILE.exists():
        print(f"Skipped: no {FILE}; set REWARDLOOP_DATA to the folder with the real data sets", file=sys.stderr)
        return
    everywhere = _all("labels over all customers", over_all, PERMUTATIONS)
    within = _all("labels within arms", within_arms, PERMUTATIONS)
    planted = _all("planted uplift", plant, PLANTED)
    found = evaluate(experiment(), definition(), list(METRICS))
    certified = all(each.verdict.state != "passed" for each in found.metrics)
    for each in found.metrics:
        print(f"  {each.sentence}")
    recovered = np.array([run["found"] / run["oracle"] for run in planted])
    half = 1.96 * float(recovered.std(ddof=1)) / np.sqrt(len(recovered))
    finish(
        "certificate",
        [
            *_error("labels permuted over all customers", everywhere),
            *_error("labels permuted within arms", within),
            Goal(
                "share of the planted uplift that was promoted",
                round(float(recovered.mean()), 4),
                ">= 0.9",
                (round(float(recovered.mean() - half), 4), round(float(recovered.mean() + half), 4)),
            ),
            Goal(
                "real labels: metrics on which the best single arm is deployed",
                float(sum(each.verdict.state != "passed" and each.reference == "mens" for each in found.metrics)),
                f">= {len(METRICS)}",
            ),
        ],
        {
            "permutations": PERMUTATIONS,
            "planted": {
                "runs": PLANTED,
                "promoted": sum(run["promoted"] for run in planted),
                "oracle uplift, points of visits": round(100 * float(np.mean([run["oracle"] for run in planted])), 3),
            },
            "certified": certified,
            "real": {each.metric: _real(each) for each in found.metrics},
        },
    )


def _error(name: str, runs: list[dict[str, float]]) -> list[Goal]:
    """The rate of false promotions, and the upper end of its exact one-sided 95 % interval."""
    wrong, count = int(sum(run["promoted"] for run in runs)), len(runs)
    upper = 1.0 if wrong == count else float(beta.ppf(0.95, wrong + 1, count - wrong))
    lower = 0.0 if wrong == 0 else float(beta.ppf(0.05, wrong, count - wrong + 1))
    return [
        Goal(f"false promotions, {name}", round(wrong / count, 4), "<= 0.05", (round(lower, 4), round(upper, 4))),
        Goal(f"upper 95 % bound of false promotions, {name}", round(upper, 4), "<= 0.08"),
    ]


def _real(found: Any) -> dict[str, Any]:
    estimate = found.verdict.estimate
    values = {value.name: [round(value.value, 5), round(value.low, 5), round(value.high, 5)] for value in found.values}
    return {
        "deployed": found.reference,
        "ungated policy minus best arm": None
        if estimate is None
        else [round(estimate.value, 5), round(estimate.low, 5), round(estimate.high, 5)],
        "level": None if estimate is None else estimate.level,
        "ungated policy": values,
        "verdict": found.verdict.state,
    }


def _all(what: str, one: Callable[[int], dict[str, float]], count: int) -> list[dict[str, float]]:
    """One run per seed, on all cores."""
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return list(track(pool.map(one, range(count)), what, count, console=console))


def over_all(seed: int) -> dict[str, float]:
    """One permutation of the labels over all customers: is anything promoted?"""
    draw = np.random.default_rng((SEED, 1, seed))
    return {"promoted": _promoted(draw.permutation(experiment().metrics["visit"]), plenty=0)[0]}


def within_arms(seed: int) -> dict[str, float]:
    """One permutation of the labels within each arm."""
    return {"promoted": _promoted(_shuffled(np.random.default_rng((SEED, 2, seed))), plenty=0)[0]}


def plant(seed: int) -> dict[str, float]:
    """One world with planted uplift: the true uplift of the learned policy over the best arm, if it is promoted."""
    draw = np.random.default_rng((SEED, 3, seed))
    rows = experiment()
    bought = rows.contexts.columns  # type: ignore[attr-defined]
    group = (bought["womens"].number == 1) & (bought["mens"].number == 0)
    visit, womens = _shuffled(draw), rows.content == 2
    mens_rate, womens_rate = visit[rows.content == 0].mean(), visit[womens].mean()
    more = (mens_rate + UPLIFT - womens_rate) / (1.0 - womens_rate)
    visit = np.where(group & womens & (draw.random(len(visit)) < more), 1.0, visit)
    promoted, target = _promoted(visit)
    truth = np.tile([mens_rate, visit[rows.content == 1].mean(), womens_rate], (len(rows), 1))
    truth[group, 2] = mens_rate + UPLIFT
    oracle = float(group.mean()) * UPLIFT
    judged = target.any(axis=1)
    uplift = float((target * truth)[judged].sum(axis=1).mean() - mens_rate)
    return {"promoted": promoted, "oracle": oracle, "found": uplift * promoted, "policy": uplift}


def _shuffled(draw: np.random.Generator) -> Floats:
    """Visits, permuted within each arm."""
    rows = experiment()
    visit = rows.metrics["visit"].copy()
    for arm in range(len(ARMS)):
        mine = rows.content == arm
        visit[mine] = draw.permutation(visit[mine])
    return visit


def _promoted(visit: Floats, plenty: int = PLENTY) -> tuple[float, Floats]:
    """Whether the gate promotes the policy that is learned from these labels, and the policy."""
    rows = replace(experiment(), metrics={"visit": visit}, reward=visit)
    fitted = cross_fit(rows, "visit", definition(), plenty=plenty)
    return float(report(rows, "visit", fitted, definition()).verdict.state == "passed"), fitted.target


def definition() -> LoopDefinition:
    """The example loop: visits, conversions, spend; folds by customer, because the file has no times."""
    return parse_definition(
        {
            "loop": "hillstrom",
            "metrics": [
                {"name": "visit", "event": "visit"},
                {"name": "conversion", "event": "conversion"},
                {"name": "spend", "event": "purchase", "aggregate": "sum", "currency": "USD"},
            ],
            "reward": {"visit": 1.0},
            "gate": {"split": "unit"},
        }
    )


@cache
def experiment() -> TrainingSet:
    """The experiment as mature decisions, one per customer; every arm had probability 1/3."""
    with FILE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    count, names = len(rows), list(ARMS)
    content = np.array([names.index(row["segment"]) for row in rows], dtype=np.int64)
    third = 1.0 / len(ARMS)
    candidates = tuple(Candidate(content_id=each, policy_p=third, behaviour_p=third) for each in ARMS.values())
    metrics = {name: np.array([float(row[name]) for row in rows]) for name in METRICS}
    none = np.zeros(0)
    return TrainingSet(
        loop_id="hillstrom",
        loop_version=1,
        as_of=1,
        contents=tuple(
            Content(
                content_id=each, campaign_id="sale", slots={}, features={} if each == NO_SEND else {"merchandise": each}
            )
            for each in ARMS.values()
        ),
        decision_id=tuple(f"d{row}" for row in range(count)),
        unit=tuple(f"u{row}" for row in range(count)),
        decided_at=np.zeros(count, dtype=np.int64),
        contexts=Contexts.of(
            [{**{name: float(row[name]) for name in NUMBERS}, **{name: row[name] for name in WORDS}} for row in rows]
        ),
        content=content,
        position=np.ones(count, dtype=np.int64),
        propensity=np.full(count, third),
        holdout=np.zeros(count),
        group=("treatment",) * count,
        learning_mode=("online",) * count,
        candidates=Choices.of((candidates,) * count),
        metrics=metrics,
        reward=metrics["visit"],
        history=History(none.astype(np.int64), none, dict.fromkeys(METRICS, none), none, none, none.astype(np.bool_)),
    )


if __name__ == "__main__":
    main()
