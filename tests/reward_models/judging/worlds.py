"""Campaigns whose copy has a known worth, what it earned, and judges whose ratings are known functions of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.judging.realised import Realised

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shelf:
    """Contents of campaigns that differ in level: their true click rates, shape (k,), and what was seen of them."""

    rate: Floats
    found: Realised

    @property
    def worth(self) -> Floats:
        """What a judge should see: how good each content is, of variance 1."""
        score = np.log(self.rate) - _mean_of(np.log(self.rate), self.found.campaign)
        return np.asarray(score / (score.std() if len(score) else 1.0))


def shelf(rng: np.random.Generator, campaigns: int = 20, each: int = 6, shown: int = 2_000) -> Shelf:
    """Each content was shown ``shown`` times; true rates differ by 25 % within a campaign, campaigns by much more."""
    campaign = np.repeat(np.arange(campaigns), each)
    level = np.exp(rng.normal(np.log(0.05), 0.6, campaigns))[campaign]
    rate = np.clip(level * np.exp(0.25 * rng.standard_normal(len(campaign))), 0.0, 0.9)
    seen = rng.binomial(shown, rate) / shown
    variance = np.maximum(_mean_of(seen, campaign), 1e-4) / shown
    found = Realised(np.arange(len(campaign)), campaign, seen, variance, np.full(len(campaign), float(shown)))
    return Shelf(rate, found)


def rated(rng: np.random.Generator, worth: Floats, correlation: float) -> Floats:
    """Ratings from 1 to 5 that correlate with the worth as stated."""
    noise = rng.standard_normal(len(worth))
    return np.asarray(np.clip(3 + correlation * worth + np.sqrt(1 - correlation**2) * noise, 1, 5))


def _mean_of(values: Floats, campaign: Ints) -> Floats:
    return np.asarray((np.bincount(campaign, values) / np.bincount(campaign))[campaign])
