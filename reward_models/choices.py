"""What could have been chosen, for many decisions, as columns: contents with the probabilities of the draw.

    Choices.of(rows)    Choices.of_arrow(lists)    Choices.joined(parts)    choices.take(rows)
    choices[row] -> tuple[Candidate, ...]           choices.sets() -> which rows had the same contents to choose from
    choices.table("behaviour_p") -> (n, k)          padded to the widest row

Of a stored candidate its content and its two probabilities are kept; what the policy knew (score, mean, sd) is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, overload

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestion.events import Candidate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STORED = pa.list_(pa.struct([("content_id", pa.string()), ("policy_p", pa.float64()), ("behaviour_p", pa.float64())]))
"""How Arrow reads the candidates of a decision."""


@dataclass(frozen=True)
class Choices(Sequence[tuple[Candidate, ...]]):
    """n rows. ``start``: where each row's candidates begin in the other arrays, and where the last one's end, (n + 1,)."""

    start: Ints
    content: Ints
    """Index into ``content_ids``."""
    policy_p: Floats
    """nan where it was not computed."""
    behaviour_p: Floats
    content_ids: tuple[str, ...]

    @staticmethod
    def of(rows: Sequence[Sequence[Candidate]]) -> "Choices":
        """The same candidates as columns."""
        if isinstance(rows, Choices):
            return rows
        places: dict[str, int] = {}
        flat = [candidate for row in rows for candidate in row]
        return Choices(
            np.cumsum([0, *(len(row) for row in rows)]),
            np.array([places.setdefault(one.content_id, len(places)) for one in flat], dtype=np.int64),
            np.array([one.policy_p for one in flat], dtype=np.float64),
            np.array([one.behaviour_p for one in flat], dtype=np.float64),
            tuple(places),
        )

    @staticmethod
    def of_arrow(lists: pa.ListArray) -> "Choices":
        """From lists of type ``STORED``."""
        flat = lists.flatten()
        coded = flat.field("content_id").dictionary_encode()
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return Choices(
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)]),
            coded.indices.to_numpy(zero_copy_only=False).astype(np.int64),
            flat.field("policy_p").to_numpy(zero_copy_only=False),
            flat.field("behaviour_p").to_numpy(zero_copy_only=False),
            tuple(coded.dictionary.to_pylist()),
        )

    @staticmethod
    def joined(parts: Sequence["Choices"]) -> "Choices":
        """The parts, one after the other."""
        places: dict[str, int] = {}
        places_of = [
            np.array([places.setdefault(name, len(places)) for name in part.content_ids], dtype=np.int64)
            for part in parts
        ]
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *(part.lengths for part in parts)])
        return Choices(
            np.cumsum(lengths),
            np.concatenate(
                [np.zeros(0, dtype=np.int64), *(p[part.content] for p, part in zip(places_of, parts, strict=True))]
            ),
            np.concatenate([np.zeros(0), *(part.policy_p for part in parts)]),
            np.concatenate([np.zeros(0), *(part.behaviour_p for part in parts)]),
            tuple(places),
        )

    @property
    def lengths(self) -> Ints:
        """Candidates of each row, shape (n,)."""
        return np.diff(self.start)

    def take(self, rows: npt.NDArray[Any]) -> "Choices":
        """Those of some rows: a mask or indices."""
        kept = np.arange(len(self))[rows]
        lengths = self.lengths[kept]
        start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        flat = np.repeat(self.start[kept] - start[:-1], lengths) + np.arange(start[-1])
        return Choices(start, self.content[flat], self.policy_p[flat], self.behaviour_p[flat], self.content_ids)

    def sets(self) -> tuple[Ints, list[tuple[str, ...]]]:
        """The set of each row, numbered in order of first appearance, shape (n,); and the content ids of each set."""
        if len(self) and not self.start[-1]:
            return np.zeros(len(self), dtype=np.int64), [()]
        seen: dict[bytes, int] = {}
        content, start = self.content, self.start.tolist()
        keys = [content[begin:end].tobytes() for begin, end in pairwise(start)]
        of_row = np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)
        ids = [tuple(self.content_ids[at] for at in np.frombuffer(key, dtype=np.int64)) for key in seen]
        return of_row, ids

    def table(self, name: Literal["policy_p", "behaviour_p"]) -> Floats:
        """A probability of every candidate, in the order of each row, shape (n, widest); 0 beyond a row's end."""
        lengths = self.lengths
        table = np.zeros((len(self), int(lengths.max(initial=0))))
        column = np.arange(int(self.start[-1])) - np.repeat(self.start[:-1], lengths)
        table[np.repeat(np.arange(len(self)), lengths), column] = getattr(self, name)
        return table

    def update(self, state: Any) -> None:
        """Add everything to a digest."""
        state.update(msgspec.json.encode(self.content_ids))
        for values in (self.start, self.content, self.policy_p, self.behaviour_p):
            state.update(values.tobytes())

    def __len__(self) -> int:
        return len(self.start) - 1

    @overload
    def __getitem__(self, at: int) -> tuple[Candidate, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> "Choices": ...
    def __getitem__(self, at: int | slice) -> "tuple[Candidate, ...] | Choices":
        if isinstance(at, slice):
            return self.take(np.arange(len(self))[at])
        row = range(len(self))[at]
        return tuple(self._candidate(place) for place in range(self.start[row], self.start[row + 1]))

    def _candidate(self, at: int) -> Candidate:
        policy_p, behaviour_p = float(self.policy_p[at]), float(self.behaviour_p[at])
        return Candidate(
            content_id=self.content_ids[self.content[at]],
            policy_p=None if np.isnan(policy_p) else policy_p,
            behaviour_p=None if np.isnan(behaviour_p) else behaviour_p,
        )
