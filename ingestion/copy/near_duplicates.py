"""Copy that says the same with hardly another word: found by the pieces that two texts share.

    similarity = |A ∩ B| / |A ∪ B|     A, B: the runs of three letters of each text, words framed by blanks (Jaccard 1901)

Case, blanks and signs are no difference; other numbers are. An index from piece to texts finds the nearest of
thousands by the pieces they have in common, so that each new text costs what its own pieces cost.

    known = Known(); known.add("c1", text); known.nearest(text) -> ("c1", 0.93) or None
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from ingestion.copy.figures import readable

_LETTERS = re.compile(r"\w+")


def pieces(text: str) -> frozenset[str]:
    """Runs of three of a text's letters and digits, as the eye reads them."""
    framed = f" {' '.join(_LETTERS.findall(readable(text)))} "
    return frozenset(framed[place : place + 3] for place in range(max(1, len(framed) - 2)))


def similarity(one: str, other: str) -> float:
    """Of two texts, in [0, 1]."""
    mine, yours = pieces(one), pieces(other)
    return len(mine & yours) / len(mine | yours)


class Known:
    """Texts that a new one is compared with."""

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        self._with: defaultdict[str, list[int]] = defaultdict(list)
        self._names: list[str] = []
        self._sizes: list[int] = []
        for name, text in texts:
            self.add(name, text)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, text: str) -> None:
        """One more."""
        found = pieces(text)
        for piece in found:
            self._with[piece].append(len(self._names))
        self._names.append(name)
        self._sizes.append(len(found))

    def nearest(self, text: str, but: str | None = None) -> tuple[str, float] | None:
        """The most similar text's name and similarity, of equals the first; None where nothing is shared. ``but``: not
        the text of this name."""
        own = pieces(text)
        shared = Counter(place for piece in own for place in self._with.get(piece, ()))
        shared = Counter({place: count for place, count in shared.items() if self._names[place] != but})
        if not shared:
            return None
        best = max(shared, key=lambda place: (self._similarity(own, place, shared[place]), -place))
        return self._names[best], self._similarity(own, best, shared[best])

    def _similarity(self, own: frozenset[str], place: int, shared: int) -> float:
        return shared / (len(own) + self._sizes[place] - shared)
