"""Training on outcomes that are not all in: how much of what lateness costs the delay laws win back; hurdles for money.

In the evening a model is trained on the decisions so far and scores the next day's, whose outcomes count in full:

    ignoring   what has not come is taken as nothing
    waiting    only decisions whose outcome is final
    ours       ``fit_delays`` and ``foresee``: rows with the share of their outcome that has come in
    truth      the final outcomes of all rows, which nobody has yet
    law known  ours, with laws learned from the final outcomes: what no better law could pass

All are the product's ``fit`` on the same rows. Closed is (ours - ignoring) / (truth - ignoring) of the mean over
the repeats; intervals come from bootstrapping worlds (simulator) or households (Complete Journey).

1. Five laws of lateness on simulator worlds: a month of decisions, contents that start one after the other in its
   first three weeks. Worlds whose newest content starts on the last evening are shown beside them: there most of the
   gap is what nobody can know yet.
2. Real redemptions of 2,500 households with their real delays in days. Each campaign's mailing is spread over four
   weeks, because the data have one date per campaign: these times of sending are invented.
3. Money behind clicks: what the content with the largest predicted revenue truly earns, with hurdles and without.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from infra.clock import DAY, HOUR
from ingestion.events import Content
from ingestion.loops import LoopDefinition, parse_definition
from pipelines.simulator import World, draw_customers, respond, true_values
from pipelines.templates import write_drafts
from reward_models.boosted import RewardModel, fit
from reward_models.dataset import Arrivals, History, Timing, TrainingSet
from reward_models.delays import fit_delays
from reward_models.hurdle import foresee
from tests.benchmarks.harness import Goal, finish
from tests.reward_models.training import real_data

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUICK = os.environ.get("REWARDLOOP_BENCH_QUICK") == "1"
WORLDS = 4 if QUICK else 16
"""Repeats of each law. Their seeds begin at ``SEED``; ideas were tried on worlds below it."""
SEED = 7_000
DAYS, PER_DAY, CAMPAIGNS, CONTENTS = 28, 500 if QUICK else 1_500, 3, 8
LAST_START = 21
"""Day on which the newest content starts; ``FRESH`` worlds go on until the last evening."""
FRESH = "by content, fresh contents"
NEXT_DAY = 10_000 if QUICK else 20_000
BOOTSTRAPS = 400
REPLAYS = 1 if QUICK else 4
"""Times the mailings of Complete Journey are spread anew."""
EVENINGS = range(140, 360, 44 if QUICK else 22)
"""Days of 2017 after which a model is trained there."""
SHOPS = 4 if QUICK else 16

Result = TypeVar("Result")
Draw = Callable[[np.random.Generator, Ints, npt.NDArray[np.bool_]], Floats]
"""Delays in microseconds, shape (n,), of rows with these contents, and whether their customer is on a mobile."""


@dataclass(frozen=True)
class Log:
    """Decisions, shape (n,): ``delay`` in microseconds, inf where nothing ever comes."""

    contents: tuple[Content, ...]
    content: Ints
    contexts: tuple[dict[str, Any], ...]
    unit: tuple[str, ...]
    sent: Floats
    delay: Floats

    def part(self, rows: npt.NDArray[Any]) -> "Log":
        """Some rows."""
        kept = np.arange(len(self.sent))[rows]
        contexts, unit = tuple(self.contexts[row] for row in kept), tuple(self.unit[row] for row in kept)
        return replace(
            self, content=self.content[kept], contexts=contexts, unit=unit, sent=self.sent[kept], delay=self.delay[kept]
        )


@dataclass(frozen=True)
class Scored:
    """The next day: outcomes, who it was, and what each way of training promised."""

    happened: Floats
    unit: tuple[str, ...]
    promised: dict[str, Floats]


ARMS = ("ignoring", "waiting", "ours", "truth", "law known")
METRICS: dict[str, tuple[Callable[[Floats, Floats], float], float, float]] = {
    "AUC": (lambda y, p: float(roc_auc_score(y, p)), 1.0, 0.6),
    "PR-AUC": (lambda y, p: float(average_precision_score(y, p)), 1.0, 0.7),
    "log-loss": (lambda y, p: float(log_loss(y, np.clip(p, 1e-4, 1 - 1e-4))), -1.0, 0.8),
}
"""Each with its sign (1: more is better) and the share of the gap that must be closed."""


def rules_of(window_days: int) -> LoopDefinition:
    """A loop of one late outcome."""
    return parse_definition(
        {
            "loop": "late",
            "metrics": [{"name": "answer", "event": "answer", "window": f"{window_days}d"}],
            "reward": {"answer": 1.0},
            "lateness": "0s",
            "model": {"min_leaf": 20},
        }
    )


def training_set(log: Log, rules: LoopDefinition, now: float) -> TrainingSet:
    """What is known of a log at ``now``: with an endless ``now`` all of it."""
    age = now - log.sent
    came = np.flatnonzero(log.delay <= age)
    happened = np.zeros(len(age))
    happened[came] = 1.0
    count, nothing = len(age), np.zeros(0)
    return TrainingSet(
        loop_id=rules.loop,
        loop_version=1,
        as_of=1,
        contents=log.contents,
        decision_id=tuple(f"d{row}" for row in range(count)),
        unit=log.unit,
        decided_at=log.sent.astype(np.int64),
        contexts=log.contexts,
        content=log.content,
        position=np.ones(count, dtype=np.int64),
        propensity=np.full(count, np.nan),
        holdout=np.zeros(count),
        group=("treatment",) * count,
        learning_mode=("online",) * count,
        candidates=((),) * count,
        metrics={"answer": happened},
        reward=happened,
        history=History(np.zeros(0, dtype=np.int64), nothing, {"answer": nothing}, nothing, nothing, nothing > 0),
        timing=Timing(
            age=np.minimum(age, rules.maturity),
            maturity=rules.maturity,
            arrivals={"answer": Arrivals(came, log.delay[came])},
            lags={},
        ),
    )


def trained(arm: str, log: Log, rules: LoopDefinition, now: float) -> RewardModel:
    """One way of training on the rows that were sent before ``now``."""
    past = log.part(log.sent < now)
    known = training_set(past, rules, now)
    if arm == "truth":
        return fit(replace(known, reward=np.isfinite(past.delay).astype(np.float64)), rules.model)
    if arm == "waiting":
        return fit(known.subset(known.mature), rules.model)
    if arm == "ours":
        return fit(foresee(known, fit_delays(known, rules), rules), rules.model)
    if arm == "law known":
        final = training_set(past, rules, np.inf)
        return fit(foresee(known, fit_delays(final, rules), rules), rules.model)
    return fit(known, rules.model)


def score(log: Log, later: Log, rules: LoopDefinition, now: float, known: dict[str, Floats]) -> Scored:
    """The next day by every way of training; ``known``: what some of them promised already."""
    contents = [later.contents[index] for index in later.content]
    promised = known | {
        arm: trained(arm, log, rules, now).rows(later.contexts, contents) for arm in ARMS if arm not in known
    }
    return Scored(np.isfinite(later.delay).astype(np.float64), later.unit, promised)


# The simulator's worlds

WINDOW, TYPICAL = 14, 5 * DAY
"""Days an answer counts, and the usual delay: as with coupons, of the order of the age of the contents."""


def _exponential(rng: np.random.Generator, content: Ints, mobile: npt.NDArray[np.bool_]) -> Floats:
    return rng.exponential(TYPICAL, len(content))


def _heavy(rng: np.random.Generator, content: Ints, mobile: npt.NDArray[np.bool_]) -> Floats:
    return np.asarray(TYPICAL / 2 * np.exp(2.0 * rng.standard_normal(len(content))))


def _by_content(rng: np.random.Generator, content: Ints, mobile: npt.NDArray[np.bool_]) -> Floats:
    mean = TYPICAL * np.exp(0.7 * np.random.default_rng(5).standard_normal(content.max() + 1))
    return np.asarray(mean[content] * rng.exponential(1.0, len(content)))


def _two_waves(rng: np.random.Generator, content: Ints, mobile: npt.NDArray[np.bool_]) -> Floats:
    quick = np.random.default_rng(6).uniform(0.1, 0.9, content.max() + 1)
    at_once = 3 * HOUR * np.exp(rng.standard_normal(len(content)))
    pay_day = rng.gamma(20.0, 7 * DAY / 20.0, len(content))
    return np.where(rng.random(len(content)) < quick[content], at_once, pay_day)


def _by_customer(rng: np.random.Generator, content: Ints, mobile: npt.NDArray[np.bool_]) -> Floats:
    scale = TYPICAL * np.exp(0.7 * np.random.default_rng(7).standard_normal(content.max() + 1))
    return np.asarray(scale[content] * np.where(mobile, 0.5, 2.0) * rng.weibull(0.7, len(content)))


LAWS: dict[str, Draw] = {
    "exponential": _exponential,
    "heavy tail": _heavy,
    "by content": _by_content,
    "two waves by content": _two_waves,
    "by content and customer": _by_customer,
    FRESH: _by_content,
}


def world(law: str, seed: int) -> tuple[Log, Log, float]:
    """A month of decisions, the next day's, and the evening between. The same seed has the same customers, contents and
    final outcomes under every law."""
    rng = np.random.default_rng(seed)
    contents = tuple(
        Content(
            content_id=f"k{campaign}-{number}",
            campaign_id=f"c{campaign}",
            slots={"subject": draft.subject},
            features=dict(draft.factors),
        )
        for campaign in range(CAMPAIGNS)
        for number, draft in enumerate(write_drafts("the collection", CONTENTS, 1_000 * seed + campaign))
    )
    starts = rng.uniform(0, DAYS if law == FRESH else LAST_START, len(contents))
    starts[::CONTENTS] = 0.0
    evening = float(DAYS * DAY)
    sent = np.sort(rng.uniform(0, evening, DAYS * PER_DAY))
    log = _answered(World(seed=seed, bots=0.0), rng, law, contents, starts, sent)
    return log, _answered(World(seed=seed, bots=0.0), rng, law, contents, starts, np.full(NEXT_DAY, evening)), evening


def _answered(
    truth: World, rng: np.random.Generator, law: str, contents: tuple[Content, ...], starts: Floats, sent: Floats
) -> Log:
    customers = draw_customers(truth, rng, len(sent))
    live = starts[None, :] * DAY <= sent[:, None]
    content = np.array(np.argmax(live * rng.random(live.shape), axis=1), dtype=np.int64)
    rates = true_values(truth, customers, [dict(one.features) for one in contents]).click
    happens = rng.random(len(sent)) < rates[np.arange(len(sent)), content]
    mobile = np.array([customer.device == "mobile" for customer in customers])
    late = np.random.default_rng([truth.seed, len(sent)])
    delay = LAWS[law](late, content, mobile)
    while (over := delay >= WINDOW * DAY).any():
        delay[over] = LAWS[law](late, content, mobile)[over]
    contexts, unit = tuple(one.context for one in customers), tuple(one.customer_id for one in customers)
    return Log(contents, content, contexts, unit, sent, np.where(happens, delay, np.inf))


def of_world(seed: int) -> dict[str, Scored]:
    """Every law in one world. What does not depend on the law is trained once."""
    found: dict[str, Scored] = {}
    same: dict[str, Floats] = {}
    for law in LAWS:
        log, later, evening = world(law, seed)
        known = {} if law == FRESH else same
        found[law] = score(log, later, rules_of(WINDOW), evening, known)
        same = known or {arm: found[law].promised[arm] for arm in ("waiting", "truth")}
    return found


# Complete Journey

REDEEM_WITHIN, SPREAD, NEXT = 75, 28, 7
"""Days: window of a redemption, of a mailing, and of the decisions that are scored."""


def journey(seed: int) -> Log:
    """Sends of coupon campaigns to households, spread over the weeks after the campaign's start, with redemptions."""
    folder = real_data() / "complete_journey"
    sends = pd.read_csv(folder / "campaigns.csv.gz").merge(
        pd.read_csv(folder / "campaign_descriptions.csv.gz", parse_dates=["start_date"])
    )
    redeemed = pd.read_csv(folder / "coupon_redemptions.csv.gz", parse_dates=["redemption_date"])
    first = redeemed.groupby(["household_id", "campaign_id"], as_index=False)["redemption_date"].min()
    people = pd.read_csv(folder / "demographics.csv.gz")
    rows = sends.merge(first, how="left").merge(people, how="left", on="household_id")
    rng = np.random.default_rng(seed)
    start = (rows["start_date"] - pd.Timestamp("2017-01-01")).dt.days.to_numpy(np.float64)
    delay = (rows["redemption_date"] - rows["start_date"]).dt.days.to_numpy(np.float64) + rng.random(len(rows))
    kinds = rows.drop_duplicates("campaign_id").sort_values("campaign_id")
    contents = tuple(
        Content(content_id=f"k{one.campaign_id}", campaign_id=f"c{one.campaign_id}", slots={}, features={"kind": kind})
        for one, kind in zip(kinds.itertuples(), kinds["campaign_type"], strict=True)
    )
    place = {content.content_id: index for index, content in enumerate(contents)}
    return Log(
        contents=contents,
        content=np.array([place[f"k{campaign}"] for campaign in rows["campaign_id"]], dtype=np.int64),
        contexts=tuple(_households(rows, start)),
        unit=tuple(rows["household_id"].astype(str)),
        sent=(start + rng.uniform(0, SPREAD, len(rows))) * DAY,
        delay=np.where(delay < REDEEM_WITHIN, delay, np.inf) * DAY,
    )


def _households(rows: pd.DataFrame, start: Floats) -> Iterator[dict[str, Any]]:
    """Who they are, where it is known, and what they bought in the eight weeks before the campaign (a sample)."""
    bought = pd.read_csv(real_data() / "complete_journey" / "transactions_sample.csv.gz")
    day = pd.to_datetime(bought["transaction_timestamp"]).dt.day_of_year.to_numpy()
    days = {household: day[index] for household, index in bought.groupby("household_id").indices.items()}
    names = ["age", "income", "household_size", "kids_count"]
    for person, household, begun in zip(
        rows[names].to_dict("records"), rows["household_id"], start.tolist(), strict=True
    ):
        lately = days.get(household, np.zeros(0))
        context = {name: value for name, value in person.items() if isinstance(value, str)}
        yield context | {"bought": int(((lately < begun) & (lately >= begun - 56)).sum())}


def of_journey(seed: int) -> list[Scored]:
    """Every evening of one spreading of the mailings."""
    log, found = journey(seed), []
    for evening in EVENINGS:
        now = float(evening * DAY)
        later = log.part((log.sent >= now) & (log.sent < now + NEXT * DAY))
        if len(later.sent) and np.isfinite(later.delay).any():
            found.append(score(log, later, rules_of(REDEEM_WITHIN), now, {}))
    return found


# Money behind clicks


def of_shop(seed: int) -> tuple[float, float, float]:
    """True revenue per decision of the content that the model likes best: plain, with hurdles, and the best there is."""
    rng, truth = np.random.default_rng(seed), World(seed=seed, bots=0.0)
    drafts = write_drafts("the collection", 12, seed)
    contents = [
        Content(content_id=f"k{n}", campaign_id="c", slots={"subject": draft.subject}, features=dict(draft.factors))
        for n, draft in enumerate(drafts)
    ]
    rules = parse_definition(
        {
            "loop": "money",
            "metrics": [
                {"name": "click", "event": "click", "window": "2d"},
                {"name": "revenue", "event": "purchase", "aggregate": "sum", "window": "2d", "currency": "EUR"},
            ],
            "reward": {"revenue": 1.0},
        }
    )
    customers = draw_customers(truth, rng, 8_000 if QUICK else 16_000)
    content = rng.integers(0, len(contents), len(customers))
    features = [dict(one.features) for one in contents]
    answers = [respond(truth, rng, who, features[shown], 0) for who, shown in zip(customers, content, strict=True)]
    revenue = np.array([answer.value if answer.refunded_at is None else 0.0 for answer in answers])
    clicked = np.array([float(bool(answer.clicks)) for answer in answers])
    log = Log(
        tuple(contents),
        content,
        tuple(who.context for who in customers),
        tuple(who.customer_id for who in customers),
        np.zeros(len(content)),
        np.full(len(content), np.inf),
    )
    plain = replace(
        training_set(log, rules, np.inf), metrics={"click": clicked, "revenue": revenue}, reward=revenue, timing=None
    )
    others = draw_customers(truth, rng, 2_000, prefix="later")
    worth = true_values(truth, others, features).revenue
    earned = []
    for training in (plain, foresee(plain, fit_delays(plain, rules), rules)):
        best = fit(training, rules.model).grid([who.context for who in others], contents).argmax(axis=1)
        earned.append(float(worth[np.arange(len(others)), best].mean()))
    return earned[0], earned[1], float(worth.max(axis=1).mean())


# What it shows


@dataclass(frozen=True)
class Finding:
    """One setting and metric: the mean of each arm, gap and gain over ignoring with intervals, and the share closed."""

    setting: str
    metric: str
    means: dict[str, float]
    gap: tuple[float, float]
    gain: tuple[float, float]
    closed: float
    closed_between: tuple[float, float]
    ceiling: float
    """The share closed by one who knows the law."""

    @property
    def counts(self) -> bool:
        """Whether lateness costs anything here."""
        return self.gap[0] > 0.0


def findings(setting: str, repeats: Sequence[dict[str, Floats]], drawn: int) -> list[Finding]:
    """``repeats``: by metric the arms' values, (arms,), of the whole and then of every bootstrap sample of it, in which
    ``drawn`` things were drawn."""
    found = []
    for metric, (_, sign, _) in METRICS.items():
        values = np.array([repeat[metric] for repeat in repeats])
        gain, gap = sign * (values[:, 2] - values[:, 0]), sign * (values[:, 3] - values[:, 0])
        closed = gain / np.where(gap == 0.0, np.nan, gap)
        found.append(
            Finding(
                setting,
                metric,
                dict(zip(ARMS, values[0].tolist(), strict=True)),
                _interval(gap, drawn),
                _interval(gain, drawn),
                float(closed[0]),
                (float(np.nanquantile(closed[1:], 0.025)), float(np.nanquantile(closed[1:], 0.975))),
                float((values[0, 4] - values[0, 0]) / (values[0, 3] - values[0, 0])),
            )
        )
    return found


def by_worlds(scored: Sequence[Scored]) -> list[dict[str, Floats]]:
    """Metrics of each world, averaged: over all, then over worlds drawn with replacement."""
    rng = np.random.default_rng(0)
    each = {metric: np.array([_arms(one, metric) for one in scored]) for metric in METRICS}
    draws = [np.arange(len(scored)), *rng.integers(0, len(scored), (BOOTSTRAPS, len(scored)))]
    return [{metric: values[draw].mean(axis=0) for metric, values in each.items()} for draw in draws]


def by_households(scored: Sequence[Scored]) -> list[dict[str, Floats]]:
    """Metrics of all decisions together: of everybody, then of households drawn with replacement."""
    rng = np.random.default_rng(0)
    promised = {arm: np.concatenate([one.promised[arm] for one in scored]) for arm in ARMS}
    happened = np.concatenate([one.happened for one in scored])
    unit = np.concatenate([one.unit for one in scored])
    rows = [np.flatnonzero(unit == name) for name in np.unique(unit)]
    picked = rng.integers(0, len(rows), (BOOTSTRAPS, len(rows)))
    draws = [np.arange(len(unit)), *(np.concatenate([rows[place] for place in draw]) for draw in picked)]
    drawn = (Scored(happened[d], (), {arm: values[d] for arm, values in promised.items()}) for d in draws)
    return [{metric: _arms(one, metric) for metric in METRICS} for one in drawn]


def _arms(one: Scored, metric: str) -> Floats:
    return np.array([METRICS[metric][0](one.happened, one.promised[arm]) for arm in ARMS])


def _interval(values: Floats, drawn: int) -> tuple[float, float]:
    """Student's interval of the first with the spread of the bootstrap: honest with few worlds, too."""
    reach = float(student.ppf(0.975, drawn - 1)) * float(values[1:].std()) * (drawn / (drawn - 1)) ** 0.5
    return float(values[0]) - reach, float(values[0]) + reach


def goals(found: Sequence[Finding]) -> Iterator[Goal]:
    """Of the settings where lateness costs anything; contents that are hours old are shown, not counted."""
    counted = [one for one in found if one.setting != FRESH]
    for metric, (_, _, share) in METRICS.items():
        closed = [one.closed for one in counted if one.metric == metric and one.counts]
        if closed:
            yield Goal(f"gap closed, {metric}, mean of {len(closed)} settings", float(np.mean(closed)), f">= {share}")
    yield Goal("settings and metrics worse than ignoring", float(sum(one.gain[1] < 0.0 for one in found)), "<= 0")


def show(found: Sequence[Finding]) -> None:
    """The table for people."""
    table = Table(title="what lateness costs, and how much of it is won back (intervals of 95 %)")
    for column in ("setting", "metric", *ARMS, "gap", "gain", "closed", "ceiling"):
        table.add_column(column)
    for one in found:
        closed = (
            f"{one.closed:.2f} [{one.closed_between[0]:.2f}, {one.closed_between[1]:.2f}]" if one.counts else "no gap"
        )
        means = [f"{one.means[arm]:.4f}" for arm in ARMS]
        ranges = [f"[{low:+.4f}, {high:+.4f}]" for low, high in (one.gap, one.gain)]
        table.add_row(one.setting, one.metric, *means, *ranges, closed, f"{one.ceiling:.2f}")
    Console(width=180).print(table)


def _run(pool: Executor, bar: Progress, name: str, work: Callable[[int], Result], count: int) -> list[Result]:
    """Results of ``count`` seeds, in order."""
    return list(bar.track(pool.map(work, range(SEED, SEED + count)), total=count, description=name))


def main() -> None:
    """Run all of it."""
    real = (real_data() / "complete_journey").exists()
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress(console=Console(stderr=True)) as bar:
        worlds = _run(pool, bar, "worlds", of_world, WORLDS)
        journeys = [one for replay in _run(pool, bar, "journeys", of_journey, REPLAYS * real) for one in replay]
        shops = _run(pool, bar, "shops", of_shop, SHOPS)
    found = [one for law in LAWS for one in findings(law, by_worlds([world[law] for world in worlds]), WORLDS)]
    if real:
        households = len({unit for one in journeys for unit in one.unit})
        found += findings("Complete Journey", by_households(journeys), households)
    else:
        print("Complete Journey is not here; skipped (see REWARDLOOP_DATA)")
    show(found)
    money = np.array(shops)
    more = (money[:, 1] - money[:, 0]) / money[:, 0]
    spread = float(student.ppf(0.975, SHOPS - 1)) * float(more.std(ddof=1)) / SHOPS**0.5
    gained = float(more.mean())
    hurdle = Goal("revenue with hurdles over plain, paired gain", gained, ">= 0", (gained - spread, gained + spread))
    finish(
        "delays",
        [*goals(found), hurdle],
        {
            "settings": [asdict(one) for one in found],
            "revenue of the best there is, over plain": float(money[:, 2].mean() / money[:, 0].mean() - 1.0),
        },
    )


if __name__ == "__main__":
    main()
