"""Contexts of many decisions as columns: a million of them without a million dictionaries.

    Contexts.of(mappings)    Contexts.parse(texts)    Contexts.joined(parts)
    contexts[row] -> dict    contexts[a:b], contexts.take(rows) -> Contexts    contexts.columns[name] -> Values

A value is absent (null is the same), a number, a boolean or a word; what is none of these (a list, a number too large
for a float) is the number nan. Arrow parses the JSON without holding the interpreter's lock. It knows one kind of
value per name; texts that mix kinds are decoded one by one.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as arrow_json

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.uint8]

ABSENT, NUMBER, BOOLEAN, WORD = range(4)

_EXACT = 2.0**53
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True)
class Values:
    """One name in n contexts. ``number``: the number, 0 or 1, or the index into ``words``; nothing where absent."""

    number: Floats
    kind: Kinds
    words: tuple[str, ...] = ()

    @property
    def textual(self) -> bool:
        """Whether a word is among them."""
        return bool((self.kind == WORD).any())

    def take(self, rows: npt.NDArray[Any]) -> "Values":
        """Those of some rows: a mask or indices."""
        return Values(self.number[rows], self.kind[rows], self.words)

    def value(self, row: int) -> float | int | bool | str:
        """As it was; whole numbers are integers. Only where it is not absent."""
        number = float(self.number[row])
        if self.kind[row] == WORD:
            return self.words[int(number)]
        if self.kind[row] == BOOLEAN:
            return bool(number)
        return int(number) if number.is_integer() and abs(number) < _EXACT else number

    def numbers(self) -> Floats:
        """Numbers and booleans, nan for the rest, shape (n,)."""
        return np.where((self.kind == NUMBER) | (self.kind == BOOLEAN), self.number, np.nan)

    def counts(self, name_of: Callable[[float | bool], str]) -> Counter[str]:
        """How often each value occurs, as a word; ``name_of`` says how a number or boolean is written."""
        found: Counter[str] = Counter()
        for kind, number, times in self._distinct():
            found[self._written(kind, number, name_of)] += times
        return found

    def coded(self, codes: Mapping[str, float], unlisted: float, name_of: Callable[[float | bool], str]) -> Floats:
        """The code of each value as a word, ``unlisted`` for others, nan where absent, shape (n,)."""
        row = np.full(len(self.number), np.nan)
        for kind in (NUMBER, BOOLEAN, WORD):
            mine = self.kind == kind
            if mine.any():
                numbers, of_row, _ = _distinct(self.number[mine], kind)
                words = [self._written(kind, number, name_of) for number in numbers.tolist()]
                row[mine] = np.array([codes.get(word, unlisted) for word in words])[of_row]
        return row

    def _distinct(self) -> list[tuple[int, float, int]]:
        found = []
        for kind in (NUMBER, BOOLEAN, WORD):
            numbers, _, times = _distinct(self.number[self.kind == kind], kind)
            found += [(kind, number, count) for number, count in zip(numbers.tolist(), times.tolist(), strict=True)]
        return found

    def _written(self, kind: int, number: float, name_of: Callable[[float | bool], str]) -> str:
        if kind == WORD:
            return self.words[int(number)]
        return name_of(bool(number) if kind == BOOLEAN else number)


class Contexts(Sequence[Mapping[str, Any]]):
    """``size`` contexts; ``columns`` by name."""

    def __init__(self, size: int, columns: Mapping[str, Values]) -> None:
        self.size, self.columns = size, dict(columns)

    @staticmethod
    def of(contexts: Sequence[Mapping[str, Any]]) -> "Contexts":
        """The same contexts as columns."""
        if isinstance(contexts, Contexts):
            return contexts
        names = dict.fromkeys(name for context in contexts for name in context)
        return Contexts(len(contexts), {name: _values([context.get(name) for context in contexts]) for name in names})

    @staticmethod
    def parse(texts: Sequence[str]) -> "Contexts":
        """From JSON objects without line breaks, as the database keeps them."""
        if not texts:
            return Contexts(0, {})
        try:
            table = _parsed(texts)
        except pa.ArrowInvalid:
            return Contexts.of([_decode(text) for text in texts])
        return Contexts(len(texts), {name: _of_arrow(table.column(name).chunk(0)) for name in table.column_names})

    @staticmethod
    def joined(parts: Sequence["Contexts"]) -> "Contexts":
        """The parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = dict.fromkeys(name for part in parts for name in part.columns)
        return Contexts(sum(part.size for part in parts), {name: _joined(parts, name) for name in names})

    def take(self, rows: npt.NDArray[Any]) -> "Contexts":
        """Those of some rows: a mask or indices."""
        return Contexts(
            len(np.arange(self.size)[rows]), {name: values.take(rows) for name, values in self.columns.items()}
        )

    def update(self, state: Any) -> None:
        """Add everything to a digest, names in the order of the alphabet."""
        for name in sorted(self.columns):
            values = self.columns[name]
            state.update(msgspec.json.encode([name, values.words]))
            state.update(np.where(values.kind == ABSENT, 0.0, values.number).tobytes())
            state.update(values.kind.tobytes())

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> "Contexts": ...
    def __getitem__(self, at: int | slice) -> "dict[str, Any] | Contexts":
        if isinstance(at, slice):
            return self.take(np.arange(self.size)[at])
        row = range(self.size)[at]
        return {name: values.value(row) for name, values in self.columns.items() if values.kind[row] != ABSENT}


def _distinct(numbers: Floats, kind: int) -> tuple[Floats, Ints, Ints]:
    """Distinct numbers in order, which of them each one is, and how often each occurs. Words are indices: they are
    counted, not sorted."""
    if kind != WORD:
        return np.unique(numbers, return_inverse=True, return_counts=True)
    places = numbers.astype(np.int64)
    times = np.bincount(places)
    there = times > 0
    return np.flatnonzero(there).astype(np.float64), (np.cumsum(there) - 1)[places], times[there]


def _values(found: Sequence[Any]) -> Values:
    places: dict[str, int] = {}
    number, kind = np.zeros(len(found)), np.zeros(len(found), dtype=np.uint8)
    for row, value in enumerate(found):
        if isinstance(value, str):
            number[row], kind[row] = places.setdefault(value, len(places)), WORD
        elif value is not None:
            number[row], kind[row] = as_number(value), BOOLEAN if isinstance(value, bool) else NUMBER
    return Values(number, kind, tuple(places))


def as_number(value: Any) -> float:
    """As a float; nan for what is no number, or too large for one."""
    return float(value) if isinstance(value, int | float) and abs(value) <= 1e300 else math.nan


def _parsed(texts: Sequence[str]) -> pa.Table:
    """One row per text. Words that look like times are taken for times at first; asked for as words, they stay so."""
    whole = "\n".join(texts).encode()
    table = _read(whole, [])
    dated = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    return _read(whole, dated) if dated else table


def _read(lines: bytes, words: Sequence[str]) -> pa.Table:
    return arrow_json.read_json(
        pa.BufferReader(lines),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in words])),
    )


def _of_arrow(found: pa.Array) -> Values:
    valid = np.asarray(found.is_valid().to_numpy(zero_copy_only=False))
    if pa.types.is_string(found.type):
        coded = found.dictionary_encode()
        number, kind, words = coded.indices.fill_null(0), WORD, tuple(coded.dictionary.to_pylist())
        return Values(_floats(number), _kinds(valid, kind), words)
    if pa.types.is_boolean(found.type):
        return Values(_floats(found.fill_null(False).cast(pa.int8())), _kinds(valid, BOOLEAN))
    if pa.types.is_integer(found.type) or pa.types.is_floating(found.type):
        number = _floats(found.fill_null(0))
        return Values(np.where(np.abs(number) <= 1e300, number, np.nan), _kinds(valid, NUMBER))
    return Values(np.full(len(found), np.nan), _kinds(valid, NUMBER))


def _floats(found: pa.Array) -> Floats:
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)


def _kinds(valid: npt.NDArray[np.bool_], kind: int) -> Kinds:
    return valid.astype(np.uint8) * np.uint8(kind)


def _joined(parts: Sequence[Contexts], name: str) -> Values:
    places: dict[str, int] = {}
    number, kind = [], []
    for part in parts:
        values = part.columns.get(name)
        if values is None:
            number.append(np.zeros(part.size))
            kind.append(np.zeros(part.size, dtype=np.uint8))
            continue
        kind.append(values.kind)
        if values.words:
            place = np.array([places.setdefault(word, len(places)) for word in values.words], dtype=np.float64)
            wordy = values.kind == WORD
            moved = np.where(wordy, place[np.where(wordy, values.number, 0.0).astype(np.int64)], values.number)
            number.append(moved)
        else:
            number.append(values.number)
    return Values(np.concatenate(number), np.concatenate(kind), tuple(places))
