"""Step 5 of the generate flow: which of the drafts that pass are kept."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from ingestion.events import Content
from pipelines.generation import steps
from pipelines.generation.best_of import Weighed
from pipelines.generation.generators import Draft
from pipelines.generation.steps import Brief, Checked, score


@pytest.mark.parametrize(("distance", "compared"), [(9.0, False), (0.5, True)])
def test_of_copy_that_is_all_unlike_what_is_known_the_lot_keeps_some(
    distance: float, compared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first campaign about something new gets its copy: the lot decides where the model knows nothing, else the model does."""
    texts = [f"line {place}" for place in range(6)]
    promise = np.arange(6.0)
    weighed = Weighed(texts, promise, promise, np.full(6, distance), 1.0)
    monkeypatch.setattr(steps, "weigh", lambda *_: weighed)
    wish = SimpleNamespace(count=3)
    brief = SimpleNamespace(model="any", support=None, contexts=({},), past=[], wish=wish, seed=1)
    draft = cast(Draft, None)
    checked = [Checked(draft, Content(content_id=text, campaign_id="c", slots={"subject": text}), ()) for text in texts]

    kept = [one.place for one in score(cast(Brief, brief), checked).kept]

    assert len(set(kept)) == 3
    assert (5 in kept and 4 in kept) or not compared
    assert compared or kept == [int(place) for place in np.random.default_rng(1).permutation(6)[:3]]
