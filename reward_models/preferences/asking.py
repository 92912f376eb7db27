"""What somebody is asked next: what least is known of, in an order that favours nobody.

next_pair(contents, said, annotator) -> (left, right)        which is better; None when they have judged every pair
next_few(contents, said, annotator) -> (first, …)            to be ranked: the pair above, and what brings most pairs that they have not judged
next_single(contents, ratings, annotator) -> content         to be rated; None when they have rated every one

Ties, sides and order go by a hash, so that asking again shows the same.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from reward_models.preferences.judgements import Comparison, Rating

MOST_CONTENTS = 30
"""Of a campaign that are put before people: 435 pairs."""
FEW = 5
"""Contents in one ranking, at most."""


def next_pair(contents: Sequence[str], said: Sequence[Comparison], annotator: str) -> tuple[str, str] | None:
    """The least compared pair that this person has not judged."""
    counted = Counter(_pair(one.winner, one.loser) for one in said)
    open_pairs = _open(contents, said, annotator)
    if not open_pairs:
        return None
    left, right = min(open_pairs, key=lambda pair: (counted[pair], _hash(annotator, *pair)))
    return (left, right) if int(_hash(annotator, left, right)[:8], 16) % 2 else (right, left)


def next_few(contents: Sequence[str], said: Sequence[Comparison], annotator: str) -> tuple[str, ...] | None:
    """Two to ``FEW`` contents, each of them in a pair with another that this person has not judged."""
    first = next_pair(contents, said, annotator)
    if first is None:
        return None
    few, open_pairs = list(first), _open(contents, said, annotator)
    left = [content for content in _asked_about(contents) if content not in first]
    while left and len(few) < FEW:
        news = {one: sum(_pair(one, other) in open_pairs for other in few) for one in left}
        best = min(left, key=lambda one: (-news[one], _hash(annotator, one)))
        if not news[best]:
            break
        few.append(best)
        left.remove(best)
    return tuple(sorted(few, key=lambda one: _hash(annotator, *first, one)))


def next_single(contents: Sequence[str], ratings: Sequence[Rating], annotator: str) -> str | None:
    """The least rated content that this person has not rated."""
    counted = Counter(one.content for one in ratings)
    own = {one.content for one in ratings if one.annotator == annotator}
    left = [content for content in _asked_about(contents) if content not in own]
    return min(left, key=lambda one: (counted[one], _hash(annotator, one)), default=None)


def _open(contents: Sequence[str], said: Sequence[Comparison], annotator: str) -> set[tuple[str, str]]:
    """Pairs that this person has not judged."""
    own = {_pair(one.winner, one.loser) for one in said if one.annotator == annotator}
    return set(combinations(_asked_about(contents), 2)) - own


def _asked_about(contents: Sequence[str]) -> list[str]:
    return sorted(contents)[:MOST_CONTENTS]


def _pair(one: str, other: str) -> tuple[str, str]:
    return min(one, other), max(one, other)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
