"""The two readers of a question, held together."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingestion.http.bodies import ContentBody
from reward_models.serving.asking import SHAPES, Plain, digest_of, read_plain
from reward_models.serving.bodies import RankBody
from tests.reward_models.serving.worlds import SECRETS

odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 3.0, 1e308, 2**53 + 1, 2**70, "", "x" * 1_001, "a b", "a\n", [], {}, "é"]
)
texts = st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=300)
names = st.text(alphabet="ab:-._@ \n", min_size=1, max_size=6)
values = st.one_of(st.none(), st.booleans(), st.integers(-(2**54), 2**54), st.floats(allow_nan=False), texts, odd)
contexts = st.dictionaries(texts, values, max_size=6)
drafts = st.just({"slots": {"subject": "Draft"}})


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies of questions, right ones and others."""
    fields = {
        "loop": st.one_of(st.just("mail"), names, odd),
        "campaign": st.one_of(st.just("june"), names, odd),
        "decision_id": st.one_of(texts, odd),
        "unit": st.one_of(texts, odd),
        "context": st.one_of(contexts, odd),
        "candidates": st.one_of(st.lists(st.one_of(names, drafts, odd), max_size=3), odd),
        "slots": st.one_of(st.integers(-1, 502), st.floats(0, 4), st.just("3"), odd),
        "defer_activation": st.one_of(st.booleans(), st.just("yes"), odd),
        "excluded": st.one_of(st.lists(st.one_of(names, odd), max_size=3), odd),
        "dry_run": st.booleans(),
        "explain": st.booleans(),
        "surprise": odd,
    }
    wrong = draw(st.sets(st.sampled_from(sorted(fields)), max_size=4))
    right = {"loop": "mail", "campaign": "june"}
    return right | {name: draw(fields[name]) for name in sorted(wrong)}


def encoded(body: dict[str, Any]) -> bytes | None:
    """The body as JSON that the limits let pass."""
    try:
        whole = msgspec.json.encode(body)
        msgspec.json.decode(whole)
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError):
        return None
    return whole


@settings(max_examples=300, deadline=None)
@given(body=bodies())
def test_both_read_the_same(body: dict[str, Any]) -> None:
    """What the quick reader reads, the contract reads too, field for field and with the same digest."""
    whole = encoded(body)
    asked = None if whole is None else read_plain(whole)
    if whole is None or asked is None:
        return
    contract = RankBody.model_validate_json(whole)

    for name in Plain.__struct_fields__:
        theirs = getattr(contract, name)
        assert getattr(asked.question, name) == (tuple(theirs) if isinstance(theirs, list) else theirs)
        assert repr(getattr(asked.question, name)) == repr(tuple(theirs) if isinstance(theirs, list) else theirs)
    said = contract.model_dump(mode="json", exclude_unset=True, exclude=set(SHAPES))
    assert digest_of("mail", asked.said, SECRETS) == digest_of("mail", said, SECRETS)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"decision_id": "any text: ü", "unit": "jane@example.com"},
        {"context": {"age": 31, "tier": "gold", "new": True, "spent": 1.5, "unknown": None}},
        {"candidates": ["a", "b"], "excluded": ["b"], "slots": 2, "defer_activation": True},
    ],
)
def test_plain_questions_are_read(more: dict[str, Any]) -> None:
    """Questions as most are need no other reader."""
    assert read_plain(msgspec.json.encode({"loop": "mail", "campaign": "june"} | more)) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"candidates": [ContentBody(slots={"subject": "x"}).model_dump()]},
        {"links": {"shop": "https://example.com"}},
        {"explain": True},
        {"dry_run": True},
        {"campaign": "june\n"},
        {"context": {"x": 2**53 + 1}},
        {"context": {"x": [1]}},
        {"slots": 501},
    ],
)
def test_others_are_left_to_the_contract(more: dict[str, Any]) -> None:
    """Drafts, links and wrong bodies are read by the contract alone, which can say what is wrong."""
    assert read_plain(msgspec.json.encode({"loop": "mail", "campaign": "june"} | more)) is None


def test_no_field_is_forgotten() -> None:
    """The quick reader knows no field that the contract does not have, and the contract's limits are its own."""
    assert set(Plain.__struct_fields__) <= set(RankBody.model_fields)
    with pytest.raises(ValidationError):
        RankBody.model_validate({"loop": "mail", "campaign": "june\n"})
