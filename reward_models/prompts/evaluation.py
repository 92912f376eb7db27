"""What choosing prompts per query is worth, on queries of groups that were not learned from.

1. groups of queries are dealt to ``FOLDS`` folds
2. per fold: fit on the others, choose for its queries, and value the choice against the best fixed prompt *of the others*
3. the value of prompt p for query q, whether or not the log tried it there (doubly robust):
       V_qp = m_qp + 1[tried] / π_p · (ȳ_qp − m_qp)         π_p: share of queries for which p was tried
   Where every prompt was tried for every query V is the observed mean and the comparison is paired. Else it needs that prompts were
   tried regardless of the query
4. the mean of V_q,chosen − V_q,fixed over answers, intervals over groups

The ceiling: whoever knew every query's own probabilities. From the covariance of prompts between queries, free of noise because products
of *different* answers to a query are taken; normal about the prompts' levels, simulated. No learner reaches it from words.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import EstimateRefused
from reward_models.clusters import mean_of
from reward_models.folds import codes_of, deal
from reward_models.prompts.features import QueryView
from reward_models.prompts.logs import PromptLog
from reward_models.prompts.model import Advantage, PromptModel, fit_prompts
from reward_models.ranking import Measured

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
CLEAR = 0.8
"""Probability of being better than the best fixed prompt from which another is taken."""
LEAST_GROUPS = 20
_WORLDS = 20_000


@dataclass(frozen=True)
class Values:
    """What an evaluation found of each query that has answers, shape (k,) each: differences in reward to the best fixed prompt."""

    query: Ints
    group: Ints
    answers: Floats
    """Answers to the best fixed prompt, or what there was of others per prompt: the weight of the query."""
    gain: Floats
    fixed: Floats
    """The value of the best fixed prompt."""
    acted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Gain:
    """Reward over the best fixed prompt. ``acted``: share of queries for which another was taken."""

    measured: Measured
    fixed: float
    acted: float
    queries: int
    groups: int


@dataclass(frozen=True)
class Ceiling:
    """``knowing``: gain over the best fixed prompt of whoever knew each query's own probabilities. ``seen``: of whoever saw the other
    answers to the same query. ``disagree``: share of pairs of answers to one query and prompt that differ."""

    knowing: float
    seen: float
    disagree: float


def picks(advantage: Advantage, fixed: int, clear: float) -> Ints:
    """The clearly better prompt with the highest expected reward for each query, else the best fixed one, shape (k,)."""
    better = (advantage.probability >= clear) & (advantage.mean > 0)
    best = np.where(better, advantage.mean, -np.inf).argmax(axis=1)
    return np.where(better.any(axis=1), best, fixed).astype(np.int64)


def cross_fit(log: PromptLog, seed: int, clear: float = CLEAR, view: QueryView | None = None) -> Gain:
    """Steps 1 to 4. ``view``: one for all folds; it knows the words of all queries, and the reward of none.

    Raises :class:`EstimateRefused` for fewer than ``LEAST_GROUPS`` groups of queries.
    """
    return gain_of(held_out(log, seed, clear, view))


def held_out(log: PromptLog, seed: int, clear: float = CLEAR, view: QueryView | None = None) -> Values:
    """Steps 1 to 3."""
    folds = deal_groups(log, seed)
    parts = [
        value(log, fit_prompts(log.part(folds[log.query] != fold), view), folds == fold, clear) for fold in range(FOLDS)
    ]
    return joined(parts)


def deal_groups(log: PromptLog, seed: int) -> Ints:
    """Fold of each query, shape (k,). Raises :class:`EstimateRefused` for too few groups."""
    if (groups := len(np.unique(log.group[np.unique(log.query)]))) < LEAST_GROUPS:
        raise EstimateRefused(f"{groups} groups of queries; judging a choice of prompts takes {LEAST_GROUPS} at least")
    return deal(codes_of(log.group.tolist()), FOLDS, seed)


def value(log: PromptLog, model: PromptModel, asked: npt.NDArray[np.bool_], clear: float) -> Values:
    """Step 3 for the queries under the mask, by a model that has not learned from their groups."""
    advantage, where = _advantage(log, model, asked)
    return compared(log, model, where, picks(advantage, model.fixed, clear))


def compared(log: PromptLog, model: PromptModel, where: Ints, chosen: Ints) -> Values:
    """A choice for the queries ``where`` against the model's best fixed prompt."""
    tried, mean = _cells(log)
    share = np.maximum((tried[np.unique(log.query)] > 0).mean(axis=0), 1e-12)
    count, seen = tried[where], mean[where]
    m = model.expected([log.queries[query] for query in where])
    V = m + np.where(count > 0, (seen - m) / share, 0.0)
    rows = np.arange(len(where))
    fixed = V[:, model.fixed]
    answers = count.sum(axis=1) / np.maximum((count > 0).sum(axis=1), 1)
    return Values(where, log.group[where], answers, V[rows, chosen] - fixed, fixed, chosen != model.fixed)


def joined(parts: list[Values]) -> Values:
    """Several as one."""
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in Values.__dataclass_fields__)
    return Values(*columns)


def gain_of(values: Values) -> Gain:
    """Step 4: every answer counts the same."""
    of_answers = np.repeat(np.arange(len(values.query)), np.maximum(np.rint(values.answers), 1).astype(np.int64))
    return Gain(
        mean_of(values.gain[of_answers], values.group[of_answers]),
        float(values.fixed[of_answers].mean()),
        float(values.acted[of_answers].mean()),
        len(values.query),
        len(np.unique(values.group)),
    )


def ceiling(log: PromptLog, seed: int = 0) -> Ceiling | None:
    """The bounds; None where no pair of query and prompt was tried twice, or not every query saw every prompt."""
    tried, mean = _cells(log)
    used = np.unique(log.query)
    if tried[used].min() < 2:
        return None
    level = np.array([log.reward[log.prompt == prompt].mean() for prompt in range(len(log.prompts))])
    fixed = int(level.argmax())
    index = log.query * len(log.prompts) + log.prompt
    rest = log.reward - mean.ravel()[index]
    noise = np.bincount(index, rest**2, tried.size).reshape(tried.shape)[used] / (tried[used] - 1)
    deviation = mean[used] - level
    covariance = deviation.T @ deviation / len(used) - np.diag((noise / tried[used]).mean(axis=0))
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(seed).normal(size=(_WORLDS, len(level)))
    true = level + normal * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    knowing = np.clip(true, log.reward.min(), log.reward.max())
    return Ceiling(
        float((knowing.max(axis=1) - knowing[:, fixed]).mean()),
        _seen(log, tried, level, fixed),
        _disagreement(log, tried),
    )


def _seen(log: PromptLog, tried: Floats, level: Floats, fixed: int) -> float:
    """Each answer's query is chosen for by its other answers; ties go to the best fixed prompt.

    Answers of different prompts have no common order, so the k-th answers to a query stand for one draw.
    """
    gains = []
    for query in np.unique(log.query):
        rows = log.query == query
        draws = int(tried[query].min())
        table = np.stack([log.reward[rows & (log.prompt == prompt)][:draws] for prompt in range(len(level))], axis=1)
        others = (table.sum(axis=0) - table) / (draws - 1) + 1e-6 * level
        gains.append(table[np.arange(draws), others.argmax(axis=1)] - table[:, fixed])
    return float(np.concatenate(gains).mean())


def _disagreement(log: PromptLog, tried: Floats) -> float:
    """Share of pairs of answers to one query and prompt that are not the same, for rewards of 0 and 1."""
    used = tried > 1
    wins = np.zeros_like(tried)
    np.add.at(wins, (log.query, log.prompt), log.reward)
    differing = 2 * (wins * (tried - wins))[used].sum()
    return float(differing / (tried * (tried - 1))[used].sum())


def _advantage(log: PromptLog, model: PromptModel, asked: npt.NDArray[np.bool_]) -> tuple[Advantage, Ints]:
    used = np.zeros(len(log.queries), dtype=np.bool_)
    used[log.query] = True
    where = np.flatnonzero(asked & used)
    return model.advantage([log.queries[query] for query in where]), where


def _cells(log: PromptLog) -> tuple[Floats, Floats]:
    """Number and mean of the answers, shape (queries, prompts)."""
    shape = (len(log.queries), len(log.prompts))
    index = log.query * shape[1] + log.prompt
    tried = np.bincount(index, minlength=shape[0] * shape[1]).astype(np.float64)
    total = np.bincount(index, log.reward, minlength=len(tried))
    return tried.reshape(shape), (total / np.maximum(tried, 1.0)).reshape(shape)
