"""The reference pages say what the code says."""

import pytest

from tests.docs.reference import HOME, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_the_code_says(name: str) -> None:
    """A reference page equals what `make reference` writes from the code."""
    expected = PAGES[name]()

    assert expected == (HOME / name).read_text(), f"run `make reference` and commit docs/reference/{name}"
