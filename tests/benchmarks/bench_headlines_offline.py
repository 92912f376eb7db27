"""Ranking headlines nobody has sent yet: held-out Upworthy tests, and the archive's clear pairs.

1. arms: rows of a test with the same headline pooled; folds of components of test and headline, five
2. trained by ``boosted.fit`` as it is used for customers, with default settings; predicted by ``RewardModel.rows``
   - tests: trained on trusted tests, judged on trusted tests, 2,053 of them
   - pairs: trained on the whole archive, judged on the 1,459 published pairs. They were kept because they are clear
     (|z| ≥ 3.1 nearly all), so their accuracy says nothing about tests in general
3. beside it, on the same folds and rows: logistic regression on TF-IDF differences of all pairs within a test
   (Bradley and Terry 1952, C = 1), and LightGBM on 200 latent topics (SVD) of the same TF-IDF
4. ``ranking.measure`` and ``ranking.difference``: 95 % bootstrap intervals over components, differences paired

The ceiling: whoever knew every true rate would still miss, because observed winners are partly luck. It is simulated
from the spread within tests and the counts (Poisson). Default settings were chosen on the tests of the weeks with
faulty randomisation (``text.py``), which the first part neither trains on nor judges; a quarter of the clear pairs lies
in them.

REWARDLOOP_BENCH_QUICK=1 judges the first fold only, and fits the models that predict it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.sparse import csr_array, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ingestion.loops import ModelSettings
from reward_models.boosted import fit
from reward_models.folds import deal
from reward_models.ranking import Measured, Pooled, Ranking, difference, measure
from reward_models.text import spread_between
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.upworthy import Archive, Pairs, load_archive, load_pairs

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
FOLDS = 5
FOLD_SEED = 7
DRAWS = 2_000
OURS, REGRESSION, TOPICS = "Rewardloop", "TF-IDF logistic regression", "LightGBM on SVD"

Predict = Callable[[Archive, Mask, Mask], Floats]
"""Archive, arms to learn from, arms to predict → a score of each of the latter."""


@dataclass(frozen=True)
class Clear:
    """How the clear pairs were told apart."""

    accuracy: Measured
    auc: Measured


def main() -> None:
    """Run the benchmark."""
    whole = load_archive(trusted_only=False)
    trusted, pairs = load_archive(), load_pairs(whole)
    learners: Mapping[str, Predict] = {OURS: _ours, REGRESSION: _regression, TOPICS: _topics}
    tested, on_trusted = _cross_fit("tests", trusted, learners)
    shown, on_whole = _cross_fit("pairs", whole, learners)
    pooled = _pooled(trusted.part(tested))
    rankings = {name: measure(pooled, scores[tested], len(trusted), 0) for name, scores in on_trusted.items()}
    ahead = {name: difference(pooled, on_trusted[OURS][tested], on_trusted[name][tested]) for name in learners}
    wide = whole.trusted & shown
    more = measure(_pooled(whole.part(wide)), on_whole[OURS][wide], len(whole), 0)
    clear = {name: _clear(whole, pairs, shown, scores) for name, scores in on_whole.items()}
    ceiling = _ceiling(trusted.part(tested), pooled)
    _print_tests(rankings, ahead, more, ceiling)
    _print_pairs(clear)
    ours, chance = rankings[OURS], rankings[OURS].chance
    finish(
        "headlines-offline",
        [
            _goal("best headline picked, times chance", ours.pick_best, ">= 1.5", 1 / chance),
            _goal("pairs within a test ordered rightly", ours.pairs, ">= 0.62"),
            _goal("clear pairs: accuracy", clear[OURS].accuracy, ">= 0.79"),
            _goal("clear pairs: area under the curve", clear[OURS].auc, ">= 0.87"),
        ],
        {
            "tests": ours.campaigns,
            "clear pairs": int(shown[pairs.first].sum()),
            "chance": chance,
            "ceiling": ceiling,
            "within tests": {name: _figures(found) for name, found in rankings.items()},
            "within tests, trained on the faulty weeks too": _figures(more),
            "clear": {
                name: {"accuracy": found.accuracy.value, "auc": found.auc.value} for name, found in clear.items()
            },
            "pairs ahead of": {name: _interval(found[1]) for name, found in ahead.items() if name != OURS},
        },
    )


def _cross_fit(name: str, archive: Archive, learners: Mapping[str, Predict]) -> tuple[Mask, dict[str, Floats]]:
    """Arms that were judged, and each learner's scores by models that saw nothing of an arm's component."""
    folds = deal(archive.component, FOLDS, FOLD_SEED)
    judged = folds == 0 if QUICK else np.ones(len(archive), dtype=np.bool_)
    scores = {learner: np.full(len(archive), np.nan) for learner in learners}
    work = [(learner, fold) for fold in np.unique(folds[judged]) for learner in learners]
    for learner, fold in track(work, f"{name}, fold by fold", console=Console(stderr=True)):
        inside = folds == fold
        scores[learner][inside] = learners[learner](archive, ~inside, inside)
    return judged, scores


def _ours(archive: Archive, known: Mask, asked: Mask) -> Floats:
    model = fit(archive.training(known), ModelSettings())
    contents = list(archive.contents[asked])
    return model.rows([{}] * len(contents), contents)


def _regression(archive: Archive, known: Mask, asked: Mask) -> Floats:
    """P(first beats second) = logistic((x₁ − x₂)·w), over all pairs of headlines of one test with different rates."""
    terms, X = _tfidf(archive, known)
    rate = archive.clicks[known] / archive.impressions[known]
    first, second = _all_pairs(archive.test[known])
    differ = rate[first] != rate[second]
    first, second = first[differ], second[differ]
    model = LogisticRegression(C=1.0, fit_intercept=False, solver="liblinear", max_iter=200)
    model.fit(X[first] - X[second], rate[first] > rate[second])
    return np.asarray(terms(asked) @ model.coef_[0])


def _topics(archive: Archive, known: Mask, asked: Mask) -> Floats:
    """Rate relative to the test's, from the 200 strongest latent topics; arms weigh as their expected clicks."""
    terms, X = _tfidf(archive, known)
    svd = TruncatedSVD(200, random_state=0).fit(X)
    clicks, shown, test = archive.clicks[known], archive.impressions[known], archive.test[known]
    mean = (np.bincount(test, clicks) / np.bincount(test, shown).clip(1.0))[test]
    options = {"learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 50, "verbosity": -1, "num_threads": 1}
    data = lgb.Dataset(svd.transform(X), label=clicks / shown / mean.clip(1e-6) - 1.0, weight=shown * mean)
    return np.asarray(lgb.train(options, data, 150).predict(svd.transform(terms(asked)), num_threads=1))


def _tfidf(archive: Archive, known: Mask) -> tuple[Callable[[Mask], csr_array], csr_array]:
    """Words (1–2) and characters inside words (2–5): the transformation of other arms, and the known arms."""
    headlines = np.array([content.slots["headline"] for content in archive.contents], dtype=np.object_)
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True)
    X = csr_array(hstack([words.fit_transform(headlines[known]), pieces.fit_transform(headlines[known])]))

    def transformed(asked: Mask) -> csr_array:
        return csr_array(hstack([words.transform(headlines[asked]), pieces.transform(headlines[asked])]))

    return transformed, X


def _all_pairs(test: Ints) -> tuple[Ints, Ints]:
    """Each pair of arms of one test, once; arms of a test stand together."""
    starts, sizes = np.unique(test, return_index=True, return_counts=True)[1:]
    found = [np.triu_indices(size, 1) for size in sizes]
    first, second = (
        np.concatenate([start + pair[side] for start, pair in zip(starts, found, strict=True)]) for side in (0, 1)
    )
    return first, second


def _pooled(archive: Archive) -> Pooled:
    every = np.arange(len(archive))
    return Pooled(every, archive.test, archive.component, archive.clicks / archive.impressions, every)


def _clear(archive: Archive, pairs: Pairs, judged: Mask, scores: Floats) -> Clear:
    kept = judged[pairs.first]
    margin = scores[pairs.first[kept]] - scores[pairs.second[kept]]
    won, component = pairs.first_won[kept], archive.component[pairs.first[kept]]
    right = np.where(margin == 0, 0.5, (margin > 0) == won)
    return Clear(
        _bootstrapped(component, lambda rows: float(right[rows].mean())),
        _bootstrapped(component, lambda rows: float(roc_auc_score(won[rows], margin[rows]))),
    )


def _bootstrapped(component: Ints, value: Callable[[Ints], float]) -> Measured:
    """Percentile interval over components; a component's pairs are drawn together."""
    random = np.random.default_rng(2013)
    members = [np.flatnonzero(component == each) for each in np.unique(component)]
    drawn = [
        value(np.concatenate([members[pick] for pick in random.integers(0, len(members), len(members))]))
        for _ in range(DRAWS // 4)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(value(np.arange(len(component))), float(low), float(high))


def _ceiling(archive: Archive, pooled: Pooled) -> dict[str, float]:
    """What knowing every true rate would give, were they normal about their test's mean with the spread found."""
    shown, test = archive.impressions, archive.test
    mean = (np.bincount(test, archive.clicks) / np.bincount(test, shown))[test].clip(1e-6)
    spread = spread_between(test, archive.clicks / shown / mean - 1.0, 1.0 / (shown * mean))
    random = np.random.default_rng(2014)
    true = np.maximum(random.normal(1.0, spread, len(archive)), 0.05) * mean
    seen = Pooled(pooled.content, test, pooled.component, random.poisson(true * shown) / shown, pooled.rows)
    found = measure(seen, true, len(archive), 0)
    return {
        "spread within tests": spread,
        "times chance": found.pick_best.value / found.chance,
        "pairs": found.pairs.value,
        "gain": found.gain.value,
    }


def _print_tests(
    rankings: Mapping[str, Ranking],
    ahead: Mapping[str, tuple[Measured, Measured]],
    more: Ranking,
    ceiling: Mapping[str, float],
) -> None:
    names = ("within tests", "picked, × chance", "pairs right", "95 %", "clicks gained", "Rewardloop's pairs ahead by")
    table = Table(*names, title="Held-out trusted tests")
    for name, found in {**rankings, "Rewardloop, trained on the faulty weeks too": more}.items():
        lead = ahead[name][1] if name in ahead else None
        table.add_row(
            name,
            f"{found.pick_best.value / found.chance:.2f}",
            f"{found.pairs.value:.3f}",
            f"{found.pairs.low:.3f} to {found.pairs.high:.3f}",
            f"{found.gain.value:+.1%}",
            "" if lead is None or name == OURS else f"{lead.value:+.3f} ({lead.low:+.3f} to {lead.high:+.3f})",
        )
    limit = (f"{ceiling['times chance']:.2f}", f"{ceiling['pairs']:.3f}", "", f"{ceiling['gain']:+.1%}", "")
    table.add_row("who knew every true rate", *limit)
    Console().print(table)


def _print_pairs(clear: Mapping[str, Clear]) -> None:
    table = Table("clear pairs", "accuracy", "95 %", "area under the curve", "95 %", title="Published winner pairs")
    for name, found in clear.items():
        cells = ((each.value, f"{each.low:.3f} to {each.high:.3f}") for each in (found.accuracy, found.auc))
        table.add_row(name, *(part for value, interval in cells for part in (f"{value:.3f}", interval)))
    Console().print(table)


def _goal(name: str, found: Measured, goal: str, unit: float = 1.0) -> Goal:
    low, high = (round(edge * unit, 4) for edge in (found.low, found.high))
    return Goal(name, round(found.value * unit, 4), goal, (low, high))


def _figures(found: Ranking) -> dict[str, Any]:
    return {
        "times chance": found.pick_best.value / found.chance,
        "pairs": found.pairs.value,
        "gain": _interval(found.gain),
    }


def _interval(found: Measured) -> list[float]:
    return [round(value, 4) for value in (found.value, found.low, found.high)]
