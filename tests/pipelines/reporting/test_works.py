"""What works: effects of factors and phrases against worlds where they are known."""

import numpy as np

from pipelines.reporting.works import Results, what_works

WORDS = ("warm", "winter", "coat", "sale", "new", "soft", "wool", "boots", "gift", "red", "blue", "green")


def world(seed: int, question: float, noise: float = 0.03, contents: int = 240) -> Results:
    """Eight campaigns of lines from random words; a question earns so much more, relative to its campaign's level."""
    rng = np.random.default_rng(seed)
    campaign = np.arange(contents) % 8
    asks = rng.random(contents) < 0.4
    texts = tuple(" ".join(rng.choice(WORDS, 4, replace=False)) + ("?" if ask else "") for ask in asks)
    level = rng.uniform(0.01, 0.3, 8)[campaign]
    own = rng.normal(0.0, 0.1, contents)
    mean = level * (1.0 + own + question * asks + rng.normal(0.0, noise, contents))
    return Results(campaign, texts, mean, (level * noise) ** 2, level)


def test_a_true_effect_is_found_whatever_the_level() -> None:
    """A question that is worth 15 % more in campaigns of any level is the surest factor, and its interval holds 15 %."""
    first = what_works(world(1, 0.15))[0]

    assert (first.what, first.kind, first.sure) == ("question", "factor", True)
    assert first.effect.low < 0.15 < first.effect.high


def test_of_many_that_do_nothing_hardly_one_is_called_sure() -> None:
    """In 20 worlds in which copy does nothing, anything is called sure in at most four: two families at 5 % each."""
    worlds = [any(effect.sure for effect in what_works(world(seed, 0.0), most=1_000)) for seed in range(20)]

    assert sum(worlds) <= 4


def test_intervals_of_a_true_effect_cover_it() -> None:
    """Over 30 worlds the interval of the question's effect holds the truth in most."""
    found = [
        next((effect for effect in what_works(world(seed, 0.1)) if effect.what == "question"), None)
        for seed in range(30)
    ]
    held = [one is not None and one.effect.low <= 0.1 <= one.effect.high for one in found]

    assert sum(held) >= 27


def test_phrases_are_told_in_quotes_with_how_many_have_them() -> None:
    """A word that earns more is a phrase with the number of contents that have it."""
    base = world(3, 0.0)
    has = np.array(["coat" in text for text in base.text])
    better = Results(base.campaign, base.text, base.mean * (1.0 + 0.3 * has), base.variance, base.level)
    first = next(effect for effect in what_works(better, "old") if effect.kind == "phrase")

    assert (first.what, first.segment, first.contents) == ("“coat”", "old", int(has.sum()))
    assert first.effect.low > 0.0


def test_a_handful_of_contents_says_nothing() -> None:
    """With fewer contents than a contrast needs there are no effects."""
    few = world(4, 0.2, contents=5)

    assert what_works(few) == ()
