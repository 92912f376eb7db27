"""Scores for a table of candidate texts: expected reward, its interval, and the rank within the campaign.

    interval = expected ± 1.96 · spread        spread: of contents' true rewards about the model's predictions

The table has the columns ``campaign`` and one per slot that the model knows; columns named like its content
features are used too, all others are passed through. A campaign the model has not seen is taken at the loop's mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.events import Content
from reward_models.boosted import RewardModel
from reward_models.explanation import reasons, sentence

Floats = npt.NDArray[np.float64]

CAMPAIGN = "campaign"
SUBJECT = "subject"
ADDED = ("expected_reward", "expected_reward_low", "expected_reward_high", "rank")
"""Columns that are added; rank 1 is best."""
WHY = "why"
"""One more column, if asked for: the strongest reasons for the score (``explanation.py``)."""

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")
_NORMAL_95 = 1.959963984540054


def slots_of(model: RewardModel) -> list[str]:
    """Slots the model knows, from its feature schema."""
    dotted = (column.name for column in model.schema.content if "." in column.name)
    return sorted({name.rsplit(".", 1)[0] for name in dotted if not name.startswith("content.")})


def slot_for(model: RewardModel, named: str | None = None) -> str:
    """The slot of lines that are given without one: ``subject`` where the model knows it, else the first it knows.

    Raises :class:`BadInput` for a named slot that the model does not know.
    """
    known = slots_of(model)
    if named is not None and known and named not in known:
        raise BadInput(f"The model knows no slot {named!r}; it knows {', '.join(known)}")
    return named or (SUBJECT if SUBJECT in known or not known else known[0])


def check_columns(model: RewardModel, columns: Sequence[str]) -> None:
    """Raise :class:`BadInput` naming what is missing, or what would be overwritten."""
    missing = [name for name in (CAMPAIGN, *slots_of(model)) if name not in columns]
    if missing:
        raise BadInput(
            f"The file has no column {', '.join(map(repr, missing))}. It needs {CAMPAIGN!r} and one column per slot "
            f"({', '.join(slots_of(model)) or 'the model knows none'}); columns found: {', '.join(columns)}"
        )
    if taken := [name for name in (*ADDED, WHY) if name in columns]:
        raise BadInput(f"The file has a column {taken[0]!r}, which scoring adds; rename it")


def read_candidates(
    model: RewardModel, columns: Sequence[str], rows: Sequence[Sequence[str]], text_limit: int
) -> list[Content]:
    """The contents of a table. Raises :class:`BadInput` for the first row that cannot be scored, by its number."""
    check_columns(model, columns)
    places = {name: columns.index(name) for name in (CAMPAIGN, *slots_of(model))}
    features = [(column, columns.index(column)) for column in _features(model) if column in columns]
    return [_content(number, row, len(columns), places, features, text_limit) for number, row in enumerate(rows, 1)]


def score(model: RewardModel, contents: Sequence[Content]) -> tuple[Floats, Floats]:
    """Expected reward of each content and the half width of its 95 % interval, shape (k,) each."""
    expected = model.rows([{}] * len(contents), contents)
    return expected, _NORMAL_95 * model.spread(contents)


def ranks(contents: Sequence[Content], expected: Floats) -> list[int]:
    """Rank of each content within its campaign; equal scores share the better rank."""
    found = [0] * len(contents)
    by_campaign: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        by_campaign.setdefault(content.campaign_id, []).append(index)
    for members in by_campaign.values():
        scores = np.sort(expected[members])[::-1]
        for index in members:
            found[index] = 1 + int(np.searchsorted(-scores, -expected[index]))
    return found


def scored_rows(
    model: RewardModel, contents: Sequence[Content], rows: Sequence[Sequence[str]], why: bool = False
) -> list[list[str]]:
    """The rows with the added columns, ``WHY`` last if asked for, safe to open in a spreadsheet."""
    expected, reach = score(model, contents)
    told = [[harmless(sentence(found))] for found in reasons(model, contents)] if why else [[] for _ in contents]
    return [
        [*map(harmless, row), f"{value:.6g}", f"{value - half:.6g}", f"{value + half:.6g}", str(rank), *words]
        for row, value, half, rank, words in zip(rows, expected, reach, ranks(contents, expected), told, strict=True)
    ]


@dataclass(frozen=True)
class ScoredText:
    """A line's score. ``index``: its place among those given."""

    index: int
    expected: float
    low: float
    high: float
    rank: int
    why: str | None = None


def text_contents(texts: Sequence[str], slot: str, text_limit: int) -> list[Content]:
    """Lines as contents of a campaign that nobody knows. Raises :class:`BadInput` for one that is empty or too long."""
    for number, text in enumerate(texts, 1):
        if not text.strip() or len(text.encode("utf-8", "surrogateescape")) > text_limit:
            raise BadInput(f"Line {number} is empty or longer than {text_limit} bytes; correct it")
    return [Content(content_id=str(n), campaign_id="", slots={slot: text}) for n, text in enumerate(texts, 1)]


def scored_texts(model: RewardModel, contents: Sequence[Content], why: bool = False) -> list[ScoredText]:
    """Scores of such lines, in their order."""
    expected, reach = score(model, contents)
    told = [sentence(found) for found in reasons(model, contents)] if why else [None] * len(contents)
    each = zip(expected.tolist(), reach.tolist(), ranks(contents, expected), told, strict=True)
    return [
        ScoredText(n, value, value - half, value + half, rank, text) for n, (value, half, rank, text) in enumerate(each)
    ]


def harmless(cell: str) -> str:
    """A cell that a spreadsheet does not take for a formula: a quote goes before it, unless it is a number."""
    if not cell.startswith(_DANGEROUS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _content(
    number: int,
    row: Sequence[str],
    width: int,
    places: dict[str, int],
    features: Sequence[tuple[str, int]],
    text_limit: int,
) -> Content:
    if len(row) != width:
        raise BadInput(f"Row {number} has {len(row)} cells, the header {width}")
    slots = {name: row[place] for name, place in places.items() if name != CAMPAIGN and row[place].strip()}
    if places.keys() - {CAMPAIGN} and not slots:
        raise BadInput(f"Row {number} has no text to score")
    for name, text in slots.items():
        if len(text.encode("utf-8", "surrogateescape")) > text_limit:
            raise BadInput(f"Row {number}: {name} is longer than {text_limit} bytes; shorten it")
    return Content(
        content_id=str(number),
        campaign_id=row[places[CAMPAIGN]],
        slots=slots,
        features={name: _value(row[place]) for name, place in features if row[place]},
    )


def _features(model: RewardModel) -> list[str]:
    return [
        column.name.removeprefix("content.") for column in model.schema.content if column.name.startswith("content.")
    ]


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
