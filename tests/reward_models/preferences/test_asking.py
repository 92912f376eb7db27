"""What people are asked next: what least is known of, and nothing twice."""

from itertools import combinations

from reward_models.preferences.asking import FEW, next_few, next_pair, next_single
from reward_models.preferences.judgements import Comparison, Rating

CONTENTS = [f"c{number}" for number in range(8)]


def test_rankings_end_when_every_pair_is_judged() -> None:
    """Each ranking holds two to five contents and says something new of each; together they judge every pair, of one person."""
    said = [Comparison("sale", "c0", "c1", "bob")]
    asked = 0
    while few := next_few(CONTENTS, said, "ann"):
        own = {frozenset((one.winner, one.loser)) for one in said if one.annotator == "ann"}
        new = [pair for pair in combinations(few, 2) if frozenset(pair) not in own]
        assert 2 <= len(few) == len(set(few)) <= FEW
        assert {one for pair in new for one in pair} == set(few)
        said += [Comparison("sale", high, low, "ann") for high, low in combinations(few, 2)]
        asked += 1

    assert next_pair(CONTENTS, said, "ann") is None
    assert asked < 28 / 3
    assert next_few(CONTENTS, said, "bob") is not None


def test_one_content_is_the_least_rated() -> None:
    """Who rates is shown what fewest have rated, and nothing that they have rated."""
    rated = [Rating("sale", name, who, 3.0) for name in CONTENTS[:7] for who in ("bob", "cem")]

    assert next_single(CONTENTS, rated, "ann") == "c7"
    assert next_single(CONTENTS, rated, "bob") == "c7"
    assert next_single(CONTENTS, [*rated, Rating("sale", "c7", "bob", 1.0)], "bob") is None
    assert next_single(CONTENTS[:7], rated[1:], "ann") == "c0"
