"""Best of N: the guard, on its own and in small forms of the benchmarks ``best-of`` and ``generate``."""

import numpy as np

from pipelines.generation.best_of import UNGUARDED, Guard, Kept, Weighed, keep
from reward_models.support import LEAST, fit_support
from tests.benchmarks.bench_best_of import world_curves
from tests.benchmarks.bench_generate import play
from tests.benchmarks.copy_worlds import lines

TEXTS = ("coats for cold days", "boots for the hills", "tea and a good book", "lamps that last")


def weighed(expected: list[float], sd: list[float], distance: list[float]) -> Weighed:
    low = np.array(expected) - 2.0 * np.array(sd)
    return Weighed(TEXTS, np.array(expected), low, np.array(distance), limit=2.0)


def test_what_is_outside_the_support_is_not_kept() -> None:
    """However much is promised: a text unlike all others is a guess. Without the guard it would be the best."""
    found = weighed([1.0, 9.0, 2.0, 3.0], [0.1] * 4, [1.0, 5.0, 1.0, 1.0])

    assert [one.place for one in keep(found, 2, guard=Guard(unlike=0.0))] == [3, 2]
    assert keep(found, 1, guard=UNGUARDED) == [Kept(1, "best")]
    assert len(keep(found, 4)) == 3


def test_the_surer_of_two_promises_is_kept() -> None:
    """The lower bound counts, not the mean."""
    found = weighed([1.0, 1.1, 0.0, 0.0], [0.05, 0.3, 0.1, 0.1], [1.0] * 4)

    assert keep(found, 1) == [Kept(0, "best")]


def test_one_in_four_is_kept_for_being_unlike_what_is_known() -> None:
    """Of the better half, the one that is least like what is kept and known."""
    found = weighed([4.0, 3.0, 2.0, 1.0], [0.1] * 4, [1.0] * 4)

    kept = keep(found, 2, known=["boots for the hill", "something else"], guard=Guard(unlike=0.5))

    assert kept == [Kept(0, "best"), Kept(1, "unlike")]
    assert keep(found, 4, guard=Guard(unlike=0.25))[-1].why == "unlike"


def test_overdone_copy_is_far_from_copy_as_it_was() -> None:
    """The distance of lines like the known ones is about 1; lines that repeat themselves are mostly beyond the limit."""
    known = [line.slots["subject"] for campaign in range(8) for line in lines(5, campaign, 10, overdone=0.0)]
    support = fit_support(known)
    assert support is not None
    alike = support.distance([line.slots["subject"] for line in lines(6, 1, 60, overdone=0.0)])
    overdone = support.distance([line.slots["subject"] for line in lines(6, 1, 60, overdone=1.0)])

    assert 0.5 < np.median(alike) < 1.7
    assert np.median(overdone) > 1.5 * np.median(alike)
    assert fit_support(known[: LEAST - 1]) is None


def test_more_drafts_make_the_guarded_choice_better() -> None:
    """A small form of ``make bench NAME=best-of``: the guarded copy gains with N, and keeps what it gained."""
    curves = [world_curves(seed, deals=1, campaigns=12) for seed in (31, 32)]
    guarded = np.mean([one["guarded"] for one in curves], axis=0)

    assert guarded[-1] > guarded[0]
    assert guarded[-1] >= np.mean([one["unguarded"] for one in curves], axis=0)[-1]


def test_feedback_makes_the_next_copy_better() -> None:
    """A small form of ``make bench NAME=generate``: the same generator, three rounds, with and without feedback."""
    rounds = [play(seed, ("without feedback", "with feedback"), rounds=3) for seed in (131, 132)]

    ahead = np.mean([one["with feedback"][-1] - one["without feedback"][-1] for one in rounds])
    assert ahead > 0
