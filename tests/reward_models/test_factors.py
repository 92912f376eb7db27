"""Copy factors and word groups: what they say of a text."""

import numpy as np
import pytest

from reward_models.factors import FACTORS, NAMES, measured
from reward_models.lexicon import GROUPS, counts, sentiment


@pytest.mark.parametrize(
    ("factor", "text", "expected"),
    [
        ("characters", "Hello you", 9),
        ("words", "Hello you", 2),
        ("sentences", "One. Two! Three", 2),
        ("question", "Ready?", 1),
        ("exclamation", "Ready?", 0),
        ("number", "7 days", 1),
        ("percentage", "20 % off", 1),
        ("money", "Only $5", 1),
        ("money", "5 days", 0),
        ("upper_share", "ABcd", 0.5),
        ("upper_share", "123", 0),
        ("emoji", "Hi 🎉", 1),
        ("you", "This is yours", 1),
        ("you", "Youth club", 0),
        ("urgency", "Last chance", 1),
        ("urgency", "Knowledge", 0),
        ("offer", "Get a discount", 1),
        ("negative", "Never again", 1),
        ("personalised", "Hi {{ first_name }}", 1),
        ("quote", "He said “no”", 1),
        ("quote", "It's fine", 0),
        ("colon", "News: today", 1),
        ("ellipsis", "And then…", 1),
        ("word_length", "One three", 4),
        ("begins_with_number", "7 days left", 1),
        ("begins_with_number", "In 7 days", 0),
        ("shouting", "A HUGE sale", 1),
        ("shouting", "An FAQ", 0),
        ("first_person", "What I told my friends", 2),
        ("third_person", "She told him", 2),
        ("exclusive", "For members only", 1),
        ("newness", "Introducing our latest", 2),
        ("points_ahead", "Here's what this does", 2),
        ("why_how", "Why it works", 1),
        ("surprise", "The hidden truth", 2),
        ("superlative", "The best and worst of the most we ever had", 3),
        ("feeling", "We love it", 1),
        ("comma", "Well, well", 1),
        ("brackets", "Soon (really)", 1),
        ("ends_with_period", "The end.", 1),
        ("ends_with_period", "The end...", 0),
    ],
)
def test_copy_factors(factor: str, text: str, expected: float) -> None:
    """Each factor measures what its name says."""
    assert expected == FACTORS[factor](text)


def test_reading_ease_follows_flesch() -> None:
    """Five words of one syllable in one sentence: 206.835 − 1.015·5 − 84.6, held at 120; long words score low."""
    ease = FACTORS["reading_ease"]

    assert ease("") == 0.0
    assert ease("A cat sat on it.") == pytest.approx(min(120.0, 206.835 - 1.015 * 5 - 84.6))
    assert ease("Institutional considerations necessitate deliberation.") == 0.0
    assert 50 < ease("We made the new summer offer easier to order today.") < 100


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("I love this beautiful gift", 0.2, 1.0),
        ("A terrible, painful mistake", -1.0, -0.2),
        ("This is not good", -1.0, -0.2),
        ("The table has four legs", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_sentiment(text: str, low: float, high: float) -> None:
    """Good words raise it, bad ones lower it, a negation before them turns them round; plain words are 0."""
    assert low <= sentiment(text) <= high


def test_a_word_counts_in_each_of_its_groups() -> None:
    """ "doctor" is about health, "kids" about children; a curly apostrophe is an apostrophe."""
    assert (counts("A doctor for kids")["health"], counts("A doctor for kids")["kids"]) == (1, 1)
    assert counts("I’m here")["i_we"] == counts("I'm here")["i_we"] == 1


def test_words_of_groups_are_words() -> None:
    """Every entry can be met in a text: it is one word, in small letters."""
    assert [
        word for group, entries in GROUPS.items() for word in entries.split() if not counts(word).get(group, 0)
    ] == []


def test_everything_measured_has_a_name_and_is_finite() -> None:
    """One number per name for any text, in any alphabet."""
    for text in ("", "Ünïcödé 🎉 Привет", "7 Reasons You'll LOVE this… (really)"):
        assert (len(NAMES),) == measured(text).shape
        assert np.isfinite(measured(text)).all()
