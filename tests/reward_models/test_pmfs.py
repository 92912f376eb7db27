"""Probabilities of many requests at once are those of one request after the other."""

import numpy as np
import pytest

from ingestion.loops import PolicySettings
from reward_models.policies import pmf, pmfs

SEED = 20_261_122


@pytest.mark.parametrize("kind", ["posterior", "epsilon", "softmax"])
def test_rows_are_the_single_pmf(kind: str) -> None:
    """For like and very unlike widths, ties and certainty, each row is the pmf of its request and sums to 1."""
    generator = np.random.default_rng(SEED)
    settings = PolicySettings(kind=kind)
    for n in (1, 2, 5, 12):
        mean = generator.normal(size=(60, n)) * generator.choice([0.0, 0.01, 1.0], size=(60, 1))
        sd = generator.exponential(size=(60, n)) * generator.choice([0.0, 1e-3, 0.1, 1.0, 30.0], size=(60, n))
        expected = [pmf(settings, one, width) for one, width in zip(mean, sd, strict=True)]

        found = pmfs(settings, mean, sd)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
        assert found.min() >= min(settings.floor, 1 / n) - 1e-15
