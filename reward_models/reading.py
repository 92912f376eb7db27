"""Decisions read from the database in chunks, each made into columns while the next is fetched.

    chunks(connection, queries, kept) -> Chunk, Chunk …

1. fetch a chunk (this thread)
2. keep the decisions that are wanted, by their start
3. parse contexts, candidates and placements with Arrow (other threads: it needs no interpreter)
4. one row per shown content: placements beyond the slots were not shown. In a slate that had to include contents the lower
   positions were not drawn as others are (``policies.draw_slate``): here their propensity counts as unknown, so that such
   lists teach, and no estimate of lists takes them for what they are not

Order is kept. A few chunks are on the way at a time, so that memory holds the columns and little more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as arrow_json
from sqlalchemy import Connection, Select

from reward_models.choices import STORED, Choices
from reward_models.contexts import Contexts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

COLUMNS = (
    *("decision_id", "unit", "campaign_id", "decided_at", "group", "learning_mode", "start"),
    *("context", "candidates", "chosen", "constraints"),
)
"""What a query has to select, in this order; the last four as JSON texts."""

_SIZE = 5_000
_PARSERS = 2
_AHEAD = 3
"""Chunks on the way beside those being parsed."""
_PLACED = pa.list_(pa.struct([("position", pa.int64()), ("content_id", pa.string()), ("propensity", pa.float64())]))


class _Rules(msgspec.Struct, frozen=True):
    """What a decision's constraints say here. Slots: all of what was placed, unless said."""

    slots: float = float("inf")
    holdout: float = 0.0
    must_include: tuple[str, ...] = ()


_rules = lru_cache(maxsize=4_096)(msgspec.json.Decoder(_Rules).decode)


@dataclass(frozen=True)
class Chunk:
    """n rows, one per shown content, in the order of the query. Lists and arrays have length n."""

    decision_id: list[str]
    unit: list[str | None]
    campaign_id: list[str]
    group: list[str]
    learning_mode: list[str]
    decided_at: Ints
    start: Ints
    contexts: Contexts
    candidates: Choices
    content_id: list[str]
    position: Ints
    propensity: Floats
    """nan where it is unknown."""
    holdout: Floats
    """0 where nobody was held out."""


def chunks(connection: Connection, queries: Iterable[Select[Any]], kept: Callable[[Floats], Mask]) -> Iterator[Chunk]:
    """The rows of the decisions that ``kept`` says, given the starts of some (microseconds, nan for none); those of
    one query after those of the other."""
    results = (connection.execution_options(yield_per=_SIZE).execute(query) for query in queries)
    wanted = (_wanted(rows, kept) for result in results for rows in result.partitions(_SIZE))
    with ThreadPoolExecutor(_PARSERS) as pool:
        yield from _ahead(pool, _chunk, (columns for columns in wanted if columns))


def _wanted(rows: Sequence[Any], kept: Callable[[Floats], Mask]) -> dict[str, Sequence[Any]]:
    """Step 2: columns by name; none if no row is wanted."""
    columns: dict[str, Sequence[Any]] = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    mask = kept(np.array(columns["start"], dtype=np.float64))
    if mask.all():
        return columns
    places = np.flatnonzero(mask).tolist()
    return {name: [values[place] for place in places] for name, values in columns.items()} if places else {}


def _ahead(
    pool: ThreadPoolExecutor,
    make: Callable[[dict[str, Sequence[Any]]], Chunk],
    items: Iterable[dict[str, Sequence[Any]]],
) -> Iterator[Chunk]:
    """``map`` with a bounded number of items on the way."""
    waiting: deque[Future[Chunk]] = deque()
    for item in items:
        waiting.append(pool.submit(make, item))
        if len(waiting) > _PARSERS + _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _chunk(columns: dict[str, Sequence[Any]]) -> Chunk:
    """Steps 3 and 4."""
    placed, rules = _lists(columns["chosen"], _PLACED), [_rules(text) for text in columns["constraints"]]
    contexts = Contexts.parse(columns["context"])
    candidates = Choices.of_arrow(_lists(columns["candidates"], STORED))
    flat, lengths = placed.flatten(), placed.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    position = flat.field("position").to_numpy(zero_copy_only=False)
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    shown = position <= np.array([rule.slots for rule in rules])[of_row]
    rows = of_row[shown]
    free = np.array([not rule.must_include for rule in rules])[rows] | (position[shown] == 1)
    each = None if len(rows) == len(lengths) and (rows == np.arange(len(rows))).all() else rows.tolist()
    return Chunk(
        decision_id=_each(columns["decision_id"], each),
        unit=_each(columns["unit"], each),
        campaign_id=_each(columns["campaign_id"], each),
        group=_each(columns["group"], each),
        learning_mode=_each(columns["learning_mode"], each),
        decided_at=np.array(columns["decided_at"], dtype=np.int64)[rows],
        start=np.array(columns["start"], dtype=np.int64)[rows],
        contexts=contexts if each is None else contexts.take(rows),
        candidates=candidates if each is None else candidates.take(rows),
        content_id=flat.field("content_id").filter(pa.array(shown)).to_pylist(),
        position=position[shown].astype(np.int64),
        propensity=np.where(free, flat.field("propensity").to_numpy(zero_copy_only=False)[shown], np.nan),
        holdout=np.array([rule.holdout for rule in rules])[rows],
    )


def _lists(texts: Sequence[str], kind: pa.ListType) -> pa.ListArray:
    """JSON arrays, one per text."""
    lines = ('{"list":' + '}\n{"list":'.join(texts) + "}").encode()
    table = arrow_json.read_json(
        pa.BufferReader(lines),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=arrow_json.ParseOptions(
            explicit_schema=pa.schema([("list", kind)]), unexpected_field_behavior="ignore"
        ),
    )
    return table.column("list").chunk(0)


def _each(values: Sequence[Any], rows: list[int] | None) -> list[Any]:
    return list(values) if rows is None else [values[row] for row in rows]
