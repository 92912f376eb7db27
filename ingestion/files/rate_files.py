"""Rates from CSV: columns ``from``, ``to``, ``valid_from``, ``rate``, in any order.

A file is taken whole or not at all: every line that cannot be read is told, with what to do.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.errors import BadInput
from ingestion.exchange import MOST, Rate, read_rate, without_repetitions

COLUMNS = ("from", "to", "valid_from", "rate")
TOLD = 20
"""Most lines that are told."""
LARGEST = 64 * 1024 * 1024
"""Bytes of the largest file."""


class UnreadableRates(BadInput):
    """A file with lines that cannot be used. ``lines``: sentences, the first ``TOLD`` of them."""

    def __init__(self, path: Path, lines: Sequence[str], count: int) -> None:
        super().__init__(f"{path}: {count:,} lines cannot be used, so nothing was imported; the first: {lines[0]}")
        self.lines = lines


def read_rates(path: Path, now: int) -> list[Rate]:
    """The rates of a file, each once, sorted. Raises :class:`BadInput` and :class:`UnreadableRates`."""
    found: list[tuple[int, Rate]] = []
    wrong: list[str] = []
    count = 0
    for number, cells in _lines(path):
        if len(found) + count >= MOST:
            raise BadInput(f"{path} has more than {MOST:,} rates; split it")
        try:
            found.append((number, read_rate(**cells, now=now)))
        except BadInput as error:
            count += 1
            wrong += [f"line {number}: {error}"] if len(wrong) < TOLD else []
    if wrong:
        raise UnreadableRates(path, wrong, count)
    if not found:
        raise BadInput(f"{path} holds no rates; below the header {','.join(COLUMNS)} comes one line per rate")
    try:
        return without_repetitions(found)
    except BadInput as error:
        raise BadInput(f"{path}: line {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and named cells of every line that is not blank."""
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path} is larger than {LARGEST >> 20} MiB; split it")
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            places = _places(path, next(rows, []))
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield (
                        rows.line_num,
                        {name: row[place] if place < len(row) else "" for name, place in places.items()},
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as a CSV file in UTF-8 ({error})") from None


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.strip() for name in header]
    if sorted(names) != sorted(COLUMNS):
        raise BadInput(
            f"{path} has the columns {', '.join(names)[:200] or 'none'}; the first line must name {', '.join(COLUMNS)}"
        )
    arguments = ("from_currency", "to_currency", "valid_from", "rate")
    return {argument: names.index(column) for argument, column in zip(arguments, COLUMNS, strict=True)}
