"""Training sets with a holdout, drawn from a known world: the oracle of fading and clickbait."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from infra.clock import DAY
from ingestion.events import Candidate
from reward_models.dataset import TrainingSet
from tests.reward_models.training import copy, training_set

Rate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Content and its age in days, (n,) each, to the probability of a click."""


def with_holdout(
    n: int,
    policy: np.ndarray,
    rate: Rate,
    *,
    seed: int = 1,
    days: float = 30.0,
    share: float = 0.3,
    bought: np.ndarray | None = None,
    born: np.ndarray | None = None,
) -> TrainingSet:
    """Decisions over some days. Treatment follows ``policy`` (k,), the holdout is uniform over the first content only.

    ``bought``: chance that a click on each content buys, (k,). ``born``: day of each content's first showing; before it
    the policy plays the first content instead.
    """
    generator = np.random.default_rng(seed)
    k = len(policy)
    at = np.sort(generator.random(n)) * days
    births = np.zeros(k) if born is None else born
    open_ = (births[None, :] <= at[:, None]) * policy
    pmf = open_ / open_.sum(axis=1, keepdims=True)
    treated = generator.random(n) >= share
    drawn = (generator.random(n)[:, None] >= pmf.cumsum(axis=1)).sum(axis=1)
    chosen = np.where(treated, drawn, 0)
    click = generator.random(n) < rate(chosen, at - births[chosen])
    buys = np.zeros(k) if bought is None else bought
    purchase = click & (generator.random(n) < buys[chosen])
    names = [f"c{index}" for index in range(k)]
    plain = training_set(
        [copy(name, f"text {name}") for name in names],
        content=chosen.tolist(),
        reward=click.astype(float).tolist(),
    )
    candidates = tuple(
        tuple(
            Candidate(content_id=name, policy_p=float(p), behaviour_p=float(p) if got else float(index == 0))
            for index, (name, p) in enumerate(zip(names, row, strict=True))
        )
        for row, got in zip(pmf, treated, strict=True)
    )
    return replace(
        plain,
        decided_at=(at * DAY).astype(np.int64),
        propensity=np.where(treated, pmf[np.arange(n), chosen], 1.0),
        holdout=np.full(n, share),
        group=tuple("treatment" if got else "holdout" for got in treated),
        candidates=candidates,
        metrics={"click": click.astype(float), "revenue": np.where(purchase, 30.0, 0.0)},
    )
