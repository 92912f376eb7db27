"""What trees are told of their rows."""

import numpy as np

from reward_models.trees import Aim, Trees, staged, start
from tests.reward_models.training import SMALL


def world(count: int = 800, seed: int = 5) -> tuple[np.ndarray, Aim]:
    """Three campaigns of different levels; the first column is worth 1 within each, the last is the text score."""
    draw = np.random.default_rng(seed)
    matrix = np.column_stack([draw.integers(0, 2, count), draw.normal(size=count), draw.normal(size=count) * 0.01])
    campaign = draw.integers(0, 3, count)
    deviation = matrix[:, 0] + 10.0 * campaign + 0.1 * draw.normal(size=count)
    return matrix, Aim(deviation, draw.uniform(0.5, 1.5, count), campaign)


def test_levels_of_campaigns_teach_nothing() -> None:
    """Adding a number to all rows of a campaign leaves the trees as they are, to the last bit of their splits."""
    matrix, aim = world()
    lifted = Aim(aim.deviation + np.array([0.0, 64.0, -8.0])[aim.campaign], aim.weights, aim.campaign)

    found, other = (
        staged(Trees(matrix, [], each, SMALL).train(20), matrix, [20])[0] - start(matrix) for each in (aim, lifted)
    )

    np.testing.assert_allclose(found, other, atol=1e-5)
    assert found[matrix[:, 0] == 1].mean() - found[matrix[:, 0] == 0].mean() > 0.5


def test_some_rows_of_a_set_are_a_set_of_their_own() -> None:
    """A booster of some rows does not see the others: their outcomes change nothing."""
    matrix, aim = world()
    rows = np.flatnonzero(np.arange(len(matrix)) % 3)
    spoiled = aim.deviation.copy()
    spoiled[::3] = 1e3

    texts = [
        Trees(matrix, [], Aim(d, aim.weights, aim.campaign), SMALL).train(5, rows) for d in (aim.deviation, spoiled)
    ]

    assert texts[0] == texts[1]


def test_stages_are_sums_of_the_first_trees() -> None:
    """After the last stage g is what the whole booster says; after an earlier one, what its first trees say."""
    matrix, aim = world()
    text = Trees(matrix, [], aim, SMALL).train(6)

    found = staged(text, matrix, [2, 6])

    np.testing.assert_allclose(found[1], staged(text, matrix, [6])[0], atol=1e-12)
    np.testing.assert_allclose(found[0], staged(text, matrix, [2])[0], atol=1e-12)
    assert not np.allclose(found[0], found[1])
