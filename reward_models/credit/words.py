"""What each word of a text adds to its score: the text model's terms, handed back to the words they are made of.

A score is Σ value · weight over terms (``text.py``). A term occurs at places in the text, and shares its product

    1. evenly among its occurrences
    2. evenly among the words that an occurrence touches: "free gift" gives half to each; a piece lies inside one word

so that the words add up to the score; what no word carries (marks of begin and end alone) is left over. Words are what
stands between spaces, as a reader sees them. A word's effect is against a text without it: terms are not centred.

    by_words(model, text) -> (words in order, left over)         runs(effects) -> neighbours of one sign
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reward_models.text import BEGIN, END, PIECES, WORDS, TextModel

Ints = npt.NDArray[np.int64]

_CHUNK = re.compile(r"\S+")
_TOKEN = re.compile(WORDS["token_pattern"])
_MARK = -1
"""Place of a mark, which is in no word."""


class Word(NamedTuple):
    """Characters ``start`` to ``end`` of a text, and what they add to its score."""

    start: int
    end: int
    effect: float


Occurrences = Iterable[tuple[str, Sequence[int]]]
"""Terms with the words they touch, by number; ``_MARK`` for a mark."""


def by_words(model: TextModel, text: str) -> tuple[list[Word], float]:
    """Every word of the text with its effect, and what no word carries; together :meth:`TextModel.by_terms`."""
    lowered, places = _lowered(text)
    chunks = [(found.start(), found.end()) for found in _CHUNK.finditer(lowered)]
    effects, left = np.zeros(len(chunks)), 0.0
    of_words, of_pieces = model.term_effects(text)
    parts = ((of_words, word_terms(lowered, chunks)), (of_pieces, piece_terms(lowered, chunks)))
    for of_terms, occurrences in parts:
        for touched, effect in _shared(of_terms, occurrences):
            if touched == _MARK:
                left += effect
            else:
                effects[touched] += effect
    spans = [(places[start], places[end - 1] + 1) for start, end in chunks]
    return [Word(*span, effect) for span, effect in zip(spans, effects.tolist(), strict=True)], left


def runs(effects: Sequence[float]) -> list[slice]:
    """Neighbours of one sign: what a reader takes as one phrase."""
    found, at = [], 0
    for _, group in groupby(effects, key=lambda effect: effect >= 0.0):
        size = len(list(group))
        found.append(slice(at, at + size))
        at += size
    return found


def word_terms(lowered: str, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Words and signs in a row, with marks, as the text model's vectorizer makes them."""
    starts = np.array([start for start, _ in chunks], dtype=np.int64)
    inside = [(found.group(), _chunk_at(starts, found.start())) for found in _TOKEN.finditer(lowered)]
    tokens = [(BEGIN, _MARK), *inside, (END, _MARK)]
    least, most = WORDS["ngram_range"]
    for size in range(least, most + 1):
        for at in range(len(tokens) - size + 1):
            row = tokens[at : at + size]
            touched = tuple(place for _, place in row if place != _MARK)
            yield " ".join(token for token, _ in row), touched or (_MARK,)


def piece_terms(lowered: str, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Pieces of words with a space on either side, as the text model's vectorizer makes them."""
    least, most = PIECES["ngram_range"]
    for number, (start, end) in enumerate(chunks):
        padded = f" {lowered[start:end]} "
        for size in range(least, most + 1):
            for at in range(len(padded) - size + 1):
                yield padded[at : at + size], (number,)
            if size >= len(padded):
                break


def _chunk_at(starts: Ints, place: int) -> int:
    return int(np.searchsorted(starts, place, side="right")) - 1


def _shared(effects: Mapping[str, float], occurrences: Occurrences) -> Iterator[tuple[int, float]]:
    """Each term's effect, shared among its occurrences and the words of each."""
    found: dict[str, list[Sequence[int]]] = defaultdict(list)
    for term, touched in occurrences:
        if term in effects:
            found[term].append(touched)
    for term, places in found.items():
        for touched in places:
            for place in touched:
                yield place, effects[term] / (len(places) * len(touched))


def _lowered(text: str) -> tuple[str, Sequence[int]]:
    """The text in small letters, as terms are, and of each letter its place in the text: some become two."""
    lowered = text.lower()
    places = [at for at, letter in enumerate(text) for _ in letter.lower()]
    return lowered, places
