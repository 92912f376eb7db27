"""Choosing a prompt for each question from logs alone, on questions whose template was never seen (Prompt-OIRL, MAWPS).

1. folds of templates, five, by three seeds that were used for nothing else; every answer counts the same
2. per fold: ``choosing.learn`` on the others, certificate included, so by inner folds of the training part only
3. the choice for the fold's questions against the best fixed prompt *of the training part*, paired, 95 % bootstrap intervals over
   templates; the three seeds' differences are averaged per template first
4. beside it, by the same models: every choice that is clear, without a certificate; every choice that seems better at all; and
   LightGBM per prompt on the same columns, the highest prediction, as Prompt-OIRL has it
5. the noise ceiling, from repeated answers (``evaluation.ceiling``)

The published split leaks (every test question is in its training part), so its figure is a footnote. What could be chosen (rank of the
text's columns, probability that is called clear) was settled on half of the templates, with other seeds.

REWARDLOOP_BENCH_QUICK=1: one seed, its first fold.
"""

import os
from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reward_models.clusters import mean_of
from reward_models.prompts.choosing import learn
from reward_models.prompts.evaluation import FOLDS, Ceiling, Values, ceiling, compared, deal_groups, joined, picks
from reward_models.prompts.features import QueryView
from reward_models.prompts.logs import PromptLog
from reward_models.prompts.model import PromptModel, fit_prompts
from reward_models.ranking import Measured
from tests.benchmarks.harness import Goal, finish
from tests.benchmarks.prompt_oirl import load_answers

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
SEEDS = (31,) if QUICK else (31, 32, 33)
OURS, CLEAR, ANY, TREES = "Rewardloop", "without a certificate", "whatever seems better", "LightGBM per prompt"


def main() -> None:
    """Run the benchmark."""
    log = load_answers()
    parts: dict[str, list[Values]] = {name: [] for name in (OURS, CLEAR, ANY, TREES)}
    proven = 0
    work = [(seed, fold) for seed in SEEDS for fold in range(1 if QUICK else FOLDS)]
    for seed, fold in track(work, "fold by fold", console=Console(stderr=True)):
        asked = deal_groups(log, seed) == fold
        found, was_proven = _judge(log, asked)
        proven += was_proven
        for name, values in found.items():
            parts[name].append(values)
    gains = {name: _gain(joined(values)) for name, values in parts.items()}
    fixed = joined(parts[OURS])
    level = float(np.average(fixed.fixed, weights=fixed.answers))
    acted = {name: float(np.average(joined(values).acted, weights=fixed.answers)) for name, values in parts.items()}
    limit = ceiling(log)
    leaky = _published()
    _print(gains, acted, level, limit, leaky)
    ours = gains[OURS]
    goal = (round(100 * ours.low, 3), round(100 * ours.high, 3))
    finish(
        "prompts",
        [
            Goal("points of accuracy over the best fixed prompt", round(100 * ours.value, 3), ">= 1.0", goal),
            Goal("never worse than the best fixed prompt, points", round(100 * ours.value, 3), ">= 0.0", goal),
        ],
        {
            "best fixed": round(level, 4),
            "points over best fixed": {name: _points(found) for name, found in gains.items()},
            "share acted on": {name: round(share, 4) for name, share in acted.items()},
            "folds with a certificate": [proven, len(work)],
            "questions": len(log.queries),
            "templates": len(np.unique(log.group)),
            "ceiling": None if limit is None else {name: round(value, 4) for name, value in vars(limit).items()},
            "footnote: the published split, which leaks": _points(leaky),
        },
    )


def _judge(log: PromptLog, asked: Mask) -> tuple[dict[str, Values], bool]:
    """What each way of choosing is worth for the queries under the mask, and whether choosing was proven before."""
    training = log.part(~asked[log.query])
    recommender = learn(training)
    model = recommender.model
    where = np.flatnonzero(asked)
    advantage = model.advantage([log.queries[query] for query in where])
    clear = picks(advantage, model.fixed, recommender.clear)
    chosen = {
        OURS: clear if recommender.proven else np.full(len(where), model.fixed),
        CLEAR: clear,
        ANY: picks(advantage, model.fixed, 0.5),
        TREES: _trees(training, model.view, [log.queries[query] for query in where]),
    }
    return {name: compared(log, model, where, pick) for name, pick in chosen.items()}, recommender.proven


def _trees(training: PromptLog, view: QueryView, asked: list[str]) -> Ints:
    """The prompt whose booster predicts most."""
    used = np.unique(training.query)
    columns = np.zeros((len(training.queries), view.rank))
    columns[used] = view.of([training.queries[query] for query in used])
    options = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "verbosity": -1, "num_threads": 1}
    X, predicted = view.of(asked), []
    for prompt in range(len(training.prompts)):
        own = training.prompt == prompt
        data = lgb.Dataset(columns[training.query[own]], label=training.reward[own])
        predicted.append(lgb.train(options, data, 100).predict(X, num_threads=1))
    return np.asarray(np.stack(predicted, axis=1).argmax(axis=1), dtype=np.int64)


def _gain(values: Values) -> Measured:
    """Mean difference per answer; a template's answers in all seeds are one group."""
    times = np.maximum(np.rint(values.answers), 1).astype(np.int64)
    return mean_of(np.repeat(values.gain, times), np.repeat(values.group, times))


def _published() -> Measured:
    """Learned on the published training split, chosen for its test split without caution, valued by its answers."""
    both = load_answers()
    test = _as_of(both, load_answers("test"))
    model: PromptModel = fit_prompts(_as_of(both, load_answers("train")))
    used = np.unique(test.query)
    chosen = picks(model.advantage([test.queries[query] for query in used]), model.fixed, 0.5)
    return _gain(compared(test, model, used, chosen))


def _as_of(whole: PromptLog, part: PromptLog) -> PromptLog:
    """The part with the numbers of queries and groups that the whole has."""
    place = {query: number for number, query in enumerate(whole.queries)}
    of = np.array([place[query] for query in part.queries])
    return PromptLog(whole.queries, whole.group, whole.prompts, of[part.query], part.prompt, part.reward)


def _print(
    gains: Mapping[str, Measured], acted: Mapping[str, float], level: float, limit: Ceiling | None, leaky: Measured
) -> None:
    table = Table(
        "chosen by", "points over best fixed", "95 %", "acted on", title=f"Best fixed prompt: {level:.2%} right"
    )
    for name, found in gains.items():
        span = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        table.add_row(name, f"{100 * found.value:+.2f}", span, f"{acted[name]:.1%}")
    if limit is not None:
        table.add_row("who saw the question's other answers", f"{100 * limit.seen:+.2f}", "", "")
        table.add_row("who knew every probability", f"{100 * limit.knowing:+.2f}", "", "")
    Console().print(table)
    Console().print(
        f"Two answers to one question and prompt differ in {limit.disagree:.1%} of pairs. " if limit else "",
        f"The published split, which leaks: {100 * leaky.value:+.2f} points.",
    )


def _points(found: Measured) -> list[float]:
    return [round(100 * value, 3) for value in (found.value, found.low, found.high)]
