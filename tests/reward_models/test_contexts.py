"""Contexts as columns say what the dictionaries said."""

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.database import canonical_json
from reward_models.contexts import Contexts
from reward_models.features import build_schema, context_rows

WORDS = st.sampled_from(["", "Bonn", "2020-01-01", "2020-01-01 10:00:00", "10", "true", "é\n😀\u2028", '"'])
NUMBERS = st.one_of(st.integers(-5, 5), st.floats(-1e3, 1e3, allow_nan=False), st.sampled_from([2**53 + 1, 1e299]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
MIXED = st.lists(st.dictionaries(st.sampled_from(["a", "b", "é\n", ""]), SCALARS, max_size=4), max_size=12)
UNIFORM = st.lists(
    st.fixed_dictionaries({}, optional={"n": NUMBERS, "w": WORDS, "b": st.booleans(), "z": st.none()}), max_size=12
)


def texts(contexts: list[dict[str, object]]) -> list[str]:
    return [canonical_json(context).decode() for context in contexts]


def known(context: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in context.items() if value is not None}


@settings(max_examples=60, deadline=None)
@given(st.one_of(MIXED, UNIFORM))
def test_a_row_is_the_context_it_was(contexts: list[dict[str, object]]) -> None:
    """Parsed from JSON or made from mappings, every context comes back, less what was null."""
    parsed, made = Contexts.parse(texts(contexts)), Contexts.of(contexts)

    expected = [{name: float(v) if type(v) is int else v for name, v in known(c).items()} for c in contexts]
    assert expected == [dict(context) for context in parsed]
    assert expected == [dict(context) for context in made]


@settings(max_examples=60, deadline=None)
@given(st.one_of(MIXED, UNIFORM), st.integers(0, 12))
def test_columns_give_the_features_of_mappings(contexts: list[dict[str, object]], cut: int) -> None:
    """Schema and features are the same from columns, from parts of them joined, and from the mappings themselves."""
    parts = [Contexts.parse(texts(contexts[:cut])), Contexts.parse(texts(contexts[cut:]))]
    columns = Contexts.joined(parts)
    schema = build_schema([known(context) for context in contexts], [])

    found = build_schema(columns, [])

    assert schema.hash == found.hash
    expected = context_rows(schema, contexts, [1] * len(contexts))
    np.testing.assert_equal(context_rows(schema, columns, [1] * len(contexts)), expected)


def test_parts_are_rows_in_order() -> None:
    """Masks, indices and slices take the rows they name."""
    contexts = Contexts.of([{"a": 1}, {"a": "x", "b": True}, {}, {"b": 2.5}])

    assert [dict(c) for c in contexts.take(np.array([3, 1]))] == [{"b": 2.5}, {"a": "x", "b": True}]
    assert [dict(c) for c in contexts.take(np.array([True, False, True, False]))] == [{"a": 1}, {}]
    assert [dict(c) for c in contexts[1:3]] == [{"a": "x", "b": True}, {}]
    assert contexts[-1] == {"b": 2.5}
    assert build_schema(contexts[2:], []).categorical == []


@pytest.mark.parametrize("value", [[1], {"x": 1}])
def test_what_is_no_scalar_is_nan(value: object) -> None:
    """A list or an object is there, and is no number."""
    (row,) = Contexts.parse(texts([{"a": value}]))

    assert str(row["a"]) == "nan"


def test_the_digest_is_of_the_values() -> None:
    """Equal contexts, however they were made, have one digest; a word is another value than the number it looks like."""

    def digest(contexts: Contexts) -> str:
        state = hashlib.sha256()
        contexts.update(state)
        return state.hexdigest()

    rows: list[dict[str, object]] = [{"a": 1, "b": "x"}, {"b": "y"}]
    joined = Contexts.joined([Contexts.parse(texts(rows[:1])), Contexts.parse(texts(rows[1:]))])

    assert digest(Contexts.of(rows)) == digest(joined)
    assert digest(Contexts.of([{"a": 1}])) != digest(Contexts.of([{"a": "1"}]))
    assert digest(Contexts.of([{"a": 1}])) != digest(Contexts.of([{"a": True}]))


def test_nothing_is_a_context_too() -> None:
    """No rows at all, and rows that say nothing."""
    assert (len(Contexts.parse([])), [dict(c) for c in Contexts.parse(["{}", "{}"])]) == (0, [{}, {}])
    assert msgspec.to_builtins(list(Contexts.of([{}]))) == [{}]
