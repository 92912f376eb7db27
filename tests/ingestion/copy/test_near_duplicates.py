"""Near duplicates: the same with hardly another word."""

from hypothesis import given
from hypothesis import strategies as st

from ingestion.copy.near_duplicates import Known, similarity

LINES = ("The winter collection is here", "Meet the winter collection", "12 picks for cold days", "Hi {{first_name}}!")


def test_case_blanks_and_signs_are_no_difference() -> None:
    """A reader sees the same line, so it is the same."""
    assert similarity("The  Winter collection is HERE!", "the winter\u200b collection, is here") == 1.0


def test_another_number_or_word_is_a_difference() -> None:
    """Numbers count as words do."""
    assert similarity("Save 20 % on coats", "Save 30 % on coats") < 1.0
    assert similarity("The winter collection is here", "Your basket is waiting") < 0.2


@given(st.lists(st.text(max_size=30), max_size=8), st.text(max_size=30))
def test_the_index_finds_what_a_search_of_all_finds(texts: list[str], text: str) -> None:
    """The nearest by the index is the nearest of all, whatever the texts."""
    found = Known([(str(place), one) for place, one in enumerate(texts)]).nearest(text)

    best = max((similarity(text, one) for one in texts), default=0.0)
    assert best == (found[1] if found else 0.0)


def test_a_line_that_is_added_is_found() -> None:
    """Later copy is compared with earlier copy of the same batch."""
    known = Known(enumerate_lines())
    known.add("new", "Your basket is waiting")

    assert known.nearest("your basket is waiting for you") is not None
    assert known.nearest("your basket is waiting")[0] == "new"  # type: ignore[index]
    assert len(known) == len(LINES) + 1


def enumerate_lines() -> list[tuple[str, str]]:
    return [(f"c{place}", line) for place, line in enumerate(LINES)]
