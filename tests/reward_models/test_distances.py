"""How near texts are, and what exactly differs between two."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.distances import Change, Piece, changes, places, similarity
from reward_models.vectors import Vectors

TEXTS = st.text(alphabet="ab c.,'\n<é", max_size=40)


@settings(max_examples=60)
@given(TEXTS, TEXTS)
def test_pieces_give_both_texts_back(before: str, after: str) -> None:
    """What stayed with what was taken out is the first text, with what was put in the second, to the last space."""
    pieces = changes(before, after)

    assert "".join(piece.text for piece in pieces if piece.kind != "added") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after


def test_a_replaced_word_is_one_change() -> None:
    """Words that stand next to each other change together; what stays is not part of it."""
    pieces = changes("Save 20% today, Ann", "Save 30 euros today, Ann")

    assert places(pieces) == [Change("20%", "30 euros")]
    assert Piece("same", "Save ") in pieces


def test_a_change_is_the_same_whatever_its_case() -> None:
    """Changes that differ in case and marks have one key, and a change of marks alone is still a change."""
    assert Change("Free!", "free gift").key == Change("free", "Free gift?").key
    assert Change("!", "?").key != Change("!", ".").key
    assert Change("a", "b").reversed == Change("b", "a")


def test_nearness_is_of_shared_words() -> None:
    """The same text is nearest, one without a shared word is furthest, an empty one unknown."""
    near = similarity(
        ["red shoes on sale", "red shoes on sale", "red shoes", "", "x y"],
        ["red shoes on sale", "blue shoes on sale", "grey hat", "hat", "red"],
    )

    assert near[0] == np.float64(1.0) or abs(near[0] - 1.0) < 1e-9
    assert 0 < near[1] < near[0]
    assert near[2] == 0
    assert np.isnan(near[3])


def test_embeddings_say_more_than_words() -> None:
    """Where both texts have a vector its cosine counts; else words do."""
    vectors = Vectors("m", {"hello": np.array([1.0, 0.0]), "good day": np.array([0.8, 0.6])})

    near = similarity(["hello", "hello"], ["good day", "hello there"], vectors)

    assert abs(near[0] - 0.8) < 1e-12
    assert 0 < near[1] < 1
