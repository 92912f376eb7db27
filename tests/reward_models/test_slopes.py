"""Slopes of many contents together: shared ones are found, scales follow the evidence, the algebra is that of ridge."""

import numpy as np
import pytest

from reward_models.slopes import BENT, CONSTANT, STRAIGHT, Slopes, fit_slopes

SEED = 20_261_122


def world(
    n: int, contents: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Contexts with three columns, contents at random, one feature in two values."""
    z = np.hstack([np.ones((n, 1)), generator.normal(size=(n, 3))])
    f = np.array([[1.0, (-1.0) ** k] for k in range(contents)])
    return z, np.array([CONSTANT, *[STRAIGHT] * 3]), generator.integers(0, contents, n), f


def explained(found: Slopes, z: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Σ over shared and own slopes, (n, K)."""
    return np.asarray(z @ found.shared @ f.T + z @ found.own.T)


def test_what_features_owe_to_contexts_is_shared() -> None:
    """A taste that goes with the feature alone is told of a content that was never shown, and no content has its own."""
    generator = np.random.default_rng(SEED)
    z, kind, content, f = world(3_000, 8, generator)
    content = np.minimum(content, 6)
    y = z[:, 1] * f[content, 1] + generator.normal(size=len(z))
    found = fit_slopes(z, kind, content, y - y.mean(), f)

    assert explained(found, z, f)[:, 7] == pytest.approx(z[:, 1] * f[7, 1], abs=0.3)
    assert np.abs(found.own[:, 1:]).max() < 0.1


def test_tastes_without_a_feature_are_each_contents_own() -> None:
    """Slopes that no feature tells are found content by content, each within three posterior standard deviations."""
    generator = np.random.default_rng(SEED)
    z, kind, content, f = world(4_000, 6, generator)
    slope = generator.normal(size=(6, 3))
    y = (z[:, 1:] * slope[content]).sum(axis=1) + generator.normal(size=len(z))
    found = fit_slopes(z, kind, content, y - y.mean(), f)
    total = found.own[:, 1:] + (found.shared[1:] @ f.T).T
    sd = np.sqrt(np.diagonal(found.own_covariance, axis1=1, axis2=2)[:, 1:])

    assert total == pytest.approx(slope, abs=0.15)
    assert np.mean(np.abs(total - slope) < 3.0 * sd) >= 0.94


def test_noise_explains_nothing() -> None:
    """Where nothing is to be told, all groups together move the reward by less than a tenth of its deviation."""
    generator = np.random.default_rng(SEED)
    z, kind, content, f = world(3_000, 5, generator)
    y = generator.normal(size=len(z))
    found = fit_slopes(z, kind, content, y - y.mean(), f)

    assert explained(found, z, f)[:, :].std() < 0.1


def test_elimination_gives_the_joint_posterior() -> None:
    """Means and shared covariance are those of one regression on all coefficients with the same prior."""
    generator = np.random.default_rng(SEED)
    z, kind, content, f = world(60, 3, generator)
    kind = np.array([CONSTANT, STRAIGHT, STRAIGHT, BENT])
    y = z[:, 1] + generator.normal(size=len(z))
    found = fit_slopes(z, kind, content, y - y.mean(), f)

    shown = np.eye(3)[content]
    design = np.hstack(
        [(z[:, :, None] * f[content][:, None, :]).reshape(60, -1), (shown[:, :, None] * z[:, None, :]).reshape(60, -1)]
    )
    mean = np.concatenate([found.shared.ravel(), found.own.ravel()])
    pull = design.T @ (y - y.mean()) - design.T @ design @ mean  # = prior precision · mean, the same in each group
    used = np.abs(mean) > 1e-8
    ratio = pull[used] / mean[used]
    groups = np.concatenate([np.stack([kind, kind + 3], axis=1).ravel(), np.tile(kind + 6, 3)])[used]

    assert all(np.ptp(ratio[groups == one]) < 1e-6 * abs(ratio[groups == one]).max() for one in np.unique(groups))
    assert (ratio > 0.0).all()


def test_bent_columns_take_no_part_in_features() -> None:
    """What contents have in common by their features is straight: bent columns have no slope there."""
    generator = np.random.default_rng(SEED)
    z, _, content, f = world(500, 4, generator)
    y = z[:, 3] * f[content, 1]
    found = fit_slopes(z, np.array([CONSTANT, STRAIGHT, STRAIGHT, BENT]), content, y - y.mean(), f)

    assert found.shared[3, 1] == 0.0
    assert np.abs(found.own[:, 3]).min() > 0.5
