"""What a server may answer: any JSON, and JSON that looks like the chat protocol until it is read."""

from typing import Any

from hypothesis import strategies as st

_TEXTS = st.text(st.characters(), max_size=10) | st.sampled_from(
    [
        '{"variants": [{"subject": "\\ud800"}, {"subject": "Coats"}]}',
        '{"variants": [{"subject": "\\u0000"}]}',
        "[" * 5_000,
    ]
)

ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""Any JSON, halves of surrogate pairs and NaN included."""

_MESSAGE = ANYTHING | st.fixed_dictionaries({"content": ANYTHING, "refusal": st.none() | ANYTHING})
_CHOICE = st.fixed_dictionaries({"message": _MESSAGE, "delta": _MESSAGE, "finish_reason": st.just("stop") | ANYTHING})
_USAGE = ANYTHING | st.fixed_dictionaries({"prompt_tokens": ANYTHING, "completion_tokens": ANYTHING})

COMPLETIONS: st.SearchStrategy[Any] = ANYTHING | st.fixed_dictionaries(
    {"choices": ANYTHING | st.lists(_CHOICE, min_size=1, max_size=2), "usage": _USAGE}
)
"""Chat completions, or a stream's pieces, with anything anywhere."""
