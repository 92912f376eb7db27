"""Probabilities of many requests at once are those of one request after the other."""

import numpy as np
import pytest

from ingestion.loops import PolicySettings
from reward_models.limits import bounds
from reward_models.policies import pmf, pmfs

SEED = 20_261_122


@pytest.mark.parametrize("kind", ["posterior", "epsilon", "softmax"])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 25, 60])
def test_rows_are_the_single_pmf(kind: str, n: int) -> None:
    """For like and very unlike widths, ties and certainty, each row is its request's pmf to the last bit, and sums to 1."""
    generator = np.random.default_rng(SEED)
    settings = PolicySettings(kind=kind)
    mean = generator.normal(size=(60, n)) * generator.choice([0.0, 0.01, 1.0], size=(60, 1))
    sd = generator.exponential(size=(60, n)) * generator.choice([0.0, 1e-3, 0.1, 1.0, 30.0], size=(60, n))
    expected = [pmf(settings, one, width).tolist() for one, width in zip(mean, sd, strict=True)]

    found = pmfs(settings, mean, sd)
    assert found.tolist() == expected
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    assert found.min() >= min(settings.floor, 1 / n) - 1e-15


def test_limits_hold_in_every_row() -> None:
    """With limits on shares each row is the single pmf under the same limits."""
    generator = np.random.default_rng(SEED)
    allowed = bounds({"b": [0.3, 0.4], "c": [0.0, 0.1]}, ["a", "b", "c", "d"])
    mean, sd = generator.normal(size=(50, 4)), generator.exponential(size=(50, 4))
    expected = [pmf(PolicySettings(), one, width, allowed).tolist() for one, width in zip(mean, sd, strict=True)]

    assert pmfs(PolicySettings(), mean, sd, allowed).tolist() == expected
