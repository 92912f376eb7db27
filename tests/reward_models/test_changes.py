"""What a change of wording was worth, where it was tested alone."""

import numpy as np
import pytest

from reward_models.changes import Tested, Variant, single_change
from reward_models.distances import Change


def variant(campaign: str, name: str, subject: str, deviation: float, noise: float = 1e-4) -> Variant:
    """A content with one slot."""
    return Variant(campaign, f"{campaign}-{name}", (("subject", subject),), deviation, noise)


def test_a_change_that_was_tested_has_its_effect() -> None:
    """Putting in what another content had instead is worth the difference; the other way round it costs as much."""
    tested = Tested.of([variant("c", "a", "Save 20% today", 0.1), variant("c", "b", "Get 20% today", -0.1)])

    there, back = tested.effect(Change("Get", "Save")), tested.effect(Change("save", "get"))

    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(0.2)
    assert back.value == pytest.approx(-0.2)
    assert there.tests == 1
    assert there.low == pytest.approx(0.2 - 1.96 * 2e-4**0.5)


def test_two_changes_at_once_test_neither() -> None:
    """Contents that differ in two places, in two slots or in what slots they have say nothing of a single change."""
    assert single_change((("s", "a b c d"),), (("s", "x b c y"),)) is None
    assert single_change((("s", "a"), ("t", "b")), (("s", "x"), ("t", "y"))) is None
    assert single_change((("s", "a"),), (("t", "a"),)) is None
    assert single_change((("s", "a b"),), (("s", "a c"),)) == Change("b", "c")
    assert Tested.of([variant("c", "a", "one two", 0.1), variant("d", "b", "one three", 0.3)]).found == {}


def test_the_interval_covers_the_mean_effect() -> None:
    """Over many worlds with effects that differ between campaigns, 95 % intervals cover the mean effect."""
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        variants = []
        for place in range(12):
            effect = random.normal(0.1, 0.05)
            for name, subject, true in (("a", "Get it now", 0.0), ("b", "Get it soon", effect)):
                variants.append(variant(f"c{place}", name, subject, random.normal(true, 0.03), 0.03**2))
        found = Tested.of(variants).effect(Change("now", "soon"))
        assert found is not None
        covered += found.low < 0.1 < found.high

    assert covered >= 178
