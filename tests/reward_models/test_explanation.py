"""Explanations: the score of a text in words a marketer can act on."""

import numpy as np
import pytest

from ingestion.events import Content
from reward_models.boosted import RewardModel, fit
from reward_models.explanation import LEAST, MOST, Reason, reasons, sentence
from tests.reward_models.training import SMALL, copy, training_set, worded


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A model of texts in which the word "secret" is worth +60 %."""
    return fit(worded(), SMALL)


def test_the_word_that_sells_is_named_first(model: RewardModel) -> None:
    """ "secret" is the strongest reason of a text that holds it, with a gain; a text without it is not told it gains."""
    with_it, without = reasons(model, [copy("a", "Old Secret garden"), copy("b", "Old common garden")])

    assert with_it[0].what in ("“Secret”", "surprise", "words: surprise")
    assert "“Secret”" in [reason.what for reason in with_it]
    assert all(reason.effect > 0 for reason in with_it if reason.what == "“Secret”")
    assert "“Secret”" not in [reason.what for reason in without]


def test_reasons_are_few_strong_and_ordered(model: RewardModel) -> None:
    """At most ``MOST``, none below ``LEAST``, the strongest first."""
    (found,) = reasons(model, [copy("a", "Old secret garden table summer letter bridge market")])

    sizes = [abs(reason.effect) for reason in found]
    assert 0 < len(found) <= MOST
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= LEAST


def test_a_feature_that_decides_is_named() -> None:
    """Contents without text are explained by their features."""
    contents = [Content(content_id=o, campaign_id="c", slots={}, features={"offer": o}) for o in ("mens", "womens")]
    shown = np.random.default_rng(3).integers(0, 2, 4_000)
    reward = (np.random.default_rng(4).random(4_000) < np.array([0.3, 0.1])[shown]).astype(float)
    model = fit(training_set(contents, content=shown.tolist(), reward=reward.tolist()), SMALL)

    first, second = reasons(model, contents)

    assert [reason.what for reason in (*first, *second)] == ["offer: mens", "offer: womens"]
    assert first[0].effect > 0.1 > -0.1 > second[0].effect


def test_a_sentence_of_reasons() -> None:
    """Signs and one digit of percent; nothing to say is an empty line."""
    assert sentence([Reason("question", 0.0312), Reason("“x”", -0.01)]) == "question +3.1 %; “x” −1.0 %"
    assert sentence([]) == ""
