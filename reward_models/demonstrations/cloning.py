"""Behaviour cloning: the probability that a marketer would choose each candidate, whatever the reason.

    P(c | x, candidates) ∝ exp(u(x, c) + trees(x, c))

u is the conditional logit's utility; the trees (LightGBM) start from it and lower the same log loss, with gradient p − 1
for the chosen and p for the others, and p·(1 − p) as curvature. As many rounds as held-out choices ask for: often none.

The clone is an apprentice: it shows how well choices can be foretold (``agreement``), and plays as the marketers did,
luck and mistakes included. What they were after is ``implied.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.demonstrations.choices import Demonstration
from reward_models.demonstrations.design import Situations, situations_of
from reward_models.demonstrations.implied import FOLDS, Implied
from reward_models.demonstrations.logit import fit_logit, likelihood, log_shares
from reward_models.features import FeatureSchema, build_schema, content_rows, context_rows
from reward_models.folds import deal

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDS = (0, 10, 20, 40, 80)
_TREES = {
    "num_leaves": 7,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True)
class Clone:
    """The apprentice."""

    implied: Implied
    schema: FeatureSchema
    booster: lgb.Booster | None
    """None: the trees found nothing that the utility does not hold."""
    rounds: int
    agreement: float
    """Share of held-out choices that it would have made, too."""
    by_chance: float
    """The same for one who draws lots."""
    fit: float
    """McFadden's pseudo R² on held-out choices."""

    def probabilities(self, context: Mapping[str, Any], contents: Sequence[Content]) -> Floats:
        """P of each content, shape (k,)."""
        utility = self.implied.utility([context], contents)[0]
        if self.booster is not None:
            rows = _matrix(self.schema, [context] * len(contents), contents)
            utility = utility + np.asarray(self.booster.predict(rows, num_threads=1))
        share = np.exp(utility - utility.max())
        return np.asarray(share / share.sum())


def clone_of(shown: Sequence[Demonstration], implied: Implied, seed: int = 7) -> Clone:
    """The apprentice of these choices, of which ``implied`` is the utility."""
    choices = situations_of(implied.design, shown)
    schema = build_schema(
        [one.context for one in shown], list({c.content_id: c for one in shown for c in one.candidates}.values())
    )
    pairs = [(one.context, content) for one in shown for content in one.candidates]
    matrix = _matrix(schema, [context for context, _ in pairs], [content for _, content in pairs])
    folds = deal(np.arange(len(choices)), FOLDS, seed)
    held = _held_out(choices, matrix, schema, implied, folds, seed)
    best = int(np.argmax([likelihood(choices, utility) for utility in held]))
    rounds = ROUNDS[best]
    booster = None
    if rounds:
        booster = _train(choices, matrix, schema, implied.logit.utility(choices.phi), rounds, seed)
    sizes = np.diff(choices.begin, append=len(choices.phi))
    return Clone(
        implied,
        schema,
        booster,
        rounds,
        _agreement(choices, held[best]),
        float((1.0 / sizes).mean()),
        1.0 + likelihood(choices, held[best]) / float(np.log(sizes).mean()),
    )


def _held_out(
    choices: Situations, matrix: Floats, schema: FeatureSchema, implied: Implied, folds: Ints, seed: int
) -> list[Floats]:
    """Utility of each row by what saw nothing of its fold, after each number of ``ROUNDS``: shape (r,) each."""
    found = [np.zeros(len(choices.phi)) for _ in ROUNDS]
    for fold in range(FOLDS):
        judged = folds[choices.of_row] == fold
        learned = choices.subset(folds != fold)
        logit = fit_logit(learned, implied.penalty)
        booster = _train(learned, matrix[~judged], schema, logit.utility(learned.phi), ROUNDS[-1], seed)
        start = logit.utility(choices.phi[judged])
        for place, rounds in enumerate(ROUNDS):
            added = booster.predict(matrix[judged], num_iteration=rounds, num_threads=1) if rounds else 0.0
            found[place][judged] = start + added
    return found


def _train(
    choices: Situations, matrix: Floats, schema: FeatureSchema, start: Floats, rounds: int, seed: int
) -> lgb.Booster:
    chosen = np.zeros(len(matrix))
    chosen[choices.chosen] = 1.0

    def objective(utility: Floats, _: lgb.Dataset) -> tuple[Floats, Floats]:
        share = np.exp(log_shares(choices, utility))
        return share - chosen, np.maximum(share * (1.0 - share), 1e-6)

    data = lgb.Dataset(
        matrix, label=chosen, init_score=start, categorical_feature=schema.categorical, free_raw_data=True
    )
    return lgb.train({**_TREES, "objective": objective, "seed": seed}, data, num_boost_round=rounds)


def _matrix(schema: FeatureSchema, contexts: Sequence[Mapping[str, Any]], contents: Sequence[Content]) -> Floats:
    """Rows of pairs; position and text score, which choices do not have, are the same for all."""
    distinct = {content.content_id: content for content in contents}
    place = {name: index for index, name in enumerate(distinct)}
    copies = content_rows(schema, list(distinct.values()), np.full(len(distinct), np.nan))
    rows = copies[[place[content.content_id] for content in contents]]
    return np.hstack([context_rows(schema, contexts, [1] * len(contexts)), rows])


def _agreement(choices: Situations, utility: Floats) -> float:
    """Share of choices whose likeliest candidate is the chosen one; ties count by their share."""
    of_row = choices.of_row
    top = np.maximum.reduceat(utility, choices.begin)
    best = utility >= top[of_row] - 1e-12
    return float((best[choices.chosen] / np.add.reduceat(best.astype(np.float64), choices.begin)).mean())
