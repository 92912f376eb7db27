"""Which two contents somebody is shown next: the pair that least is known of, in an order that favours neither side.

next_pair(contents, said, annotator) -> (left, right) or None when they have judged every pair
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations

from reward_models.preferences.judgements import Comparison

MOST_CONTENTS = 30
"""Of a campaign that are put before people: 435 pairs."""


def next_pair(contents: Sequence[str], said: Sequence[Comparison], annotator: str) -> tuple[str, str] | None:
    """The least compared pair that this person has not judged; ties and sides by a hash, so that asking again shows the same."""
    counted: dict[tuple[str, str], int] = {}
    own: set[tuple[str, str]] = set()
    for one in said:
        pair = (min(one.winner, one.loser), max(one.winner, one.loser))
        counted[pair] = counted.get(pair, 0) + 1
        if one.annotator == annotator:
            own.add(pair)
    open_pairs = [pair for pair in combinations(sorted(contents)[:MOST_CONTENTS], 2) if pair not in own]
    if not open_pairs:
        return None
    left, right = min(open_pairs, key=lambda pair: (counted.get(pair, 0), _hash(annotator, *pair)))
    return (left, right) if int(_hash(annotator, left, right)[:8], 16) % 2 else (right, left)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
