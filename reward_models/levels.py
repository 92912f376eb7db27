"""The level of each campaign: the model predicts relative to it, because campaigns differ more than copy does.

    reward = m + s · (g(context, content) − o)

m is the campaign's mean reward, shrunk to the loop's mean by empirical Bayes (m = μ + B·(mean − μ) with
B = τ² / (τ² + σ²/n); τ² and σ² by moments). s = max(|m|, a tenth of the loop's level) keeps small campaigns from
blowing up. o is the mean of g over what the campaign showed: only contrasts within a campaign are learned, so g
means nothing before it is centred. An unknown campaign has m = μ and the mean of g over the loop.

Rewards like clicks and purchases have a variance that grows with their level, so a row of n exposures weighs
n · s / φ in relative units, with φ the dispersion σ² / level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_SHARE = 0.1
"""Least scale of a campaign, as a share of the loop's level."""


@dataclass(frozen=True)
class Levels:
    """Levels of a loop's campaigns. ``base``: the loop's level, above 0. ``dispersion``: φ, above 0."""

    mean: float
    base: float
    dispersion: float
    campaigns: Mapping[str, float]
    """m by campaign."""
    centre: float = 0.0
    centres: Mapping[str, float] = field(default_factory=dict)
    """o by campaign."""

    def of(self, campaign_ids: Sequence[str]) -> tuple[Floats, Floats]:
        """Mean m and scale s of each campaign, shape (n,) each."""
        mean = np.array([self.campaigns.get(campaign, self.mean) for campaign in campaign_ids], dtype=np.float64)
        return mean, np.maximum(np.abs(mean), LEAST_SHARE * self.base)

    def centre_of(self, campaign_ids: Sequence[str]) -> Floats:
        """Centre o of each campaign, shape (n,)."""
        return np.array([self.centres.get(campaign, self.centre) for campaign in campaign_ids], dtype=np.float64)

    def centred_at(self, codes: Ints, names: Sequence[str], g: Floats, weights: Floats) -> "Levels":
        """These levels, centred at the mean of g in each campaign: shape (n,) each, ``codes`` into ``names``."""
        means = np.bincount(codes, weights * g) / np.bincount(codes, weights)
        return replace(
            self, centre=float(np.average(g, weights=weights)), centres=dict(zip(names, means.tolist(), strict=True))
        )


def group(campaign_ids: Sequence[str]) -> tuple[Ints, list[str]]:
    """Code of each row's campaign, shape (n,), and the campaigns by code."""
    names = sorted(set(campaign_ids))
    code = {name: index for index, name in enumerate(names)}
    return np.array([code[name] for name in campaign_ids], dtype=np.int64), names


def centred(values: Floats, groups: Ints, weights: Floats) -> Floats:
    """Values less their group's weighted mean, shape (n,); a group without weight keeps its values."""
    total = np.bincount(groups, weights)
    mean = np.bincount(groups, weights * values) / np.where(total > 0, total, 1.0)
    return np.asarray(values - mean[groups], dtype=np.float64)


def fit_levels(rows: Ints, names: Sequence[str], reward: Floats, exposures: Floats) -> Levels:
    """Levels from rows of mean reward over ``exposures`` (a decision is one exposure). ``rows``: the campaign of each,
    an index into ``names``. Shape (n,) each; every campaign has rows."""
    counts = np.bincount(rows, exposures).astype(np.float64)
    means = np.bincount(rows, exposures * reward) / counts
    overall = float(np.average(reward, weights=exposures))
    base = max(abs(overall), 0.01 * float(np.sqrt(np.average(reward**2, weights=exposures))))
    within = float(exposures @ (reward - means[rows]) ** 2) / max(1, len(rows) - len(names))
    between = _between(means, counts, within)
    shrunk = overall + (means - overall) * between / (between + within / counts) if between > 0 else means * 0 + overall
    return Levels(overall, base, max(within / base, 1e-12), dict(zip(names, shrunk.tolist(), strict=True)))


def _between(means: Floats, counts: Floats, within: float) -> float:
    """Variance between campaigns beyond what sampling explains (method of moments, DerSimonian & Laird 1986)."""
    if len(means) < 2 or within == 0.0:
        return float(np.var(means)) if len(means) > 1 else 1.0
    weights = counts / within
    centre = np.average(means, weights=weights)
    excess = float(weights @ (means - centre) ** 2) - (len(means) - 1)
    return max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))
