"""Terms handed back to the words they are made of."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from reward_models.boosted import fit
from reward_models.credit.words import by_words, piece_terms, runs, word_terms
from reward_models.text import BEGIN, END, PIECES, WORDS, TextModel
from tests.reward_models.training import SMALL, worded

TEXTS = st.text(alphabet="ab Secret’s garden common\n\t 50%!?⟨⟩İß_éΣ\u2009\x1c", max_size=40)


@pytest.fixture(scope="module")
def model() -> TextModel:
    """The text model of a world in which “secret” sells."""
    found = fit(worded(40), SMALL).text
    assert found is not None
    return found


def chunks_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand."""
    import re

    return [(found.start(), found.end()) for found in re.finditer(r"\S+", text)]


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text="a")
@example(text="ΑΣ İstanbul ⟨")
def test_terms_are_those_of_the_vectorizer(text: str) -> None:
    """Whatever the letters, the terms with places are the very terms, as often, that the text model counts."""
    lowered = text.lower()
    analyze_words = TfidfVectorizer(**WORDS).build_analyzer()
    analyze_pieces = TfidfVectorizer(**PIECES).build_analyzer()

    assert Counter(term for term, _ in word_terms(lowered, chunks_of(lowered))) == Counter(
        analyze_words(f"{BEGIN} {text} {END}")
    )
    assert Counter(term for term, _ in piece_terms(lowered, chunks_of(lowered))) == Counter(analyze_pieces(text))


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_words_add_up_to_the_score(model: TextModel, text: str) -> None:
    """Words and what no word carries sum to what the terms add; each word is what stands there between spaces."""
    words, left = by_words(model, text)

    assert sum(word.effect for word in words) + left == pytest.approx(float(model.by_terms([text])[0]), abs=1e-12)
    assert [text[word.start : word.end] for word in words] == text.split()


def test_the_word_that_sells_has_the_credit(model: TextModel) -> None:
    """Where one word was planted, it has more of the score than all others together."""
    text = "Old secret garden letter"
    words, _ = by_words(model, text)
    credit = {text[word.start : word.end]: word.effect for word in words}

    assert credit["secret"] > sum(abs(effect) for word, effect in credit.items() if word != "secret")


def test_a_term_shares_its_effect_evenly() -> None:
    """A pair of words gives half to each, a term that occurs twice half to each place, a piece all to its word."""
    model = fake({"free gift": 0.4, "now": 0.2}, {"ee": 0.1})
    words, left = by_words(model, "free gift now now")

    assert [word.effect for word in words] == pytest.approx([0.2 + 0.1, 0.2, 0.1, 0.1])
    assert left == 0.0


def test_marks_alone_are_left_over() -> None:
    """What the mark of the beginning adds is no word's; with a word beside it, it is that word's."""
    model = fake({BEGIN: 0.3, f"{BEGIN} free": 0.2}, {})
    words, left = by_words(model, "free gift")

    assert ([word.effect for word in words], left) == ([0.2, 0.0], 0.3)


def test_runs_are_neighbours_of_one_sign() -> None:
    """Phrases begin where the sign changes; nothing is lost or counted twice."""
    assert runs([0.1, 0.0, -0.2, -0.1, 0.3]) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert runs([]) == []


def fake(words: dict[str, float], pieces: dict[str, float]) -> TextModel:
    """A text model that only knows what these terms add."""

    class Told:
        def term_effects(self, text: str) -> tuple[dict[str, float], dict[str, float]]:
            return words, pieces

    return Told()  # type: ignore[return-value]
