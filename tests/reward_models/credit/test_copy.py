"""Predictions as sums over parts of the copy."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ids import uuid7
from ingestion.events import Content
from reward_models.boosted import RewardModel, fit
from reward_models.contributions import contributions
from reward_models.credit.copy import CopyCredit, Part, credit_copy, earned
from reward_models.credit.drawing import cut, number, others, page
from reward_models.serving.snapshot import no_send
from tests.reward_models.serving.models import trained
from tests.reward_models.training import SMALL, copy, worded

TEXTS = st.text(alphabet="abc SECRET secret?!9% {{name}} now free\n<İß", max_size=40)
CONTENTS = st.lists(
    st.builds(
        lambda slots, campaign, features: Content(
            content_id=str(uuid7(1)), campaign_id=campaign, slots=slots, features=features
        ),
        st.dictionaries(st.sampled_from(["subject", "body", "content"]), TEXTS, max_size=3),
        st.sampled_from(["c0", "past0", "unknown"]),
        st.dictionaries(st.sampled_from(["tone", "question"]), st.one_of(st.text(max_size=3), st.floats(-9, 9))),
    ),
    min_size=1,
    max_size=3,
)
CONTEXTS = st.lists(
    st.dictionaries(st.sampled_from(["age", "city"]), st.one_of(st.integers(0, 90), st.none()), max_size=2),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def models() -> list[RewardModel]:
    """One of words, one of contexts."""
    return [fit(worded(40), SMALL), trained()]


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 1), contents=CONTENTS, contexts=CONTEXTS)
def test_parts_add_up_to_the_prediction(
    models: list[RewardModel], which: int, contents: list[Content], contexts: list[dict[str, Any]]
) -> None:
    """Whatever the slots, features and contexts, the parts sum to the mean prediction, and slots and phrases hold what
    their words and factors do."""
    model, contents = models[which], [*contents, no_send("c0")]
    expected = model.grid(contexts, contents).mean(axis=0)
    found = credit_copy(model, contents, contexts)

    for credit, wanted in zip(found, expected.tolist(), strict=True):
        assert sum(part.effect for part in credit.parts) == pytest.approx(wanted, abs=1e-9, rel=0)
        assert sum(credit.by_slot().values()) == pytest.approx(
            sum(part.effect for part in credit.parts if part.slot is not None), abs=1e-12
        )
        for slot, text in credit.content.slots.items():
            assert [text[part.start : part.end] for part in credit.words(slot)] == (
                text.split() if model.text is not None else []
            )
            assert sum(phrase.effect for phrase in credit.phrases(slot)) == pytest.approx(
                sum(word.effect for word in credit.words(slot)), abs=1e-12
            )
            assert "".join(piece for piece, _ in cut(credit, slot)) == text


def test_it_agrees_with_the_lines_of_an_explanation(models: list[RewardModel]) -> None:
    """What a factor adds here is what its line says in an answer of the API; so is the campaign."""
    content = copy("q", "Line 3? Secret", "past0")
    lines = contributions(models[1], {"age": 65}, [content], 99)[0]
    credit = credit_copy(models[1], [content], [{"age": 65}])[0]

    assert {part.what: part.effect for part in credit.of("factor")} == pytest.approx(
        {line.what: line.effect for line in lines if line.kind == "factor"}
    )
    assert credit.of("campaign")[0].effect == pytest.approx(lines[0].effect)


def test_the_slot_with_the_word_that_sells_earns(models: list[RewardModel]) -> None:
    """The planted word has its credit at its place in its slot, and that slot earns more than the other."""
    content = Content(
        content_id="a", campaign_id="c0", slots={"body": "Large bright table", "subject": "Old secret garden"}
    )
    credit = credit_copy(models[0], [content])[0]
    best = max(credit.of("word"), key=lambda part: part.effect)

    assert (best.what, best.slot, best.start, best.end) == ("secret", "subject", 4, 10)
    assert credit.by_slot()["subject"] > credit.by_slot()["body"]


def test_what_was_earned_is_counted_in_sends() -> None:
    """Effects of a word are added up over the sends of all contents that have it, whatever its capitals and signs."""
    credited = [
        told("a", [Part("Secret!", "word", "subject", 0.02, 0, 7), Part("campaign c", "campaign", None, 0.1)]),
        told("b", [Part("secret", "word", "subject", 0.01, 0, 6), Part("question", "factor", "subject", -0.005)]),
    ]
    found = earned(credited, [1_000, 3_000])

    words, question = found

    assert (words.what, words.kind, words.contents, words.sends) == ("secret", "word", 2, 4_000)
    assert (words.per_send, words.total) == pytest.approx((0.0125, 50.0))
    assert (question.what, question.contents, question.sends) == ("question", 1, 3_000)
    assert (question.per_send, question.total) == pytest.approx((-0.005, -15.0))


def test_the_page_is_escaped_and_whole(models: list[RewardModel]) -> None:
    """Nothing in a copy is markup on the page, every word stands there, and names of contents are escaped too."""
    content = Content(
        content_id="<b>x</b>", campaign_id="c0", slots={"subject": "<script>alert(1)</script> secret & 'more'"}
    )
    drawn = page(credit_copy(models[0], [content]), "clicks")

    assert "<script" not in drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</span> <span" in drawn
    assert "&lt;b&gt;x&lt;/b&gt;" in drawn
    assert 'class="up"' in drawn


def test_the_list_beside_the_text_loses_nothing(models: list[RewardModel]) -> None:
    """Beyond the strongest parts there is one for all others: with the words they still add up."""
    credit = credit_copy(models[0], [copy("a", "Old secret garden, now!")], [{}])[0]
    shown = others(credit, 3)

    assert len(shown) == 5
    assert sum(part.effect for part in [*shown, *credit.of("word")]) == pytest.approx(credit.expected, abs=1e-12)
    assert number(-0.00123) == "−1.23"


def told(name: str, parts: list[Part]) -> CopyCredit:
    """A credit with these parts."""
    return CopyCredit(copy(name, "x"), sum(part.effect for part in parts), tuple(parts))
