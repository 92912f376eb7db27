"""Copy from templates."""

import numpy as np
import pytest

from pipelines.templates import FACTORS, read_factors, write_drafts, write_line


def test_the_same_seed_writes_the_same_lines() -> None:
    """Drafts are a function of theme, count and seed."""
    assert write_drafts("the spring sale", 12, seed=3) == write_drafts("the spring sale", 12, seed=3)


def test_no_two_drafts_share_their_factors_or_their_text() -> None:
    """All 64 combinations of factors can be written, each once, each with a line of its own."""
    drafts = write_drafts("the spring sale", 64, seed=1)

    assert 64 == len({tuple(draft.factors.values()) for draft in drafts}) == len({draft.subject for draft in drafts})


def test_factors_can_be_read_in_the_line() -> None:
    """What a draft is said to contain is in its text, and nothing else is."""
    for draft in write_drafts("the spring sale", 64, seed=2):
        head = draft.subject.split(" – ")[0]
        assert draft.factors["question"] == ("?" in head)
        assert draft.factors["personal"] == ("{{first_name}}" in draft.subject)
        assert draft.factors["discount"] == ("%" in draft.subject)
        assert draft.factors["long"] == (" · " in draft.subject)
        assert draft.factors["number"] == any(letter.isdigit() for letter in head)


def test_a_draft_becomes_the_body_of_a_content() -> None:
    """The registered content carries its text, its factors as features, and where it came from."""
    draft = write_drafts("the spring sale", 1, seed=5)[0]

    content = draft.content("spring-01")

    assert {"subject": draft.subject} == content["slots"]
    assert set(FACTORS) == set(content["features"])
    assert [name for name in FACTORS if draft.factors[name]] == content["parameters"]["factors"]


def test_more_drafts_than_combinations_are_refused() -> None:
    """The templates say how many lines they can write."""
    with pytest.raises(ValueError, match="1 to 64"):
        write_drafts("the spring sale", 65, seed=0)


def test_factors_are_read_back_as_often_as_they_were_written() -> None:
    """Also of a line that is overdone."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        times = {name: int(rng.integers(2 if name in ("question", "number") else 4)) for name in FACTORS}

        assert read_factors(write_line("the spring sale", times, rng)) == times
