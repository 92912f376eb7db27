"""Context and copy as columns. The same functions serve training and the API (invariant 14).

A row is the context part (known per request) followed by the content part (known per content):

    context.<name>      what the caller said about this decision
    position            place in the slate, 1 is first
    content.<name>      what is known about this content
    <slot>.<factor>     copy factors a marketer can read (``factors.py``): length, question mark, urgency words …
    no_send             1 for the reserved content that sends nothing
    text_score          the within-campaign text contrast (``reward_models/text.py``)

Numbers stay numbers, booleans are 0 and 1; a name that ever held a text is a category, coded by a stored
vocabulary. A missing or unseen value is nan; where a vocabulary was capped, unlisted values share one code.

    build_schema(contexts, contents) -> FeatureSchema         schema.hash
    context_rows(schema, contexts, positions) -> (n, d)       context_row(schema, context, position) -> (d,)
    content_rows(schema, contents, text_scores) -> (k, c)
    assemble(context_row, content_rows) -> (k, d + c)
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from infra.database import canonical_json
from ingestion.events import NO_SEND, Content
from reward_models.contexts import Contexts, as_number
from reward_models.factors import FACTORS

Floats = npt.NDArray[np.float64]

CATEGORIES = 100
"""Most categories of one column; rarer values share one code."""

NAMES = 200
"""Most names of context features, and of content features, that become columns."""

SLOTS = 8
"""Most slots whose copy factors become columns."""

TEXT_SCORE = "text_score"
POSITION = "position"


class Column(msgspec.Struct, frozen=True):
    """One feature. ``capped``: the vocabulary holds only the most frequent values."""

    name: str
    kind: Literal["number", "category"] = "number"
    categories: tuple[str, ...] = ()
    capped: bool = False


class FeatureSchema(msgspec.Struct, frozen=True, dict=True):
    """Ordered columns: ``context`` (the last one is the position), then ``content``."""

    context: tuple[Column, ...]
    content: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order of a row."""
        return self.context + self.content

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, kinds and categories, in order."""
        return hashlib.sha256(canonical_json(msgspec.to_builtins(self))).hexdigest()

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    @property
    def categorical(self) -> list[int]:
        """Indices of the category columns."""
        return [index for index, column in enumerate(self.columns) if column.kind == "category"]

    @cached_property
    def codes(self) -> dict[str, dict[str, float]]:
        """Code of each category, by column name."""
        return {
            column.name: {word: float(code) for code, word in enumerate(column.categories)} for column in self.columns
        }

    @cached_property
    def readers(self) -> "tuple[_Reader, ...]":
        """How each context column but the position is read off one context."""
        return tuple((column.name.removeprefix("context."), *_coding(self, column)) for column in self.context[:-1])


def build_schema(contexts: Sequence[Mapping[str, Any]], contents: Sequence[Content]) -> FeatureSchema:
    """The columns that these contexts and contents need."""
    slots = Counter(slot for content in contents for slot in content.slots)
    factors = [Column(f"{slot}.{factor}") for slot in sorted(_most(slots, SLOTS)) for factor in FACTORS]
    return FeatureSchema(
        context=(*_named_columns("context.", contexts), Column(POSITION)),
        content=(
            *_named_columns("content.", [content.features for content in contents]),
            *factors,
            Column(NO_SEND),
            Column(TEXT_SCORE),
        ),
    )


def context_rows(
    schema: FeatureSchema, contexts: Sequence[Mapping[str, Any]], positions: Sequence[int] | npt.NDArray[np.int64]
) -> Floats:
    """The context part, shape (n, d)."""
    rows = np.empty((len(contexts), len(schema.context)))
    fill_context(schema, contexts, positions, rows)
    return rows


def context_row(schema: FeatureSchema, context: Mapping[str, Any], position: int = 1) -> Floats:
    """The context part of one decision, shape (d,): a row of :func:`context_rows`, without arrays on the way."""
    found = [
        as_number(context.get(name)) if codes is None else _coded(context.get(name), codes, unlisted)
        for name, codes, unlisted in schema.readers
    ]
    return np.array([*found, position], dtype=np.float64)


def fill_context(
    schema: FeatureSchema,
    contexts: Sequence[Mapping[str, Any]],
    positions: Sequence[int] | npt.NDArray[np.int64],
    rows: Floats,
) -> None:
    """Write the context part into ``rows``, shape (n, d), as a column of a larger matrix may be."""
    for index, column in enumerate(schema.context[:-1]):
        rows[:, index] = _context_column(schema, column, contexts)
    rows[:, -1] = positions


def content_rows(schema: FeatureSchema, contents: Sequence[Content], text_scores: Floats) -> Floats:
    """The content part, shape (k, c). ``text_scores``: shape (k,), nan where a content has no text."""
    rows = np.empty((len(contents), len(schema.content)))
    for index, column in enumerate(schema.content):
        rows[:, index] = _content_column(schema, column, contents, text_scores)
    return rows


def assemble(context_row: Floats, rows: Floats) -> Floats:
    """One context (d,) with each of k contents (k, c), as a matrix (k, d + c)."""
    matrix = np.empty((len(rows), len(context_row) + rows.shape[1]))
    matrix[:, : len(context_row)] = context_row
    matrix[:, len(context_row) :] = rows
    return matrix


def text_of(content: Content) -> str:
    """All slots of a content as one text, in the order of their names."""
    return "\n".join(content.slots[slot] for slot in sorted(content.slots))


def plain(text: str) -> str:
    """A text as the eye reads it: small letters, single spaces. Equal plain texts are the same copy."""
    return " ".join(text.lower().split())


def sends_nothing(content: Content) -> bool:
    """Whether this is the reserved content, by its id or by its ``no_send`` feature."""
    return content.content_id == NO_SEND or content.features.get(NO_SEND) is True


def _most(counts: Counter[str], limit: int) -> list[str]:
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]]


def _named_columns(prefix: str, rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    if isinstance(rows, Contexts):
        return _columns_of(prefix, rows)
    names = Counter(name for row in rows for name in row)
    return [_column(prefix, name, (row.get(name) for row in rows)) for name in sorted(_most(names, NAMES))]


def _columns_of(prefix: str, contexts: Contexts) -> list[Column]:
    names = Counter({name: int(np.count_nonzero(values.kind)) for name, values in contexts.columns.items()})
    found = [(prefix + name, contexts.columns[name]) for name in sorted(_most(+names, NAMES))]
    return [_worded(name, values.counts(_word)) if values.textual else Column(name) for name, values in found]


def _column(prefix: str, name: str, values: Iterable[Any]) -> Column:
    words: Counter[str] = Counter()
    textual = False
    for value in values:
        if value is not None:
            textual = textual or isinstance(value, str)
            words[_word(value)] += 1
    if not textual:
        return Column(prefix + name)
    return _worded(prefix + name, words)


def _worded(name: str, words: Counter[str]) -> Column:
    return Column(name, "category", tuple(sorted(_most(words, CATEGORIES))), len(words) > CATEGORIES)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    number = as_number(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _context_column(schema: FeatureSchema, column: Column, contexts: Sequence[Mapping[str, Any]]) -> Floats:
    name = column.name.removeprefix("context.")
    if not isinstance(contexts, Contexts):
        return _encode(schema, column, (context.get(name) for context in contexts), len(contexts))
    values = contexts.columns.get(name)
    if values is None:
        return np.full(len(contexts), np.nan)
    if column.kind == "number":
        return values.numbers()
    codes = schema.codes[column.name]
    return values.coded(codes, float(len(codes)) if column.capped else np.nan, _word)


_Reader = tuple[str, Mapping[str, float] | None, float]
"""Name; the code of each category, null for a number; the code of what is not listed."""


def _coding(schema: FeatureSchema, column: Column) -> tuple[Mapping[str, float] | None, float]:
    if column.kind == "number":
        return None, np.nan
    codes = schema.codes[column.name]
    return codes, float(len(codes)) if column.capped else np.nan


def _coded(value: Any, codes: Mapping[str, float], unlisted: float) -> float:
    return np.nan if value is None else codes.get(_word(value), unlisted)


def _encode(schema: FeatureSchema, column: Column, values: Iterable[Any], count: int) -> Floats:
    codes, unlisted = _coding(schema, column)
    found = map(as_number, values) if codes is None else (_coded(value, codes, unlisted) for value in values)
    return np.fromiter(found, dtype=np.float64, count=count)


def _content_column(schema: FeatureSchema, column: Column, contents: Sequence[Content], text_scores: Floats) -> Floats:
    if column.name == TEXT_SCORE:
        return text_scores
    if column.name == NO_SEND:
        return np.array([float(sends_nothing(content)) for content in contents])
    if column.name.startswith("content."):
        name = column.name.removeprefix("content.")
        return _encode(schema, column, (content.features.get(name) for content in contents), len(contents))
    slot, factor = column.name.rsplit(".", 1)
    measure = FACTORS[factor]
    return np.array([measure(content.slots[slot]) if slot in content.slots else np.nan for content in contents])
