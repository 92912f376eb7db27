"""The surrogate index on real households whose late spending is known: Complete Journey."""

import pytest

from tests.benchmarks.bench_surrogate import load_panel, run

pytestmark = pytest.mark.data


def test_early_baskets_foretell_late_spending_of_other_households() -> None:
    """Learned on one half in spring, the index explains late spending held out; of a large lasting lift in the other half in
    summer it has the sign that the late outcome shows, understates it, and is flagged for that; without a lift it is
    neither sure nor flagged."""
    panel = load_panel()
    if panel is None:
        pytest.skip("Complete Journey is not beside the checkout")
    lifted, plain = run(panel, 0.5, 3), run(panel, 0.0, 3)

    assert plain.explained > 0.1
    assert lifted.index.low > 0.0
    assert lifted.direct.low > 0.0
    assert lifted.index.value < lifted.truth
    assert lifted.doubted
    assert not plain.index.sure
    assert not plain.doubted
