"""What is written down about a model, in business words."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.papers import Evaluation, figures, report
from reward_models.aging import Aging
from reward_models.boosted import fit
from tests.reward_models.training import SMALL, definition, targeted


@pytest.mark.parametrize("half_life", [None, 8.0])
def test_the_report_says_when_old_counts_are_forgotten(half_life: float | None) -> None:
    """A half-life is a metric and a sentence; a loop that forgets nothing has neither."""
    training = targeted(400)
    model = replace(fit(training, SMALL), aging=Aging(half_life=half_life))
    about, nothing = (definition(), training, training.subset(np.arange(0)), model), Evaluation(None, {}, None, "")
    metrics = figures(*about, None, nothing)
    told = " ".join(report(*about, metrics, nothing, {}, "first", None).changed)

    assert metrics.get("half_life_days") == half_life
    assert ("half after 8 days" in told) == (half_life is not None)
