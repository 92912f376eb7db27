"""Late effects from early outcomes: right where surrogacy holds, flagged where it does not."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.database import reading
from infra.errors import BadInput, EstimateRefused
from infra.secrets import Secrets
from reward_models.assignment import load_register
from reward_models.episodes.early import Spans, samples
from reward_models.episodes.surrogates import Sample, difference, surrogate
from tests.pipelines.holdout_world import BEGAN, fill, shop

GAIN = 0.5
"""What treatment adds to early visits; each visit is worth 2 later."""


def customers(n: int, seed: int, *, clickbait: bool = False, worth: float = 2.0) -> Sample:
    """Early visits depend on what was known before and on treatment, the late outcome on visits and noise. Clickbait:
    what treatment adds to visits is worth nothing later."""
    random = np.random.default_rng(seed)
    before = random.normal(size=(n, 2))
    treatment = random.random(n) < 0.5
    usual = np.exp(0.3 * before[:, 0])
    visits, more = random.poisson(usual), random.poisson(GAIN * treatment)
    late = worth * (visits + (0 if clickbait else 1) * more) + before[:, 1] + random.normal(size=n)
    early = np.column_stack([visits + more, random.normal(size=n)])
    return Sample(early.astype(np.float64), before, treatment, late)


def hidden(sample: Sample) -> Sample:
    """The same customers before their late outcome is known."""
    return replace(sample, late=None)


def test_early_outcomes_foretell_the_late_effect() -> None:
    """Where treatment acts through what is seen early, the index has the late effect in its interval, which is narrower than
    that of the late outcome itself, and nothing is flagged."""
    new = customers(1_500, 2)
    found = surrogate(customers(1_500, 1), hidden(new))
    assert new.late is not None
    direct = difference(new.late, new.treatment)

    assert found.effect.low < 2.0 * GAIN < found.effect.high
    assert found.effect.high - found.effect.low < direct.high - direct.low
    assert found.trusted
    assert found.explained > 0.5
    assert (found.known, found.customers) == (1_500, 1_500)


def test_clickbait_is_flagged() -> None:
    """Where treatment raises early visits and nothing else, the index promises what never comes: known customers say so."""
    found = surrogate(customers(1_500, 3, clickbait=True), hidden(customers(1_500, 4, clickbait=True)))

    assert found.effect.low > 0.0
    assert not found.trusted
    assert found.missed is not None
    assert found.missed.high < 0.0
    assert "Surrogacy fails" in found.flags[0]


def test_a_relation_that_changed_is_flagged() -> None:
    """Where visits became worth less half-way, later known customers have less than the index says."""
    first, second = customers(800, 5), customers(800, 6, worth=1.0)
    assert first.late is not None
    assert second.late is not None
    both = Sample(
        np.vstack([first.early, second.early]),
        np.vstack([first.before, second.before]),
        np.append(first.treatment, second.treatment),
        np.append(first.late, second.late),
    )
    found = surrogate(both, hidden(customers(500, 7)))

    assert found.drift.high < 0.0
    assert any("The relation changed" in flag for flag in found.flags)


def test_outcomes_that_tell_nothing_are_flagged() -> None:
    """Early outcomes without any relation to the late one are said to be useless; so is a known group that is missing."""
    sample = customers(600, 8)
    deaf = replace(sample, early=np.random.default_rng(9).normal(size=(600, 2)))
    alone = replace(sample, treatment=np.ones(600, dtype=np.bool_))

    assert any("can hardly show" in flag for flag in surrogate(deaf, hidden(sample)).flags)
    unchecked = surrogate(alone, hidden(sample))
    assert unchecked.missed is None
    assert any("could not be checked" in flag for flag in unchecked.flags)


def test_too_few_customers_are_refused() -> None:
    """An index needs customers whose late outcome is known, and that it differs."""
    enough = customers(300, 1)
    with pytest.raises(EstimateRefused, match="needs 100 customers"):
        surrogate(customers(90, 1), hidden(enough))
    with pytest.raises(EstimateRefused, match="needs 100 customers"):
        surrogate(hidden(enough), hidden(enough))
    with pytest.raises(EstimateRefused, match="all known late outcomes are equal".capitalize()):
        surrogate(replace(enough, late=np.zeros(300)), hidden(enough))


def test_difference_by_hand() -> None:
    """Means 3 and 1, variances 2 and 2 over two each: 2 ± 1.96·√2."""
    found = difference(np.array([2.0, 4.0, 0.0, 2.0]), np.array([True, True, False, False]))

    assert found == pytest.approx((2.0, 2.0 - 1.96 * 2**0.5, 2.0 + 1.96 * 2**0.5), abs=1e-3)
    assert not found.sure


def test_customers_come_from_the_store(engine: Engine, secrets: Secrets) -> None:
    """Known are those whose late span has passed, new those whose early one has; early outcomes are every metric, late the
    one that was asked for."""
    fill(engine, secrets, shop(), customers=300)
    now = BEGAN + 12 * DAY
    with reading(engine) as connection:
        register = load_register(connection, shop())
    known, new = samples(register, shop(), "revenue", Spans(2 * DAY, 5 * DAY), now)
    ripe = [each.decided_at for each in register.first]

    assert len(known) == sum(at <= now - 5 * DAY for at in ripe)
    assert len(new) == sum(now - 5 * DAY < at <= now - 2 * DAY for at in ripe)
    assert known.early.shape[1] == 3
    assert known.late is not None
    assert set(known.late.tolist()) == {0.0, 20.0}
    assert new.late is None
    with pytest.raises(BadInput, match="longer than the early"):
        samples(register, shop(), "revenue", Spans(2 * DAY, 2 * DAY), now)
