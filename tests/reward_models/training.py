"""Training sets for tests, made from literals and from known worlds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from ingestion.events import Content
from ingestion.loops import LoopDefinition, ModelSettings, parse_definition
from reward_models.dataset import Arrivals, History, Timing, TrainingSet
from reward_models.rewards import reward_of

Floats = npt.NDArray[np.float64]
SMALL = ModelSettings(rounds=30, min_leaf=5)
ADJECTIVES = ("old", "new", "quiet", "bright", "local", "large", "plain", "early")
NOUNS = ("garden", "market", "letter", "table", "bridge", "story", "window", "summer")


def definition(**changes: Any) -> LoopDefinition:
    """A loop of clicks and purchases."""
    document = {
        "loop": "emails",
        "metrics": [
            {"name": "click", "event": "click", "window": "1d"},
            {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "2d", "currency": "EUR"},
        ],
        "reward": {"click": 1.0},
        "lateness": "1h",
    }
    return parse_definition({**document, **changes})


def history(contents: Sequence[Content], exposures: Sequence[float], rates: Sequence[float]) -> History:
    """Past results: clicks per exposure, each content once, in order."""
    shown, rate = np.array(exposures, dtype=np.float64), np.array(rates, dtype=np.float64)
    return History(
        np.arange(len(contents)), shown, {"click": shown * rate}, rate, rate.copy(), np.ones(len(contents), dtype=bool)
    )


NO_HISTORY = history((), (), ())


def training_set(
    contents: Sequence[Content],
    past: History = NO_HISTORY,
    *,
    content: Sequence[int] = (),
    contexts: Sequence[Mapping[str, Any]] = (),
    reward: Sequence[float] = (),
    unit: Sequence[str | None] = (),
    position: Sequence[int] = (),
) -> TrainingSet:
    """A set whose decisions are rows of ``content`` (index), ``contexts`` and ``reward``."""
    count = len(content)
    values = np.array(reward, dtype=np.float64)
    return TrainingSet(
        loop_id="emails",
        loop_version=1,
        as_of=7,
        contents=tuple(contents),
        decision_id=tuple(f"d{row}" for row in range(count)),
        unit=tuple(unit) or tuple(f"u{row}" for row in range(count)),
        decided_at=np.full(count, DAY, dtype=np.int64),
        contexts=tuple(contexts) or ({},) * count,
        content=np.array(content, dtype=np.int64),
        position=np.array(position or [1] * count, dtype=np.int64),
        propensity=np.full(count, 0.5),
        holdout=np.zeros(count),
        group=("treatment",) * count,
        learning_mode=("online",) * count,
        candidates=((),) * count,
        metrics={"click": values},
        reward=values,
        history=past,
    )


def copy(name: str, text: str, campaign: str = "c", **features: float | str | bool) -> Content:
    """A content with one slot."""
    return Content(content_id=name, campaign_id=campaign, slots={"subject": text}, features=dict(features))


def targeted(count: int = 4_000, seed: int = 1) -> TrainingSet:
    """Two texts; the young click on the first (30 %), the old on the second (30 %), else 10 %."""
    rng = np.random.default_rng(seed)
    contents = (copy("a", "Fresh styles", theme="young"), copy("b", "Classic cuts", theme="old"))
    young, shown = rng.integers(0, 2, count), rng.integers(0, 2, count)
    rate = np.where(young == (shown == 0), 0.3, 0.1)
    return training_set(
        contents,
        content=shown.tolist(),
        contexts=[
            {"age": "young" if y else "old", "visits": int(v)}
            for y, v in zip(young, rng.poisson(3, count), strict=True)
        ],
        reward=(rng.random(count) < rate).astype(float).tolist(),
    )


def worded(campaigns: int = 80, arms: int = 4, effect: float = 0.6, seed: int = 2) -> TrainingSet:
    """Past results of campaigns whose click rates differ tenfold; texts with the word "secret" gain ``effect``."""
    rng = np.random.default_rng(seed)
    contents, rates = [], []
    for campaign in range(campaigns):
        base = float(np.exp(rng.uniform(np.log(0.005), np.log(0.05))))
        for arm in range(arms):
            words = [*rng.choice(ADJECTIVES, 2), *rng.choice(NOUNS, 2), f"x{campaign}y{arm}"]
            has_it = rng.random() < 0.5
            words.insert(2, "secret" if has_it else "common")
            contents.append(copy(f"k{campaign}-{arm}", " ".join(words), f"c{campaign}"))
            rates.append(rng.binomial(20_000, base * (1 + effect * has_it)) / 20_000)
    return training_set(contents, history(contents, [20_000] * len(contents), rates))


def real_data() -> Path:
    """The folder with the real data sets; tests skip when it is not there."""
    import os

    return Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data"))


def timed(
    count: int,
    rules: LoopDefinition,
    delays: Mapping[str, Callable[[Floats], Floats]],
    *,
    rates: Mapping[str, float] | None = None,
    values: Mapping[str, float] | None = None,
    contents: int = 2,
    seed: int = 11,
) -> TrainingSet:
    """Decisions aged evenly up to maturity, with what has come so far: a metric happens with its rate (0.5), is then
    worth its value (1), and comes after ``delays[metric]`` of a uniform number."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 1.5 * rules.maturity, count)
    metrics, arrivals = {}, {}
    for metric in rules.metrics:
        name = metric.name
        delay = np.asarray(delays[name](rng.random(count)), dtype=np.float64)
        came = (rng.random(count) < (rates or {}).get(name, 0.5)) & (delay <= age)
        metrics[name] = np.where(came, (values or {}).get(name, 1.0), 0.0)
        arrivals[name] = Arrivals(np.flatnonzero(came), delay[came])
    plain = training_set(
        [copy(f"k{number}", f"text {number}") for number in range(contents)],
        content=rng.integers(0, contents, count).tolist(),
        reward=reward_of(rules, metrics).tolist(),
    )
    timing = Timing(np.minimum(age, rules.maturity), rules.maturity, arrivals, {})
    return replace(plain, metrics=metrics, timing=timing)
