"""Everything that reads what others wrote: whatever it is, it is read or refused with a sentence, soon, and no number
that is read is infinite or none.

Vendors' webhooks, topics, tokens and links have files of their own; here are keys, definitions, mappings, tables,
Avro and gzip files, and the log that clicks wait in.
"""

import gzip
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInput
from ingestion.decode import Edge, decode_event
from ingestion.events import Event, Rejected
from ingestion.files.deliveries import open_deliveries
from ingestion.files.mappings import load_mapping, parse_probability
from ingestion.files.tables import file_digest, open_table
from ingestion.keys import Keyring
from ingestion.loops import LoopDefinition, parse_definition
from ingestion.metrics import LONGEST, parse_duration
from ingestion.spool import _lines
from tests.ingestion.importing import EXAMPLES
from tests.ingestion.records import NOW, SECRETS

QUICK = settings(max_examples=60, deadline=None)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["rl_", "nan", "1e999999999", "9" * 400, "1/0", "²", "½", "٣", "-0", "1e-400"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | TEXTS
    | st.sampled_from(["7d", "999999999w", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 10**400])
)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
LOOP: dict[str, Any] = {
    "loop": "mail",
    "metrics": [
        {"name": "click", "event": "click", "window": "7d", "cap": 5.0, "currency": "EUR"}
        | {"per_unit_limit": {"most": 1, "per": "1d"}}
    ],
    "reward": {"click": 1.0},
    "lift": {"since": "2026-01-01T00:00:00Z", "worthwhile": 0.1},
    "policy": {"gamma": 2.0},
    "gate": {"window": "7d", "alpha": 0.05},
    "limits": {"a": {"least": 0.1, "most": 0.5, "budget": 5}},
    "guardrails": [{"metric": "click", "margin": 0.1}],
    "sources": {"shop": {"types": ["click"], "largest": 5.0}},
}


READ = "read"


def ending(read: Callable[[], Any], refused: type[Exception] = ValueError) -> str:
    """How a reading ends: it was read, or what the refusal says. Another error is no ending."""
    try:
        read()
    except refused as refusal:
        return str(refusal)
    return READ


def numbers(document: Any) -> Iterator[float]:
    """Every number of a document."""
    if isinstance(document, dict | list):
        for part in document.values() if isinstance(document, dict) else document:
            yield from numbers(part)
    elif isinstance(document, int | float):
        yield document


def spoilt(document: Any, data: st.DataObject) -> Any:
    """The document with one part, somewhere, replaced by anything."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 3)):
        name = data.draw(st.sampled_from(sorted(document)))
        return document | {name: spoilt(document[name], data)}
    if isinstance(document, list) and document and data.draw(st.integers(0, 3)):
        return [spoilt(document[0], data), *document[1:]]
    return data.draw(ANY)


@QUICK
@given(st.data())
def test_any_definition_is_read_or_refused(data: st.DataObject) -> None:
    """A loop's definition with any part replaced by anything is refused with a sentence, or comes back from its JSON as
    it was, in finite numbers that a database holds."""
    definition_given = spoilt(LOOP, data)
    if ending(lambda: parse_definition(definition_given), BadInput) != READ:
        return
    definition = parse_definition(definition_given)
    document = definition.model_dump(mode="json")
    assert parse_definition(document) == definition
    assert all(math.isfinite(number) for number in numbers(document))
    assert widest(definition) < 2**62


def widest(definition: LoopDefinition) -> int:
    """The largest time that the join computes with."""
    return NOW + definition.maturity + definition.tolerance


@QUICK
@given(SCALARS)
def test_durations_and_probabilities_are_numbers_that_are_meant(value: Any) -> None:
    """Whatever is given, a duration lies within a century and a probability within (0, 1], or it is a ``ValueError``."""
    for read, least, most in ((parse_duration, 0, LONGEST), (parse_probability, 0, 1)):
        found: list[float] = []
        assert ending(lambda read=read, found=found: found.append(read(value)))  # type: ignore[misc]
        assert all(least <= number <= most for number in found)


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["event_id", "type", "occurred_at", "value", "unit", "position", "properties"]), ANY
    )
)
def test_any_event_is_a_fact_in_finite_numbers(fields: dict[str, Any]) -> None:
    """Numbers that are none, infinite or larger than a database holds do not become facts."""
    document = {"event_id": "e", "type": "click", "occurred_at": "2026-11-22T09:00:00Z", "unit": "u"} | fields
    found = decode_event(document, Edge(SECRETS, ("http",), NOW))
    assert isinstance(found, Event | Rejected)
    if isinstance(found, Event):
        assert 0 <= (found.value_micros or 0) < 2**62
        assert all(math.isfinite(number) for number in numbers(found.raw))


@QUICK
@given(st.text(max_size=80) | st.from_regex(r"rl_[a-p]{12}_[A-Za-z0-9_-]{43}", fullmatch=True))
def test_any_text_is_nobodys_key(text: str) -> None:
    """A text that is no key of ours finds nobody, without a look at the database."""
    assert Keyring(None, SECRETS, lambda: NOW).find(text) is None  # type: ignore[arg-type]


def mangled(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file cut anywhere, or with some of its bytes changed, or both."""
    places = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)

    def mangle(end: int, changes: list[tuple[int, int]]) -> bytes:
        found = bytearray(whole)
        for place, value in changes:
            found[place] = value
        return bytes(found[:end])

    return st.builds(mangle, st.integers(0, len(whole)), places)


def _avro() -> bytes:
    schema = {
        "type": "record",
        "name": "r",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "n", "type": ["null", "double", "long"]},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
        ],
    }
    file = io.BytesIO()
    records = [{"id": f"r{n}", "n": n / 3, "tags": ["x"] * n} for n in range(6)]
    fastavro.writer(file, fastavro.parse_schema(schema), records, codec="deflate")
    return file.getvalue()


def _parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2, None], "b": ["x", "y", "z"]}), file)
    return file.getvalue()


AVRO, PARQUET, CSV = _avro(), _parquet(), 'a,b\n1,"x\ny"\n2,ü\n'.encode()
JSON_LINES = b'{"event":"click","x":1.5}\n{"headers":{"A":"b"},"body":{"event":"open"}}\n'
FILES = (
    st.binary(max_size=200)
    | mangled(AVRO)
    | mangled(PARQUET)
    | mangled(CSV)
    | mangled(JSON_LINES)
    | mangled(gzip.compress(JSON_LINES))
    | mangled(gzip.compress(CSV))
    | mangled(gzip.compress(AVRO))
    | mangled(gzip.compress(PARQUET))
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the file of the example at hand."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=200, deadline=None)
@given(content=FILES)
def test_any_file_is_read_or_refused(folder: Path, content: bytes) -> None:
    """A file of deliveries or a table, cut or changed anywhere, is read as far as it goes or refused with its name."""
    path = folder / "given"
    path.write_bytes(content)
    for read in (_deliveries, _rows, file_digest):
        assert ending(lambda read=read: read(path), BadInput)  # type: ignore[misc]


def _deliveries(path: Path) -> None:
    with open_deliveries(path) as file:
        for delivery in file.deliveries:
            assert isinstance(delivery.body, bytes)


def _rows(path: Path) -> None:
    with open_table(path) as table:
        for row in table.rows:
            assert all(isinstance(cell, str) for cell in row)


@QUICK
@given(content=mangled((EXAMPLES / "hillstrom.toml").read_bytes()))
def test_any_mapping_is_read_or_refused(folder: Path, content: bytes) -> None:
    """A mapping with any bytes changed is a mapping or is refused with what is wrong."""
    path = folder / "mapping.toml"
    path.write_bytes(content)
    assert ending(lambda: load_mapping(path), BadInput)


@QUICK
@given(st.binary(max_size=300) | mangled(b"5a3d1f0c {}\n0b1c2d3e [1]\n"))
def test_any_spool_file_is_lines(content: bytes) -> None:
    """Every whole line of a spool file is handed over, as what was written or as damaged bytes; only a last one that is
    torn is passed over."""
    lines = list(_lines("f", content))
    assert len(lines) <= content.count(b"\n")
    assert all(line.raw in content and (line.content is None or line.content in line.raw) for line in lines)


def test_a_window_of_centuries_is_refused() -> None:
    """A duration that no database can add to a time is refused when it is defined, not met by every batch after it."""
    with pytest.raises(BadInput, match="more than 100 years"):
        parse_definition({**LOOP, "metrics": [{"name": "click", "event": "click", "window": "999999999w"}], "lift": {}})
