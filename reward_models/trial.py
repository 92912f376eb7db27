"""A trial: what a challenger would have earned on decisions it has never seen (invariants 15 and 16).

1. keep the decisions that chance decided: online, propensity known; of a slate the first position. Chance also
   dealt the groups, so that a decision of a unit that might have been held out has the marginal probability
   h·baseline + (1 − h)·policy, holdout and treatment alike (invariant 9)
2. pmf of the frozen policy: the model's predictions, no counts yet (they start at zero with a new version)
3. pmfs to compare with: what runs (as stored; before the champion served, the frozen champion), the baseline, the
   best single content
4. nuisance predictions q of the reward of every candidate, from models that saw other units, earlier decisions
5. for each policy every estimator of its value; for the gate the paired difference by DR, clustered by unit

Candidates differ between decisions, so arrays are padded to the widest: entries past ``width`` are 0.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from infra.database import canonical_json
from infra.errors import EstimateRefused
from ingestion.events import Content
from ingestion.loops import ContentLimits, LoopDefinition, PolicySettings
from reward_models import limits as shares
from reward_models.automatic import ESTIMATORS
from reward_models.boosted import RewardModel, fit
from reward_models.choices import Choices
from reward_models.dataset import TrainingSet
from reward_models.offpolicy import Estimate, Logged
from reward_models.policies import baseline_pmf, pmf
from reward_models.posterior import content_effects, no_counts
from reward_models.priors import prior_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Policy = Literal["challenger", "running", "baseline", "best_single"]
POLICIES: tuple[Policy, ...] = ("challenger", "running", "baseline", "best_single")

OPEN_BASELINE: Mapping[str, Any] = {"content_ids": (), "weights": ()}
"""The baseline of a campaign that has none of its own: uniform over the candidates."""

NO_LIMITS: Mapping[str, ContentLimits] = {}

NUISANCE_FOLDS = 2
GATE_FOLDS = 3
"""With a split by unit, one fold of this many is kept out of training for the gate."""


class Incumbent(NamedTuple):
    """The model that serves, the settings it serves with, and which of the judged decisions it made."""

    model: RewardModel
    settings: PolicySettings
    its_own: Mask


@dataclass(frozen=True)
class Trial:
    """n decisions in time order with up to k candidates. ``pmfs``: (n, k) each; ``q``: predicted rewards, (n, k)."""

    chosen: Ints
    """Index of the content that was shown, shape (n,)."""
    propensity: Floats
    """Probability of what was shown: ``behaviour`` at ``chosen``."""
    reward: Floats
    clusters: tuple[str, ...]
    pmfs: Mapping[Policy, Floats]
    behaviour: Floats
    """What was drawn from, over the draw of the group too, (n, k)."""
    q: Floats

    def __len__(self) -> int:
        return len(self.chosen)

    def logged(self, target: Policy, reference: Policy | None = None) -> Logged:
        """The decisions with one policy to value, and one to compare it with."""
        return Logged(
            propensity=self.propensity,
            reward=self.reward,
            chosen=self.chosen,
            target=self.pmfs[target],
            q=self.q,
            clusters=self.clusters,
            reference=None if reference is None else self.pmfs[reference],
            behaviour=self.behaviour,
        )

    def values(self) -> dict[Policy, list[Estimate]]:
        """Every policy by every estimator; what is refused is left out, and so is a policy without any."""
        found = {policy: _estimates(self.logged(policy)) for policy in POLICIES}
        return {policy: estimates for policy, estimates in found.items() if estimates}


def decided_by_chance(training: TrainingSet) -> TrainingSet:
    """The rows whose stored propensity off-policy estimates may use: treatment, online, known, first position."""
    return training.subset(_in_group(training, "treatment") & _drawn(training))


def dealt_by_chance(training: TrainingSet) -> TrainingSet:
    """Those, and the holdout's, whose marginal propensity is known as well."""
    held_out = _in_group(training, "holdout") & (training.holdout > 0.0) & _asked(training)
    return training.subset((_in_group(training, "treatment") | held_out) & _drawn(training))


def unit_folds(training: TrainingSet, folds: int) -> Ints:
    """Fold of each row by a hash of its unit (of its decision where no unit is known), shape (n,)."""
    return np.array([_fold(name, folds) for name in clusters_of(training)], dtype=np.int64)


def clusters_of(training: TrainingSet) -> tuple[str, ...]:
    """What each row's outcome may be correlated through: its unit, else the decision itself."""
    return tuple(unit or decision for unit, decision in zip(training.unit, training.decision_id, strict=True))


def learnable(training: TrainingSet) -> bool:
    """Whether there are outcomes, and they differ."""
    rewards = np.concatenate([training.reward, training.history.reward])
    return len(rewards) > 0 and float(np.ptp(rewards)) > 0.0


def nuisance(earlier: TrainingSet, later: TrainingSet, definition: LoopDefinition) -> list[tuple[Mask, RewardModel]]:
    """Models for q: each with the rows of ``later`` whose units it has not seen. ``earlier`` ends before ``later``.

    Where the others' outcomes have nothing to teach there is no model, and q is 0: DR is then IPS, unbiased too.
    """
    of_earlier, of_later = unit_folds(earlier, NUISANCE_FOLDS), unit_folds(later, NUISANCE_FOLDS)
    models = []
    for fold in range(NUISANCE_FOLDS):
        others = earlier.subset(of_earlier != fold)
        if learnable(others):
            models.append((of_later == fold, fit(others, definition.model)))
    return models


def frozen_pmf(
    model: RewardModel,
    settings: PolicySettings,
    contexts: Sequence[Mapping[str, Any]],
    contents: Sequence[Content],
    limits: Mapping[str, ContentLimits] = NO_LIMITS,
) -> Floats:
    """Probabilities of the policy that would be promoted, shape (n, k): what a server does right after it loads it.

    ``contents``: of one campaign, sorted by id. ``limits``: on shares, as the loop has them now.
    """
    distinct, of_row = distinct_contexts(contexts)
    effects = content_effects(no_counts(len(contents)), prior_of(model, contents[0].campaign_id))
    means = effects.mean(model.grid(distinct, contents))
    ids = [content.content_id for content in contents]
    bounds = shares.bounds(shares.stored(limits, ids), ids)
    return np.array([pmf(settings, mean, effects.sd, bounds) for mean in means])[of_row]


def hold(
    judged: TrainingSet,
    baselines: Mapping[str, Mapping[str, Any]],
    model: RewardModel,
    settings: PolicySettings,
    q_models: Sequence[tuple[Mask, RewardModel]],
    champion: Incumbent | None = None,
    limits: Mapping[str, ContentLimits] = NO_LIMITS,
) -> Trial:
    """The trial of ``model`` under these policy settings, and the loop's limits on shares, on ``judged``.

    ``champion``: for decisions that it did not make, before it served, what ran was something else; there the
    champion is frozen too, under its own settings: it was trained on still earlier ones.
    """
    widest = int(Choices.of(judged.candidates).lengths.max(initial=0))
    pmfs: dict[Policy, Floats] = {policy: np.zeros((len(judged), widest)) for policy in POLICIES}
    behaviour, q = np.zeros((len(judged), widest)), np.zeros((len(judged), widest))
    chosen = np.zeros(len(judged), dtype=np.int64)
    for rows, contents in _groups(judged):
        contexts = [judged.contexts[row] for row in rows]
        part = np.ix_(rows, np.arange(len(contents)))
        ids = [content.content_id for content in contents]
        pmfs["challenger"][part] = frozen_pmf(model, settings, contexts, contents, limits)
        pmfs["running"][part] = _running(judged, rows, contents, champion, limits)
        pmfs["baseline"][part] = baseline_pmf(baselines.get(contents[0].campaign_id) or OPEN_BASELINE, ids)
        behaviour[part] = _marginal(judged, rows, pmfs["baseline"][part])
        pmfs["best_single"][part] = np.eye(len(ids))[int(np.argmax(model.grid(contexts, contents).mean(axis=0)))]
        chosen[rows] = [ids.index(judged.contents[judged.content[row]].content_id) for row in rows]
        _predict(q, rows, judged, contents, q_models)
    propensity = behaviour[np.arange(len(judged)), chosen]
    return Trial(chosen, propensity, judged.reward, clusters_of(judged), pmfs, behaviour, q)


def _in_group(training: TrainingSet, group: str) -> Mask:
    return np.array([found == group for found in training.group], dtype=np.bool_)


def _drawn(training: TrainingSet) -> Mask:
    online = np.array([mode == "online" for mode in training.learning_mode], dtype=np.bool_)
    return np.asarray(online & (training.position == 1) & np.isfinite(training.propensity), dtype=np.bool_)


def _asked(training: TrainingSet) -> Mask:
    """Whether the policy said what it would have drawn."""
    return np.asarray(np.isfinite(Choices.of(training.candidates).table("policy_p")).all(axis=1), dtype=np.bool_)


def _marginal(judged: TrainingSet, rows: Ints, baseline: Floats) -> Floats:
    """What was drawn from, with the draw of the group: only where a unit could be held out does that matter."""
    share = judged.holdout[rows][:, None]
    mixed = share * baseline + (1.0 - share) * _stored(judged, rows, "policy_p")
    return np.where(share > 0.0, mixed, _stored(judged, rows, "behaviour_p"))


def _fold(name: str, folds: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % folds


def _groups(judged: TrainingSet) -> Iterator[tuple[Ints, list[Content]]]:
    """Rows that share their candidates, with these."""
    of_row, _ = Choices.of(judged.candidates).sets()
    found: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(judged.campaign_id, of_row.tolist(), strict=True)):
        found.setdefault(key, []).append(row)
    for rows in found.values():
        yield np.array(rows, dtype=np.int64), judged.candidate_contents(rows[0])


def _running(
    judged: TrainingSet,
    rows: Ints,
    contents: Sequence[Content],
    champion: Incumbent | None,
    limits: Mapping[str, ContentLimits],
) -> Floats:
    stored = _stored(judged, rows, "policy_p")
    if champion is None:
        return stored
    contexts = [judged.contexts[row] for row in rows]
    frozen = frozen_pmf(champion.model, champion.settings, contexts, contents, limits)
    return np.where(champion.its_own[rows][:, None], stored, frozen)


def _stored(judged: TrainingSet, rows: Ints, name: Literal["policy_p", "behaviour_p"]) -> Floats:
    """Stored probabilities of the candidates: what the running policy would have drawn with, or what was drawn with."""
    return np.nan_to_num(Choices.of(judged.candidates).take(rows).table(name))


def _estimates(logged: Logged) -> list[Estimate]:
    found = []
    for estimator in ESTIMATORS.values():
        with suppress(EstimateRefused):
            found.append(estimator(logged))
    return found


def _predict(
    q: Floats,
    rows: Ints,
    judged: TrainingSet,
    contents: Sequence[Content],
    q_models: Sequence[tuple[Mask, RewardModel]],
) -> None:
    for mask, model in q_models:
        mine = rows[mask[rows]]
        if len(mine):
            q[np.ix_(mine, np.arange(len(contents)))] = model.grid([judged.contexts[row] for row in mine], contents)


def distinct_contexts(contexts: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], Ints]:
    """The different contexts, and the index of each row's among them: customers share few contexts."""
    seen: dict[bytes, int] = {}
    of_row = [seen.setdefault(canonical_json(context), len(seen)) for context in contexts]
    first = {index: row for row, index in reversed(list(enumerate(of_row)))}
    return [contexts[first[index]] for index in range(len(seen))], np.array(of_row, dtype=np.int64)
