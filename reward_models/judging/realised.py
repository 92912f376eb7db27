"""What each content really earned, as if everybody had been shown it: what judges are held against.

    mean_c = Σ w·r / Σ w,   w = 1 / max(propensity, clip)            over the decisions that showed c

so that a content is not called good because a policy kept it for the better customers. Its sampling variance takes the
scatter of one decision from the whole campaign (a content's own would call those surest that earned nothing), times
what several decisions of one customer have in common:

    variance_c = σ² · common · Σ w² / (Σ w)²,   common = max(1, Σ_units (Σ w·e)² / Σ w²·e²)

Past results of tests (``history``) stand for contents that no decision showed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.dataset import TrainingSet
from reward_models.folds import codes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLIP = 0.01
"""Least propensity that is believed: what it hides is bias, at most that of decisions rarer than one in a hundred."""


@dataclass(frozen=True)
class Realised:
    """k contents with what they earned, by the order in which they were first shown."""

    content: Ints
    """Index into the training set's contents, shape (k,)."""
    campaign: Ints
    """Code of the campaign, shape (k,)."""
    reward: Floats
    """Mean reward of one decision, shape (k,)."""
    variance: Floats
    """Its sampling variance, shape (k,)."""
    exposures: Floats

    def __len__(self) -> int:
        return len(self.content)


def realised(training: TrainingSet, rows: npt.NDArray[np.bool_] | None = None, clip: float = CLIP) -> Realised:
    """Every content with a matured first position of known propensity, or with past results of a trusted test.

    rows: only these decisions, shape (n,), as for one segment of customers; past results tell no segments, so they are
    left out then.
    """
    kept = training.mature & (training.position == 1) & (training.propensity > 0.0)
    decided = _of_decisions(training, np.flatnonzero(kept if rows is None else kept & rows), clip)
    past = _of_history(training, decided[0]) if rows is None else _NOTHING
    content = np.concatenate([decided[0], past[0]]).astype(np.int64)
    campaigns = codes_of([training.contents[index].campaign_id for index in content.tolist()])
    rest = [np.concatenate(pair) for pair in zip(decided[1:], past[1:], strict=True)]
    return Realised(content, campaigns, *rest)


_Columns = tuple[Floats, Floats, Floats, Floats]
"""Content, mean, variance, exposures."""
_NOTHING: _Columns = (np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))


def _of_decisions(training: TrainingSet, rows: Ints, clip: float) -> _Columns:
    if not len(rows):
        return _NOTHING
    shown, of_row = np.unique(training.content[rows], return_inverse=True)
    weight = 1.0 / np.maximum(training.propensity[rows], clip)
    reward, total = training.reward[rows], np.bincount(of_row, weight)
    mean = np.bincount(of_row, weight * reward) / total
    campaign = codes_of([training.contents[index].campaign_id for index in shown])
    scatter = _scatter(campaign[of_row], _units(training, rows), weight, reward - mean[of_row])
    variance = scatter[campaign] * np.bincount(of_row, weight**2) / total**2
    return shown.astype(np.float64), mean, variance, np.bincount(of_row).astype(np.float64)


def _units(training: TrainingSet, rows: Ints) -> Ints:
    """Code of the customer of each row; a decision without one stands alone."""
    return codes_of([training.unit[row] or training.decision_id[row] for row in rows.tolist()])


def _scatter(campaign: Ints, unit: Ints, weight: Floats, error: Floats) -> Floats:
    """σ² · common of each campaign."""
    mean_square = np.bincount(campaign, weight * error**2) / np.bincount(campaign, weight)
    alone = np.bincount(campaign, (weight * error) ** 2)
    _, first, pair = np.unique(campaign * (unit.max() + 1) + unit, return_index=True, return_inverse=True)
    together = np.bincount(campaign[first], np.bincount(pair, weight * error) ** 2)
    common = np.divide(together, alone, out=np.ones_like(alone), where=alone > 0.0)
    return np.asarray(mean_square * np.maximum(common, 1.0))


def _of_history(training: TrainingSet, known: Floats) -> _Columns:
    past = training.history
    noise = np.where(past.exposures > 0.0, past.noise / np.maximum(past.exposures, 1.0), np.nan)
    rows = np.flatnonzero(past.trusted & np.isfinite(noise) & (noise > 0.0) & ~np.isin(past.content, known))
    if not len(rows):
        return _NOTHING
    shown, of_row = np.unique(past.content[rows], return_inverse=True)
    exposures = np.bincount(of_row, past.exposures[rows])
    mean = np.bincount(of_row, past.exposures[rows] * past.reward[rows]) / exposures
    variance = np.bincount(of_row, past.exposures[rows] * past.noise[rows]) / exposures**2
    return shown.astype(np.float64), mean, variance, exposures.astype(np.float64)
