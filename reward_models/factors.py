"""Copy factors: what a marketer can see in a text and change, as numbers.

    FACTORS[name](text) -> float        one column per slot of the booster
    measured(text) -> (f,)              the same and the word groups of ``lexicon.py``, for the text model
    NAMES                               their names, in that order

Word lists are English; other languages keep the rest. Reading ease is Flesch's (1948), with syllables counted as groups
of vowels: 206.835 − 1.015 · words per sentence − 84.6 · syllables per word; about 90 is plain, 30 an essay.
"""

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reward_models.lexicon import GROUPS, counts, sentiment, words

Floats = npt.NDArray[np.float64]

_URGENT = re.compile(
    r"\b(now|today|tonight|hurry|last chance|ends?|ending|final|only|limited|soon|deadline|expires?|left)\b", re.I
)
_YOU = re.compile(r"\b(you|your|yours|yourself|you're|you'll|you've)\b", re.I)
_NEGATIVE = re.compile(r"\b(no|not|never|nothing|don't|can't|won't|isn't|stop|without|worst|wrong)\b", re.I)
_OFFER = re.compile(r"\b(free|save|sale|off|deal|discount|gift|bonus|offer)\b", re.I)
_PLACEHOLDER = re.compile(r"\{\{?\s*\w[\w. ]*\}\}?|\*\|\w+\|\*|%\w+%")
_EMOJI = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001faff]")
_QUOTES = re.compile("[\"“”«»]|(?:^|\\s)['‘]")
_SENTENCE_ENDS = re.compile(r"[.!?…]+(?:\s|$)")
_VOWELS = re.compile(r"[aeiouy]+")
_MOST = 3
"""More words of one group than this say no more."""


def _found(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda text: float(pattern.search(text) is not None)


def _of(*groups: str) -> Callable[[str], float]:
    def count(text: str) -> float:
        found = counts(text)
        return float(min(sum(found[group] for group in groups), _MOST))

    return count


def _upper_share(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / len(letters) if letters else 0.0


def _word_length(text: str) -> float:
    found = words(text)
    return sum(map(len, found)) / len(found) if found else 0.0


def _reading_ease(text: str) -> float:
    """Within [0, 120], where nearly all copy is; 0 for a text without words."""
    found = words(text)
    if not found:
        return 0.0
    sentences = max(1, len(_SENTENCE_ENDS.findall(text)))
    syllables = sum(max(1, len(_VOWELS.findall(word))) for word in found)
    return min(120.0, max(0.0, 206.835 - 1.015 * len(found) / sentences - 84.6 * syllables / len(found)))


FACTORS: dict[str, Callable[[str], float]] = {
    "characters": lambda text: float(len(text)),
    "words": lambda text: float(len(text.split())),
    "word_length": _word_length,
    "sentences": lambda text: float(len(_SENTENCE_ENDS.findall(text))),
    "reading_ease": _reading_ease,
    "question": lambda text: float("?" in text),
    "exclamation": lambda text: float("!" in text),
    "number": _found(re.compile(r"\d")),
    "begins_with_number": _found(re.compile(r"^\s*\d")),
    "percentage": _found(re.compile(r"\d\s?%")),
    "money": _found(re.compile(r"[$€£¥]\s?\d|\d\s?[$€£¥]")),
    "upper_share": _upper_share,
    "shouting": _found(re.compile(r"\b[A-Z]{4,}\b")),
    "emoji": _found(_EMOJI),
    "you": _found(_YOU),
    "first_person": _of("i_we"),
    "third_person": _of("he", "she", "they"),
    "personalised": _found(_PLACEHOLDER),
    "urgency": _found(_URGENT),
    "offer": _found(_OFFER),
    "exclusive": _of("exclusive"),
    "newness": _of("new"),
    "points_ahead": _of("this"),
    "why_how": _of("why_how"),
    "surprise": _of("surprise"),
    "superlative": _of("extreme"),
    "negative": _found(_NEGATIVE),
    "sentiment": sentiment,
    "feeling": _of("positive", "negative", "deep_feeling"),
    "quote": _found(_QUOTES),
    "colon": lambda text: float(":" in text),
    "comma": lambda text: float("," in text),
    "brackets": _found(re.compile(r"[(\[]")),
    "ellipsis": _found(re.compile(r"…|\.\.\.")),
    "ends_with_period": _found(re.compile(r"[^.]\.\s*$")),
}
"""Copy factors of one text. Yes and no are 1 and 0; counts of words of a group end at three."""

NAMES = (*FACTORS, *(f"words: {group.replace('_', ' ')}" for group in GROUPS))
"""Names of what :func:`measured` gives."""


def measured(text: str) -> Floats:
    """All factors of a text, in the order of ``NAMES``."""
    found = counts(text)
    groups = (float(min(found[group], _MOST)) for group in GROUPS)
    return np.array([*(factor(text) for factor in FACTORS.values()), *groups])
