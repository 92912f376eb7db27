"""Which of two headlines readers prefer, on headlines whose tests were never seen: the stack that any file of pairs is given.

1. pairs of trusted Upworthy tests whose click rates differ with |z| ≥ 1.96: readers' noisy preference, as people's is
2. beside it the archive's published pairs of trusted tests (|z| ≥ 3.1 nearly all)
3. folds by component of test and headline; ``preferences.evaluation``: the stack, TF-IDF logistic regression, the longer one

Preferences of people over summaries or answers are not here; ``rewardloop preferences evaluate <file>`` is the same code. What of it does not
come from headlines is shown on made-up judges whose taste is known: one of longer, well-formed answers, one of words, one of neither.

Nothing was tuned on these pairs: strengths and rounds are those written down before they were looked at.

REWARDLOOP_BENCH_QUICK=1: a tenth of the components.
"""

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from reward_models.folds import codes_of, deal
from reward_models.preferences.evaluation import LONGER, OURS, WORDS, PairReport, evaluate
from reward_models.preferences.pairs import Pairs
from reward_models.ranking import Measured
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.judges import chat_answers
from tests.benchmarks.upworthy import Archive, load_archive, load_pairs

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEED = 11
CLEAR = 1.96
_SIDES = np.random.default_rng(5)


def main() -> None:
    """Run the benchmark."""
    archive = load_archive()
    published = load_pairs(archive)
    first, second = _differing(archive)
    headlines = "headlines, click rates clearly differ"
    sets = {
        headlines: _pairs(archive, first, second, _rates(archive)[first] > _rates(archive)[second]),
        "headlines, published pairs": _pairs(archive, published.first, published.second, published.first_won),
        "made-up answers, judged by form and words": chat_answers(300 if QUICK else 1_500, 3),
    }
    reports = {}
    for name, pairs in sets.items():
        Console(stderr=True).print(f"{name}: {len(pairs):,} pairs")
        reports[name] = evaluate(_tenth(pairs) if QUICK and "headlines" in name else pairs, SEED)
    _print(reports)
    ahead = {name: report.judged[LONGER].ahead for name, report in reports.items()}
    finish(
        "preferences",
        [
            *(
                _goal(f"{name}: accuracy over the longer one's, lower edge", found)
                for name, found in ahead.items()
                if found is not None
            ),
            _ours("published pairs: accuracy", reports["headlines, published pairs"], ">= 0.79"),
        ],
        {name: _figures(report) for name, report in reports.items()},
    )


def _differing(archive: Archive) -> tuple[Ints, Ints]:
    """Pairs of arms of one test whose rates differ, each once, in a random order."""
    clicks, shown = archive.clicks, archive.impressions
    starts, sizes = np.unique(archive.test, return_index=True, return_counts=True)[1:]
    found = [np.triu_indices(size, 1) for size in sizes]
    first, second = (
        np.concatenate([start + pair[side] for start, pair in zip(starts, found, strict=True)]) for side in (0, 1)
    )
    pooled = (clicks[first] + clicks[second]) / (shown[first] + shown[second])
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / shown[first] + 1.0 / shown[second])).clip(1e-12)
    clear = np.abs(clicks[first] / shown[first] - clicks[second] / shown[second]) / error >= CLEAR
    first, second = first[clear], second[clear]
    swapped = _SIDES.random(len(first)) < 0.5
    return np.where(swapped, second, first), np.where(swapped, first, second)


def _rates(archive: Archive) -> npt.NDArray[np.float64]:
    return archive.clicks / archive.impressions


def _pairs(archive: Archive, first: Ints, second: Ints, won: Mask) -> Pairs:
    """With the archive's components as groups, as strict as folds of the other benchmarks."""
    texts = [content.slots["headline"] for content in archive.contents]
    return Pairs(tuple(texts[arm] for arm in first), tuple(texts[arm] for arm in second), won, archive.component[first])


def _tenth(pairs: Pairs) -> Pairs:
    return pairs.part(deal(codes_of(pairs.group.tolist()), 10, 1) == 0)


def _goal(name: str, found: Measured) -> Goal:
    return Goal(name, round(found.low, 4), ">= 0.0", (round(found.low, 4), round(found.high, 4)))


def _ours(name: str, report: PairReport, goal: str) -> Goal:
    found = report.judged[OURS].accuracy
    return Goal(name, round(found.value, 4), goal, (round(found.low, 4), round(found.high, 4)))


def _figures(report: PairReport) -> dict[str, object]:
    return {
        "pairs": report.pairs,
        "groups": report.groups,
        "weights": {name: round(weight, 3) for name, weight in report.weights.items()},
        **{
            name: {
                "accuracy": _interval(found.accuracy),
                "auc": round(found.auc, 4),
                "log-loss": None if found.log_loss is None else round(found.log_loss, 4),
                "ours ahead by": None if found.ahead is None else _interval(found.ahead),
            }
            for name, found in report.judged.items()
        },
    }


def _interval(found: Measured) -> list[float]:
    return [round(value, 4) for value in (found.value, found.low, found.high)]


def _print(reports: Mapping[str, PairReport]) -> None:
    for title, report in reports.items():
        table = Table(
            "judged by", "accuracy", "95 %", "area under the curve", "ours ahead by", title=f"{title}: {report.pairs:,}"
        )
        for name in (OURS, WORDS, LONGER):
            found = report.judged[name]
            lead = (
                ""
                if found.ahead is None
                else f"{found.ahead.value:+.3f} ({found.ahead.low:+.3f} to {found.ahead.high:+.3f})"
            )
            span = f"{found.accuracy.low:.3f} to {found.accuracy.high:.3f}"
            table.add_row(name, f"{found.accuracy.value:.3f}", span, f"{found.auc:.3f}", lead)
        Console().print(table)
