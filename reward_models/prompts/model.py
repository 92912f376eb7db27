"""The reward of a prompt for a query, and how much better it is there than the best fixed prompt: a Bayesian regression.

    reward_qp = μ_p + x_q·c + x_q·w_p + u_q + v_qp + noise / √n_qp

    μ_p   the prompt's level, nearly free                          x_q·c   what the text says of how hard the query is
    w_p   ~ N(0, τ²)  what the text says of the prompt             u_q, v_qp  what no text says: of the query, of the pair
    c     ~ N(0, τ_c²)

q is a group of queries (``logs.py``): were near-copies of a query independent, what they share would seem to be said by their
words. What is equal for all prompts of a query (x_q·c, u_q) cannot move a choice; answers of several prompts to one query are
contrasts between them. σ² of the noise is the spread of repeated answers; σ_u² and σ_v² are moments of the residuals about μ; the shares of
σ_u² and σ_v² that the text explains (τ_c², τ²) maximise the marginal likelihood on a grid.

With y the mean of a pair's n answers, W = diag(1 / (σ_v² + σ²/n)) and Z the groups' indicators:
    precision  A = D'WD − D'WZ (1/σ_u² + Z'WZ)⁻¹ Z'WD + Λ        posterior mean  A⁻¹ b,   covariance A⁻¹
Random intercepts integrated out: Swamy and Arora 1972; marginal likelihood: MacKay 1992. Choosing prompts by a reward model over
(query, prompt) learned offline: Sun, Hüyük and van der Schaar 2024 (Prompt-OIRL).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from infra.errors import EstimateRefused
from reward_models.prompts.features import QueryView, fit_view
from reward_models.prompts.logs import PromptLog

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHARES = (0.01, 0.03, 0.1, 0.3)
"""Shares of what queries differ by that their text may explain: what is tried."""
LEAST_QUERIES = 20
_FREE = 100.0
"""Prior variance of a prompt's level, in variances of the reward."""
_LEAST = 1e-3
"""Least variance of u and v, in variances of the reward."""


@dataclass(frozen=True)
class Advantage:
    """Of each prompt over the best fixed one, for k queries: shape (k, m) each; the best fixed one's own is 0."""

    mean: Floats
    sd: Floats

    @property
    def probability(self) -> Floats:
        """That the prompt is better there than the best fixed one, shape (k, m); ½ where nothing differs."""
        known = self.sd > 0
        z = np.divide(self.mean, self.sd, out=np.zeros_like(self.mean), where=known)
        return np.asarray(norm.cdf(z), dtype=np.float64)


@dataclass(frozen=True)
class PromptModel:
    """What a log says. ``level`` and ``tried``: mean reward and number of answers per prompt."""

    prompts: tuple[str, ...]
    view: QueryView
    level: Floats
    tried: Ints
    fixed: int
    """The best fixed prompt: the highest level among those that are tried enough."""
    weights: Floats
    covariance: Floats
    share: float
    """Of the differences between queries in what prompts are worth: what the text explains."""

    def advantage(self, queries: Sequence[str]) -> Advantage:
        """Over the best fixed prompt, for each query and prompt."""
        x = self.view.of(queries)
        seen = np.hstack([np.ones((len(x), 1)), x])
        size = len(self.prompts)
        mean, sd = np.zeros((len(x), size)), np.zeros((len(x), size))
        base = self._places(self.fixed)
        for prompt in range(size):
            if prompt == self.fixed:
                continue
            own = self._places(prompt)
            mean[:, prompt] = seen @ (self.weights[own] - self.weights[base])
            V = self.covariance
            spread = V[np.ix_(own, own)] + V[np.ix_(base, base)] - V[np.ix_(own, base)] - V[np.ix_(base, own)]
            sd[:, prompt] = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", seen, spread, seen), 0.0))
        return Advantage(mean, sd)

    def expected(self, queries: Sequence[str]) -> Floats:
        """Expected reward, shape (k, m)."""
        x = self.view.of(queries)
        common = x @ self.weights[len(self.prompts) : len(self.prompts) + x.shape[1]]
        seen = np.hstack([np.ones((len(x), 1)), x])
        return common[:, None] + np.stack([seen @ self.weights[self._places(p)] for p in range(len(self.prompts))], 1)

    def _places(self, prompt: int) -> Ints:
        """Of the level and the weights of one prompt."""
        size, rank = len(self.prompts), self.view.rank
        start = size + rank * (1 + prompt)
        return np.array([prompt, *range(start, start + rank)])


@dataclass(frozen=True)
class _Cells:
    """Pairs of group and prompt that were tried: number and mean of their answers, and σ², σ_u², σ_v²."""

    group: Ints
    prompt: Ints
    count: Floats
    mean: Floats
    noise: float
    of_query: float
    of_pair: float


def fit_prompts(log: PromptLog, view: QueryView | None = None) -> PromptModel:
    """Fit on a log. ``view``: how queries are seen, where that is known from more of them; else from the log's own.

    Raises :class:`EstimateRefused` with fewer than ``LEAST_QUERIES`` queries or than two prompts.
    """
    used = np.unique(log.query)
    groups, of_group = np.unique(log.group[used], return_inverse=True)
    tried = np.bincount(log.prompt, minlength=len(log.prompts))
    if len(used) < LEAST_QUERIES or (tried > 0).sum() < 2:
        raise EstimateRefused(
            f"{len(used)} queries and {(tried > 0).sum()} prompts; to choose between prompts takes "
            f"{LEAST_QUERIES} queries and two prompts at least"
        )
    level = np.bincount(log.prompt, log.reward, minlength=len(log.prompts)) / np.maximum(tried, 1)
    view = view or view_of(log)
    x = np.zeros((len(groups), view.rank))
    np.add.at(x, of_group, view.of([log.queries[query] for query in used]))
    x /= np.bincount(of_group)[:, None]
    place = np.full(len(log.queries), -1)
    place[used] = of_group
    cells = _cells(place[log.query], log, level)
    regression = _Regression(x, cells, len(log.prompts))
    common = max(SHARES, key=lambda share: regression.solve(share, SHARES[1]).evidence)
    share = max(SHARES, key=lambda share: regression.solve(common, share).evidence)
    solved = regression.solve(common, share)
    enough = tried >= 0.1 * tried.max()
    fixed = int(np.argmax(np.where(enough, level, -np.inf)))
    return PromptModel(log.prompts, view, level, tried, fixed, solved.mean, solved.covariance(), share)


def view_of(log: PromptLog) -> QueryView:
    """How the log's queries are seen, whatever they earned."""
    return fit_view([log.queries[query] for query in np.unique(log.query)])


def _cells(group: Ints, log: PromptLog, level: Floats) -> _Cells:
    code, index = np.unique(group * len(log.prompts) + log.prompt, return_inverse=True)
    count = np.bincount(index).astype(np.float64)
    mean = np.bincount(index, log.reward) / count
    of, prompt = np.divmod(code, len(log.prompts))
    total = max(float(log.reward.var()), 1e-12)
    repeats = len(log) - len(code)
    within = float(((log.reward - mean[index]) ** 2).sum())
    rest = mean - level[prompt]
    noise = within / repeats if repeats >= len(code) / 10 else 0.5 * float((rest**2).mean())
    of_query = _shared(of, rest)
    of_pair = float((rest**2).mean()) - of_query - noise * float((1.0 / count).mean())
    least = _LEAST * total
    return _Cells(of, prompt, count, mean, max(noise, least), max(of_query, least), max(of_pair, least))


def _shared(group: Ints, rest: Floats) -> float:
    """σ_u²: mean product of the residuals of two prompts for one group; 0 when no group had two."""
    size, total = np.bincount(group), np.bincount(group, rest)
    pairs = float((size * (size - 1)).sum())
    return float((total**2).sum() - (rest**2).sum()) / pairs if pairs else 0.0


@dataclass(frozen=True)
class _Solved:
    mean: Floats
    factor: Any
    evidence: float

    def covariance(self) -> Floats:
        return np.asarray(cho_solve(self.factor, np.eye(len(self.mean))))


class _Regression:
    """The normal equations; only the prior changes between solutions."""

    def __init__(self, x: Floats, cells: _Cells, prompts: int) -> None:
        rank, of = x.shape[1], cells.group
        self.cells, self.prompts, self.rank = cells, prompts, rank
        design = np.zeros((len(of), prompts + rank * (1 + prompts)))
        rows = np.arange(len(of))
        design[rows, cells.prompt] = 1.0
        design[:, prompts : prompts + rank] = x[of]
        for prompt in range(prompts):
            own = cells.prompt == prompt
            start = prompts + rank * (1 + prompt)
            design[own, start : start + rank] = x[of[own]]
        y = cells.mean - cells.mean.mean()
        weight = 1.0 / (cells.of_pair + cells.noise / cells.count)
        weighted = weight[:, None] * design
        sums = np.zeros((len(x), design.shape[1]))
        np.add.at(sums, of, weighted)
        total, rest = np.bincount(of, weight, len(x)), np.bincount(of, weight * y, len(x))
        shrunk = 1.0 / (1.0 / cells.of_query + total)
        self.matrix = design.T @ weighted - (sums * shrunk[:, None]).T @ sums
        self.target = weighted.T @ y - sums.T @ (shrunk * rest)
        self.middle = float(cells.mean.mean())
        self.free = _FREE * max(float(cells.mean.var()), 1e-12)

    def solve(self, common: float, share: float) -> _Solved:
        """The posterior, and the marginal likelihood up to what the prior does not change."""
        rank, cells = self.rank, self.cells
        variance = np.concatenate(
            [
                np.full(self.prompts, self.free),
                np.full(rank, common * cells.of_query),
                np.full(rank * self.prompts, share * cells.of_pair),
            ]
        )
        factor = cho_factor(self.matrix + np.diag(1.0 / variance))
        mean = cho_solve(factor, self.target)
        fitted = 0.5 * float(self.target @ mean)
        evidence = fitted - float(np.log(np.diag(factor[0])).sum()) - 0.5 * float(np.log(variance).sum())
        mean = mean.copy()
        mean[: self.prompts] += self.middle
        return _Solved(mean, factor, evidence)
