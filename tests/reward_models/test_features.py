"""Features: the same columns in training and online."""

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingestion.events import NO_SEND, Content
from reward_models.features import (
    CATEGORIES,
    FeatureSchema,
    assemble,
    build_schema,
    content_rows,
    context_row,
    context_rows,
    plain,
    text_of,
)
from tests.reward_models.training import copy

CONTEXTS: list[dict[str, Any]] = [
    {"age": 31, "city": "Bonn", "member": True},
    {"age": None, "city": "Kiel"},
    {"age": 5.5},
]
NAN = float("nan")


def test_context_values_become_numbers_and_codes() -> None:
    """Numbers stay, booleans are 0 and 1, texts are codes in the order of the alphabet, missing is nan."""
    schema = build_schema(CONTEXTS, [])

    rows = context_rows(schema, CONTEXTS, [1, 2, 3])

    assert schema.names[:4] == ["context.age", "context.city", "context.member", "position"]
    np.testing.assert_equal(rows, [[31, 0, 1, 1], [NAN, 1, NAN, 2], [5.5, NAN, NAN, 3]])


def test_unseen_values_are_missing() -> None:
    """A category that training did not see, a text where a number belongs, an unknown name: nan, or ignored."""
    schema = build_schema(CONTEXTS, [])

    rows = context_rows(schema, [{"age": "old", "city": "Rome", "member": False, "shoes": 43}], [1])

    np.testing.assert_equal(rows, [[NAN, NAN, 0, 1]])


def test_a_name_that_ever_held_a_text_is_a_category() -> None:
    """Numbers under such a name are words like any other."""
    schema = build_schema([{"zip": "A1"}, {"zip": 10}], [])

    assert (schema.context[0].categories, schema.context[0].kind) == (("10", "A1"), "category")
    assert context_rows(schema, [{"zip": 10}], [1])[0, 0] == 0.0


def test_numbers_under_a_category_keep_their_digits() -> None:
    """1234567 and 1234568 are two words, 10 and 10.0 one; a list is no number."""
    schema = build_schema([{"zip": value} for value in ("x", 1_234_567, 1_234_568, 10, 10.0, 0.25)], [])

    assert schema.context[0].categories == ("0.25", "10", "1234567", "1234568", "x")


def test_numbers_beyond_any_sense_are_missing() -> None:
    """An integer too large for a float, and a value that is no scalar, do not stop a decision."""
    schema = build_schema(CONTEXTS, [])

    rows = context_rows(schema, [{"age": 10**400, "city": 10**400}, {"age": [1], "city": {"a": 1}}], [1, 1])

    assert np.isnan(rows[:, :2]).all()


def test_high_cardinality_is_capped() -> None:
    """Only the most frequent values keep a code; all others share the next one."""
    common = [{"shop": f"s{index}"} for index in range(CATEGORIES)] * 2
    rare = [{"shop": "rare1"}, {"shop": "rare2"}]
    schema = build_schema(common + rare, [])

    rows = context_rows(schema, [*rare, {"shop": "never seen"}], [1, 1, 1])

    assert (len(schema.context[0].categories), schema.context[0].capped) == (CATEGORIES, True)
    assert [float(CATEGORIES)] * 3 == rows[:, 0].tolist()


def test_a_slot_that_is_not_there_is_missing_and_no_send_is_flagged() -> None:
    """Factors of an absent slot are nan; the reserved content is known by its id or its feature."""
    contents = [
        copy("a", "Hello"),
        Content(content_id=NO_SEND, campaign_id="c", slots={}),
        Content(content_id="nothing-c", campaign_id="c", slots={}, features={"no_send": True}),
    ]
    schema = build_schema([], contents)

    rows = content_rows(schema, contents, np.array([0.2, NAN, NAN]))

    columns = [column.name for column in schema.content]
    assert rows[:, columns.index("no_send")].tolist() == [0.0, 1.0, 1.0]
    np.testing.assert_equal(rows[:, columns.index("subject.characters")], [5, NAN, NAN])
    np.testing.assert_equal(rows[:, columns.index("text_score")], [0.2, NAN, NAN])


def test_one_request_gives_the_rows_of_training() -> None:
    """A context assembled with contents is what training stacks from the same pairs."""
    contents = [copy("a", "Hello", tone="warm"), copy("b", "Good day", tone="cold")]
    schema = build_schema(CONTEXTS, contents)
    left, right = context_rows(schema, CONTEXTS, [1, 1, 1]), content_rows(schema, contents, np.zeros(2))

    online = assemble(left[1], right)

    np.testing.assert_equal(online, np.hstack([left[[1, 1]], right]))


def test_the_hash_is_of_names_kinds_and_categories() -> None:
    """The same columns have the same hash, read back from JSON too; a new category is another schema."""
    schema = build_schema(CONTEXTS, [])
    again = msgspec.json.decode(msgspec.json.encode(schema), type=FeatureSchema)

    assert schema.hash == build_schema(list(reversed(CONTEXTS)), []).hash == again.hash
    assert schema.hash != build_schema([*CONTEXTS, {"city": "Ulm"}], []).hash


def test_texts_are_joined_by_slot_name_and_compared_plainly() -> None:
    """The text of a content does not depend on the order its slots were given in, nor its plain form on case."""
    content = Content(content_id="a", campaign_id="c", slots={"subject": "Big  News", "body": "Read on"})

    assert (text_of(content), plain(text_of(content))) == ("Read on\nBig  News", "read on big news")


@given(
    st.dictionaries(
        st.sampled_from(["age", "tier", "new"]),
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.sampled_from("ab")),
    )
)
def test_one_context_is_read_as_many_are(context: dict[str, Any]) -> None:
    """The row of one context is the one it has among many."""
    schema = build_schema([{"age": 1, "tier": "a", "new": True}, {"age": 2.5, "tier": "b"}], [])

    np.testing.assert_array_equal(context_row(schema, context, 3), context_rows(schema, [context], [3])[0])
