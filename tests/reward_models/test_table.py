"""Rows of features are the same, whole or in parts."""

from typing import Any

import numpy as np
import pytest

from reward_models import table as tables
from reward_models.features import build_schema, content_rows, context_rows
from reward_models.table import Table
from tests.reward_models.training import copy, history, training_set

CONTENTS = (copy("a", "Now?", tone="warm"), copy("b", "Later", tone="loud", discount=5.0))
CONTEXTS: tuple[dict[str, Any], ...] = (
    {"city": "Bonn", "age": 30},
    {"age": 4.5, "new": True},
    {"city": "Köln"},
    {},
    {"city": "Bonn"},
)


def test_some_rows_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions and past results, in blocks of two: context, position, content and text score of each row; past results
    have no context."""
    monkeypatch.setattr(tables, "_BLOCK", 2)
    past = history(CONTENTS, (10, 20), (0.1, 0.2))
    training = training_set(
        CONTENTS, past, content=[0, 1, 1, 0, 1], contexts=CONTEXTS, reward=[1, 0, 0, 1, 0], position=[1, 2, 3, 1, 2]
    )
    schema, scores = build_schema(training.contexts, CONTENTS), np.array([0.25, np.nan])
    content, position = np.array([0, 1, 1, 0, 1, 0, 1]), np.array([1, 2, 3, 1, 2, 1, 1])
    expected = np.hstack(
        [context_rows(schema, [*CONTEXTS, {}, {}], position), content_rows(schema, CONTENTS, scores)[content]]
    )

    table = Table.of(schema, training, content, position)

    for index in ([0, 1, 2, 3, 4, 5, 6], [1, 4, 6], [5], []):
        np.testing.assert_equal(table.rows(np.array(index, dtype=np.int64), scores), expected[index])
