"""Pairs of texts of which one was preferred, from any table.

    read_pairs(path, columns) -> Pairs         ``text_a``, ``text_b``, ``winner``; names of columns can be given
    groups_of(first, second, named) -> codes   pairs that share a text, or a name, are one group and never split

The winner is ``a`` or ``b``, ``1`` or ``2``, ``0`` or ``1`` (0 is a, when there is no 2), ``text_a`` or ``text_b``, ``model_a`` or
``model_b``, ``first`` or ``second``, or the winning text itself. ``tie``, ``both`` and nothing at all are no preference: they are counted
and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.files.tables import open_table
from reward_models.features import plain
from reward_models.folds import codes_of, components

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_PAIRS = 200_000
MOST_CHARACTERS = 50_000
"""Of a text; the rest is not read."""

_FIRST = {"a", "text_a", "model_a", "answer_a", "response_a", "first", "left", "chosen"}
_SECOND = {"b", "text_b", "model_b", "answer_b", "response_b", "second", "right", "rejected"}
_NONE = {"", "tie", "both", "neither", "equal", "tie (bothbad)", "none", "nan"}


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns. ``group`` and ``prompt`` are looked for only when they are named or there."""

    text_a: str = "text_a"
    text_b: str = "text_b"
    winner: str = "winner"
    group: str = "group"
    prompt: str = "prompt"


@dataclass(frozen=True)
class Pairs:
    """n pairs. ``prompts``: what both texts answer, empty without; ``group``: shape (n,)."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    first_won: Mask
    group: Ints
    prompts: tuple[str, ...] = ()
    undecided: int = 0
    """Rows without a preference."""

    def __len__(self) -> int:
        return len(self.first)

    def part(self, kept: Mask) -> "Pairs":
        """The pairs under the mask."""
        rows = np.flatnonzero(kept).tolist()
        first, second, prompts = (
            tuple(texts[row] for row in rows) if texts else () for texts in (self.first, self.second, self.prompts)
        )
        return Pairs(first, second, self.first_won[kept], self.group[kept], prompts)


def groups_of(first: Sequence[str], second: Sequence[str], named: Sequence[str] = ()) -> Ints:
    """Group of each pair, shape (n,): pairs are linked by a text, whatever its side, case and spaces, or by a name."""
    row = list(range(len(first)))
    links = [plain(text) for texts in (first, second) for text in texts]
    rows = row + row
    if named:
        rows, links = rows + row, links + [f"\x00{name}" for name in named]
    return components(rows, links)[: len(first)]


def read_pairs(path: Path, columns: Columns = Columns()) -> Pairs:
    """The pairs of a CSV or Parquet table. Raises :class:`BadInput`, saying what to do, when it does not hold any."""
    with open_table(path) as table:
        at = {name: place for place, name in enumerate(table.columns)}
        if missing := [name for name in (columns.text_a, columns.text_b, columns.winner) if name not in at]:
            raise BadInput(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}. Name yours with "
                "--text-a, --text-b and --winner"
            )
        wanted = (columns.text_a, columns.text_b, columns.winner, columns.group, columns.prompt)
        rows: list[list[str]] = []
        for number, row in enumerate(table.rows, start=1):
            if number > MOST_PAIRS:
                raise BadInput(f"{path} has more than {MOST_PAIRS:,} rows; give a part of it")
            if len(row) != len(table.columns):
                raise BadInput(f"{path}, row {number:,}: {len(row)} cells for {len(table.columns)} columns")
            rows.append([row[at[name]][:MOST_CHARACTERS] if name in at else "" for name in wanted])
    named, asked = (name in at for name in (columns.group, columns.prompt))
    return _pairs(path, rows, named, asked)


def _pairs(path: Path, rows: Sequence[Sequence[str]], named: bool, asked: bool) -> Pairs:
    zero_is_first = not any(row[2].strip() == "2" for row in rows)
    won = [_winner(row, zero_is_first) for row in rows]
    strange = [number for number, one in enumerate(won) if one is None and not _undecided(rows[number])]
    if strange:
        said = rows[strange[0]][2][:40]
        raise BadInput(
            f"{path}, row {strange[0] + 1:,}: the winner {said!r} is neither a, b, 1, 2, a tie nor one of the texts"
        )
    kept = [(row, one) for row, one in zip(rows, won, strict=True) if one is not None and row[0] != row[1]]
    if not kept:
        raise BadInput(f"{path} holds no pair with a winner")
    first, second = ([row[side] for row, _ in kept] for side in (0, 1))
    prompts = tuple(row[4] for row, _ in kept) if asked else ()
    names = [row[3] for row, _ in kept] if named else list(prompts)
    group = groups_of(first, second, names)
    return Pairs(
        tuple(first), tuple(second), np.array([one for _, one in kept]), group, prompts, undecided=len(rows) - len(kept)
    )


def _winner(row: Sequence[str], zero_is_first: bool) -> bool | None:
    """Whether the first won; None for no preference, and for what is not understood."""
    said = row[2].strip().lower()
    if said in _FIRST or said == ("0" if zero_is_first else "1"):
        return True
    if said in _SECOND or said == ("1" if zero_is_first else "2"):
        return False
    if row[2] == row[0] and row[0] != row[1]:
        return True
    return False if row[2] == row[1] and row[0] != row[1] else None


def _undecided(row: Sequence[str]) -> bool:
    return row[2].strip().lower() in _NONE


def longer_wins(pairs: Pairs) -> npt.NDArray[np.float64]:
    """The margin of a judge who prefers the longer text, in characters, shape (n,)."""
    return np.array([float(len(a) - len(b)) for a, b in zip(pairs.first, pairs.second, strict=True)])


def codes(pairs: Pairs) -> tuple[list[str], Ints, Ints]:
    """The distinct texts, and the place among them of each first and second text."""
    both = codes_of([*pairs.first, *pairs.second])
    texts = list(dict.fromkeys([*pairs.first, *pairs.second]))
    return texts, both[: len(pairs)], both[len(pairs) :]
