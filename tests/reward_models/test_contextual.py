"""The layer of contexts: planted slopes are found, silence where there are none, targeting fools nobody."""

from typing import Any

import numpy as np
import pytest

from reward_models.contextual import LEAST, fit_contextual, fit_encoder

SEED = 20_261_122
IDS = ["a", "b", "c"]


def customers(count: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Tiers and ages."""
    return [
        {"tier": str(generator.choice(["new", "old"])), "age": float(generator.integers(20, 70))} for _ in range(count)
    ]


def test_planted_taste_is_found() -> None:
    """Who likes which content is learned from rewards, and the posterior is surer with more decisions."""
    generator = np.random.default_rng(SEED)
    sure, layers = [], []
    for count in (200, 2_000):
        contexts, shown = customers(count, generator), generator.integers(0, 3, count)
        liked = np.array([{"new": 0, "old": 1}[one["tier"]] for one in contexts])
        reward = (generator.random(count) < np.where(shown == liked, 0.5, 0.2)).astype(float)
        found = fit_contextual(contexts, shown, reward, IDS, [{}] * 3)
        assert found is not None
        sure.append(found.at({"tier": "new", "age": 45.0}, IDS)[1].mean())
        layers.append(found)
    new, old = (layers[-1].at({"tier": tier, "age": 45.0}, IDS)[0] for tier in ("new", "old"))

    assert new[0] - new[1] == pytest.approx(0.3, abs=0.08)
    assert old[1] - old[0] == pytest.approx(0.3, abs=0.08)
    assert sure[1] < sure[0]


def test_intervals_hold_the_truth() -> None:
    """Where the model is right, true slopes lie within two standard deviations in about 95 of 100 cases."""
    generator = np.random.default_rng(SEED)
    inside = []
    for _ in range(60):
        slopes, x, shown = 0.3 * generator.normal(size=(3, 2)), generator.normal(size=(400, 2)), np.arange(400) % 3
        reward = (slopes[shown] * x).sum(axis=1) + generator.normal(size=400)
        found = fit_contextual([{"u": u, "v": v} for u, v in x.tolist()], shown, reward, IDS, [{}] * 3)
        assert found is not None
        mean, variance = found.at({"u": 1.0, "v": 1.0}, IDS)
        truth = slopes.sum(axis=1)
        inside += (np.abs((mean - mean.mean()) - (truth - truth.mean())) <= 2.0 * np.sqrt(variance)).tolist()

    assert 0.90 <= np.mean(inside) <= 1.0


def test_contexts_that_tell_nothing_say_nothing() -> None:
    """Without any taste the layer moves no content by more than a tenth of a standard deviation of the reward."""
    generator = np.random.default_rng(SEED)
    contexts, shown = customers(3_000, generator), generator.integers(0, 3, 3_000)
    found = fit_contextual(contexts, shown, generator.normal(size=3_000), IDS, [{}] * 3)

    assert found is not None
    assert max(np.abs(found.at(one, IDS)[0]).max() for one in contexts[:100]) < 0.1


def test_like_contents_borrow_from_each_other() -> None:
    """What a kind of content owes to a kind of customer holds for one of that kind that was never shown."""
    generator = np.random.default_rng(SEED)
    features = [{"discount": bool(index % 2)} for index in range(6)]
    contexts, shown = customers(3_000, generator), generator.integers(0, 5, 3_000)
    likes = np.array([(one["tier"] == "new") == bool(index % 2) for one, index in zip(contexts, shown, strict=True)])
    reward = (generator.random(3_000) < np.where(likes, 0.3, 0.1)).astype(float)
    ids = [f"c{index}" for index in range(6)]
    found = fit_contextual(contexts, shown, reward, ids, features)

    assert found is not None
    new = found.at({"tier": "new", "age": 45.0}, ids)[0]
    assert new[5] - new[4] == pytest.approx(0.2, abs=0.05)


def test_targeting_is_expected_of_a_content() -> None:
    """Of two equal contents the one shown to better customers is expected to earn more, by what these bring."""
    generator = np.random.default_rng(SEED)
    good = generator.random(4_000) < 0.5
    shown = (generator.random(4_000) < np.where(good, 0.8, 0.2)).astype(np.int64)
    reward = (generator.random(4_000) < np.where(good, 0.4, 0.1)).astype(float)
    found = fit_contextual([{"good": bool(one)} for one in good], shown, reward, ["a", "b"], [{}] * 2)

    assert found is not None
    usual = found.usual_of(["a", "b"])
    assert usual[1] - usual[0] == pytest.approx(0.3 * 0.6, abs=0.03)


def test_a_content_registered_since_is_average_and_unsure() -> None:
    """An unknown content gets the mean of the known ones and the largest of their variances."""
    generator = np.random.default_rng(SEED)
    contexts, shown = customers(300, generator), generator.integers(0, 3, 300)
    found = fit_contextual(contexts, shown, generator.random(300), IDS, [{}] * 3)

    assert found is not None
    mean, variance = found.at(contexts[0], [*IDS, "new"])
    assert (mean[3], variance[3]) == pytest.approx((mean[:3].mean(), variance[:3].max()))
    assert found.usual_of(["new"]).tolist() == [0.0]


def test_nothing_to_learn_from_is_no_layer() -> None:
    """Too few decisions, equal rewards, or contexts that never vary."""
    few = [{"x": float(index)} for index in range(LEAST - 1)]
    same = [{"x": 1.0}] * 100

    assert fit_contextual(few, np.zeros(len(few), dtype=np.int64), np.arange(float(len(few))), ["a"], [{}]) is None
    assert fit_contextual(same, np.zeros(100, dtype=np.int64), np.arange(100.0), ["a"], [{}]) is None
    assert fit_contextual([{"x": 1}, {"x": 2}] * 50, np.zeros(100, dtype=np.int64), np.zeros(100), ["a"], [{}]) is None


def test_contexts_become_columns() -> None:
    """Numbers are scaled, words get a column each, what is missing or unknown is the mean."""
    encoder = fit_encoder([{"n": 1, "w": "a"}, {"n": 3, "w": "b"}, {"n": None, "w": "b"}], 64)

    assert encoder.columns == (("n", None), ("w", "a"), ("w", "b"))
    assert encoder.rows([{"n": 3, "w": "b"}])[0, 0] == pytest.approx(1.0)
    assert encoder.rows([{}]).tolist() == [[0.0, 0.0, 0.0]]
    assert len(fit_encoder([{f"x{i}": i * j for i in range(1, 9)} for j in range(3)], 5).columns) == 5


def test_an_absurd_number_is_followed_no_further_than_seen() -> None:
    """A context far outside of what was seen counts as its edge: a typing error makes no infinite reward."""
    generator = np.random.default_rng(SEED)
    contexts, shown = customers(300, generator), generator.integers(0, 3, 300)
    found = fit_contextual(contexts, shown, generator.random(300), IDS, [{}] * 3)

    assert found is not None
    far, further = (found.at({"tier": "new", "age": age}, IDS) for age in (1e4, 1e300))
    assert np.isfinite(far).all()
    assert np.array_equal(far, further)


def test_columns_without_numbers_do_no_harm() -> None:
    """Lists, nothing at all and numbers beyond all bounds are missing values."""
    contexts = [{"x": None, "y": [1], "z": 1e300 * (index % 2), "n": index} for index in range(50)]
    found = fit_contextual(contexts, np.arange(50) % 3, np.arange(50.0), IDS, [{}] * 3)

    assert found is not None
    assert np.isfinite(found.at({"z": 1e300}, IDS)).all()


def test_a_bent_taste_is_found() -> None:
    """Who is in the middle may like another content than those at both ends: no line says so, landmarks do."""
    generator = np.random.default_rng(SEED)
    x, shown = generator.normal(size=1_500), generator.integers(0, 2, 1_500)
    liked = (np.abs(x) < 0.7).astype(np.int64)
    reward = (generator.random(1_500) < np.where(shown == liked, 0.6, 0.2)).astype(float)
    found = fit_contextual([{"x": one} for one in x], shown, reward, ["ends", "middle"], [{}] * 2)

    assert found is not None
    low, middle, high = (np.diff(found.at({"x": one}, ["ends", "middle"])[0])[0] for one in (-1.5, 0.0, 1.5))
    assert max(low, high) < -0.2
    assert middle > 0.2


def test_many_columns_of_many_contents_are_fewer_directions() -> None:
    """With hundreds of contents a context of sixty columns is kept by its principal directions, and still tells."""
    generator = np.random.default_rng(SEED)
    factor, shown = generator.normal(size=2_000), generator.integers(0, 400, 2_000)
    contexts = [
        {f"x{i}": v for i, v in enumerate(row)} for row in (factor[:, None] + 0.5 * generator.normal(size=(2_000, 60)))
    ]
    features = [{"kind": bool(k % 2)} for k in range(400)]
    reward = factor * np.where(shown % 2, 1.0, -1.0) + generator.normal(size=2_000)
    found = fit_contextual(contexts, shown, reward, [f"c{k}" for k in range(400)], features)

    assert found is not None
    assert found.shared.shape[0] < 40
    odd, even = (found.at({f"x{i}": 1.0 for i in range(60)}, [name])[0][0] for name in ("c1", "c2"))
    assert odd - even == pytest.approx(2.0, abs=0.5)


def test_what_a_context_adds_is_the_posteriors_own() -> None:
    """Mean and variance are those of (1, x)'·(β + B·f_k + δ_k), term by term, without what all contents share."""
    generator = np.random.default_rng(SEED)
    contexts, shown = customers(400, generator), generator.integers(0, 3, 400)
    found = fit_contextual(contexts, shown, generator.random(400), IDS, [{"long": k} for k in range(3)])
    assert found is not None
    x = np.concatenate([[1.0], found.encoder.rows(contexts[:1])[0]])
    means = [x @ found.shared @ f + x[1:] @ own for f, own in zip(found.features, found.own, strict=True)]
    variances = [
        np.einsum("i,iajb,j,a,b->", x, found.shared_covariance[:, 1:, :, 1:], x, f[1:], f[1:]) + x[1:] @ own @ x[1:]
        for f, own in zip(found.features, found.own_covariance, strict=True)
    ]

    mean, variance = found.at(contexts[0], IDS)

    np.testing.assert_allclose(mean, means, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, variances, rtol=1e-9, atol=1e-12)
