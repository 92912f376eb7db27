"""How near texts are: a brief and a prompt, a prompt and its answer, two variants of a line; and what exactly differs.

    similarity(first, second, vectors) -> (n,)     cosine of TF-IDF, words 1 to 2, in [0, 1]; of embeddings where both have one
    changes(before, after) -> list of Piece        word by word: what stayed, what was taken out, what was put in

TF-IDF is learned from the texts given, and from those ``known``: a word they all share says little about nearness. Texts are compared pair by pair; without
a shared word the similarity is 0. Pieces put together again give both texts, to the last space.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from reward_models.vectors import NO_VECTORS, Vectors

Floats = npt.NDArray[np.float64]
Kind = Literal["same", "removed", "added"]

MOST_TOKENS = 2_000
"""Of a text whose changes are looked for; beyond it the rest counts as one piece."""

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|\s+|[^\w\s]")
_NOT_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Piece:
    """A part of two texts."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Change:
    """One place in which two texts differ: what was taken out, and what stands there instead. Either may be empty."""

    removed: str
    added: str

    @property
    def reversed(self) -> "Change":
        """The same from the other side."""
        return Change(self.added, self.removed)

    @property
    def key(self) -> tuple[str, str]:
        """Equal for changes that differ in case, marks and spaces only; both empty where nothing but these changes."""
        removed, added = (_NOT_LETTERS.sub(" ", text).strip().casefold() for text in (self.removed, self.added))
        return (removed, added) if removed or added else (self.removed.strip(), self.added.strip())


def similarity(
    first: Sequence[str], second: Sequence[str], vectors: Vectors = NO_VECTORS, known: Sequence[str] = ()
) -> Floats:
    """Of each pair, shape (n,); nan for a pair with an empty text. By embeddings where both texts have one.

    known: further texts that say which words are common.
    """
    found = _by_words(first, second, known)
    if vectors.size:
        left, right = vectors.of(first, vectors.size), vectors.of(second, vectors.size)
        cosine = np.asarray((left * right).sum(axis=1))
        found = np.where(np.isfinite(cosine), cosine, found)
    return found


def changes(before: str, after: str) -> list[Piece]:
    """What stayed, what was taken out and what was put in, in the order of reading."""
    left, right = _tokens(before), _tokens(after)
    pieces: list[Piece] = []
    for action, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        removed, added = "".join(left[a:b]), "".join(right[c:d])
        if action == "equal":
            pieces.append(Piece("same", removed))
            continue
        pieces += [Piece(kind, text) for kind, text in _sided(removed, added) if text]
    return pieces


def places(pieces: Sequence[Piece]) -> list[Change]:
    """The changes that pieces show, in order; what only spaces separate is one change."""
    found: list[Change] = []
    removed = added = ""
    for piece in [*pieces, Piece("same", "end")]:
        if piece.kind == "removed":
            removed += piece.text
        elif piece.kind == "added":
            added += piece.text
        elif piece.text.strip() == "" and (removed or added):
            removed, added = removed + piece.text, added + piece.text
        else:
            if removed.strip() or added.strip():
                found.append(Change(removed.strip(), added.strip()))
            removed = added = ""
    return found


def _sided(removed: str, added: str) -> list[tuple[Kind, str]]:
    return [("removed", removed), ("added", added)]


def _tokens(text: str) -> list[str]:
    tokens = _TOKEN.findall(text)
    return tokens if len(tokens) <= MOST_TOKENS else [*tokens[:MOST_TOKENS], "".join(tokens[MOST_TOKENS:])]


def _by_words(first: Sequence[str], second: Sequence[str], known: Sequence[str]) -> Floats:
    present = np.array([bool(a.strip() and b.strip()) for a, b in zip(first, second, strict=True)], dtype=np.bool_)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        vectorizer.fit(dict.fromkeys([*first, *second, *known]))
    except ValueError:  # no words at all
        return np.where(present, 0.0, np.nan)
    left, right = (csr_array(vectorizer.transform(texts)) for texts in (first, second))
    cosine = np.asarray(left.multiply(right).sum(axis=1)).ravel()
    return np.where(present, np.minimum(cosine, 1.0), np.nan)
