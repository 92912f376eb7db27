"""Policies: what the conformance suite does not know, above all how exact P(best) is."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from infra.errors import BadInput
from ingestion.loops import PolicySettings
from reward_models.policies import baseline_pmf, choose, draw_slate, p_best, pmf, policy_version

SEED = 20_261_122
DRAWS = 1_000_000
PURE = PolicySettings(kind="posterior", damping=1.0, floor=0.0, uniform_slice=0.0)


def by_quadrature(mean: np.ndarray, sd: np.ndarray, k: int) -> float:
    """∫ φ_k Π Φ_j, by a general integrator that knows where the candidates are."""
    others = np.arange(len(mean)) != k

    def density(x: float) -> float:
        return float(norm.pdf(x, mean[k], sd[k]) * norm.cdf((x - mean[others]) / sd[others]).prod())

    low, high = mean[k] - 9 * sd[k], mean[k] + 9 * sd[k]
    places = sorted({p for m, s in zip(mean, sd, strict=True) for p in m + s * np.arange(-8.0, 9.0) if low < p < high})
    cuts = [low, *places, high]
    return float(sum(quad(density, a, b, epsabs=1e-12)[0] for a, b in pairwise(cuts)))


@pytest.mark.parametrize("widths", [(0.5, 0.5), (0.1, 1.0), (1e-3, 1.0), (0.01, 10.0)])
def test_p_best_is_the_integral(widths: tuple[float, float]) -> None:
    """P(best) is within 1e-4 of the integral for like and very unlike standard deviations."""
    generator = np.random.default_rng(SEED)
    for n in (2, 3, 5):
        mean, sd = generator.normal(size=n), np.exp(generator.uniform(np.log(widths[0]), np.log(widths[1]), size=n))
        expected = [by_quadrature(mean, sd, k) for k in range(n)]

        np.testing.assert_allclose(p_best(mean, sd), expected, atol=1e-4)


@pytest.mark.parametrize("n", [2, 10, 50])
def test_p_best_is_the_share_of_draws(n: int) -> None:
    """A million posterior draws have the computed frequencies, within five standard errors of the draws and 1e-4."""
    generator = np.random.default_rng(SEED)
    mean, sd = 0.02 + 0.004 * generator.normal(size=n), 0.004 * generator.exponential(size=n)
    wins = np.zeros(n)
    for _ in range(20):
        wins += np.bincount(generator.normal(mean, sd, size=(DRAWS // 20, n)).argmax(axis=1), minlength=n)

    found = p_best(mean, sd)
    error = np.abs(found - wins / DRAWS)
    assert np.all(error <= 1e-4 + 5.0 * np.sqrt(found * (1.0 - found) / DRAWS))


@pytest.mark.parametrize("n", [60, 300, 500])
def test_p_best_of_hundreds_is_the_integral(n: int) -> None:
    """Leaving out who cannot be the best, and fewer cells for many candidates, stay within 1e-4 of a fine grid."""
    generator = np.random.default_rng(SEED)
    for spread, width in ((0.0, 0.0), (1.0, 0.5), (0.5, 2.0)):
        sd = np.exp(width * generator.uniform(size=n))
        mean = spread * generator.normal(size=n)
        x = np.linspace((mean - 9 * sd).max(), (mean + 9 * sd).max(), 20_001)
        cdf = norm.cdf(x, mean[:, None], sd[:, None])
        mass, hazard = np.diff(cdf.prod(axis=0)), np.diff(np.log(np.maximum(cdf, 1e-300)), axis=1)
        expected = hazard @ np.divide(mass, hazard.sum(axis=0), out=np.zeros_like(mass), where=mass > 0)

        np.testing.assert_allclose(p_best(mean, sd), expected, atol=1e-4)


def test_p_best_does_not_change_with_the_scale() -> None:
    """Cents instead of euros, or a level added to all, change no probability."""
    mean, sd = np.array([0.5, 0.25, 0.0]), np.array([0.25, 0.5, 1.0])
    expected = p_best(mean, sd)

    np.testing.assert_allclose(p_best(1e-9 * mean, 1e-9 * sd), expected, atol=1e-12)
    np.testing.assert_allclose(p_best(4.0 + mean, sd), expected, atol=1e-12)


def test_damping_keeps_closer_to_the_means() -> None:
    """Less of the sample gives the better candidate more, down to certainty."""
    shares = [
        pmf(PURE.model_copy(update={"damping": damping}), [1.0, 0.0], [1.0, 1.0])[0]
        for damping in (1.0, 0.5, 0.25, 0.01)
    ]

    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_what_cannot_be_scored_is_refused() -> None:
    """Unknown, infinite or negative uncertainty, missing candidates and shapes that differ are bad input."""
    for mean, sd in (([np.nan], [1.0]), ([np.inf], [1.0]), ([1.0], [-1.0]), ([1.0, 2.0], [1.0]), ([], [])):
        with pytest.raises(BadInput):
            pmf(PURE, mean, sd)


def test_choose_inverts_the_distribution() -> None:
    """Each index owns an interval of [0, 1) as long as its probability; probability 0 is never drawn."""
    probabilities = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    found = [choose(probabilities, u) for u in (0.0, 0.2499, 0.25, 0.9999999999999999)]

    assert found == [1, 1, 3, 3]


def test_slate_propensities_are_those_of_the_draw() -> None:
    """Every ordered slate is drawn as often as the product of its conditional propensities says."""
    probabilities = np.array([0.5, 0.3, 0.2])
    generator = np.random.default_rng(SEED)
    expected = {
        (a, b): probabilities[a] * probabilities[b] / (1 - probabilities[a]) for a, b in permutations(range(3), 2)
    }
    drawn = dict.fromkeys(expected, 0)
    for uniforms in generator.random((20_000, 2)):
        (a, first), (b, second) = draw_slate(probabilities, uniforms, 2)
        assert first * second == pytest.approx(expected[a, b])
        drawn[a, b] += 1

    for slate, share in expected.items():
        assert abs(drawn[slate] / 20_000 - share) <= 4.0 * np.sqrt(share * (1 - share) / 20_000)


def test_a_slate_has_no_content_twice() -> None:
    """A slate as long as the candidates is a permutation of them, and longer ones stop there."""
    slate = draw_slate(np.array([0.98, 0.01, 0.01]), [0.5, 0.5, 0.5, 0.5], 4)

    assert sorted(index for index, _ in slate) == [0, 1, 2]
    assert slate[-1][1] == 1.0


def test_below_a_named_control_the_rest_is_uniform() -> None:
    """A point mass leaves nothing to divide among the further positions, so these are drawn uniformly."""
    found = draw_slate(np.array([0.0, 1.0, 0.0]), [0.9, 0.9, 0.9], 3)

    assert found == [(1, 1.0), (2, 0.5), (0, 1.0)]


def test_baseline_is_restricted_to_the_candidates() -> None:
    """Contents that are excluded give their share to the others; contents that came later get none."""
    baseline = {"content_ids": ["a", "b", "c"], "weights": [0.5, 0.25, 0.25]}

    assert baseline_pmf(baseline, ["a", "b", "d"]).tolist() == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert baseline_pmf(baseline, ["d", "e"]).tolist() == [0.5, 0.5]
    with pytest.raises(BadInput, match="no candidate"):
        baseline_pmf(baseline, [])


def test_policy_version_changes_with_any_setting() -> None:
    """The version names the kind, is stable, and differs when a setting differs."""
    settings = PolicySettings()
    changed = settings.model_copy(update={"floor": 0.02})

    assert policy_version(settings) == policy_version(PolicySettings())
    assert policy_version(settings).startswith("posterior@")
    assert policy_version(settings) != policy_version(changed)
