"""Contexts as columns that take noise out of a lift."""

import numpy as np

from reward_models.covariates import MOST_COLUMNS, context_columns, varying


def test_numbers_stand_and_texts_become_columns() -> None:
    """A number keeps its value, a missing one stands at the mean; each text value has a column of its own."""
    table = context_columns([{"age": 20, "tier": "gold"}, {"age": 40, "tier": "new"}, {"tier": "new"}])

    assert table.tolist() == [[20.0, 1.0, 0.0], [40.0, 0.0, 1.0], [30.0, 0.0, 1.0]]


def test_there_are_never_many_columns() -> None:
    """However many names and values there are, the commonest twenty are kept, and rare values are left out."""
    contexts = [{f"x{name}": unit % 7 for name in range(30)} | {"id": f"u{unit}"} for unit in range(200)]

    assert context_columns(contexts).shape == (200, MOST_COLUMNS)
    assert context_columns([{"id": f"u{unit}"} for unit in range(200)]).shape == (200, 0)


def test_columns_that_tell_nothing_go() -> None:
    """What is the same for everybody is left out; nobody at all is no column problem."""
    assert varying(np.array([[1.0, 2.0], [1.0, 3.0]])).tolist() == [[2.0], [3.0]]
    assert varying(np.empty((0, 4))).shape == (0, 4)
