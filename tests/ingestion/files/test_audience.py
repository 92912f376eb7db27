"""Audience files: every row is a recipient or a complaint, whatever is in the file."""

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import BadInput
from ingestion.files.audience import ROW_LIMIT, Columns, Recipient, Unread, open_audience, read_cell


def read(path: Path, content: bytes | str, **columns: Any) -> list[Recipient | Unread]:
    """The rows of a file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_audience(path, Columns(**columns)) as audience:
        return list(audience.rows)


def people(rows: list[Recipient | Unread]) -> list[tuple[str, dict[str, Any]]]:
    return [(row.unit, row.context) for row in rows if isinstance(row, Recipient)]


def complaints(rows: list[Recipient | Unread]) -> list[tuple[int, str, str]]:
    return [(row.line, row.reason, row.raw) for row in rows if isinstance(row, Unread)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is; its name says nothing."""
    return tmp_path / "audience"


CSV = "unit,age,plan,news,zip\nu1,34,gold,true,01234\nu2,,,FALSE,nan\nu3,0.5,7,True,+49\n"


def test_a_csv_is_read_by_what_its_cells_say(path: Path) -> None:
    """Numbers, booleans and texts are told apart as JSON would write them; empty cells and nan are missing."""
    expected = [
        ("u1", {"age": 34, "plan": "gold", "news": True, "zip": "01234"}),
        ("u2", {"news": False}),
        ("u3", {"age": 0.5, "plan": 7, "news": True, "zip": "+49"}),
    ]

    assert people(read(path, CSV)) == expected
    assert people(read(path, gzip.compress(CSV.encode()))) == expected
    assert people(read(path, "\ufeff" + CSV.replace("\n", "\r\n"))) == expected


def test_json_lines_may_nest_the_context(path: Path) -> None:
    """A line is an object with the customer; features stand beside it, or in ``context``, as in /v1/rank."""
    lines = (
        '{"unit": "u1", "age": 34, "plan": null}\n\n{"unit": 7, "context": {"age": 1.5, "news": true}, "plan": "007"}'
    )

    assert people(read(path, lines)) == [("u1", {"age": 34}), ("7", {"age": 1.5, "news": True, "plan": "007"})]


def test_a_parquet_keeps_its_types(path: Path) -> None:
    """Numbers, booleans and texts are as stored, nan and null are missing, times and decimals are texts."""
    columns = {
        "unit": [1, 2],
        "age": [1.5, float("nan")],
        "news": [True, None],
        "since": [datetime(2026, 1, 2, tzinfo=UTC), None],
        "spent": [Decimal("9.90"), None],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)

    assert people(read(path, path.read_bytes())) == [
        ("1", {"age": 1.5, "news": True, "since": "2026-01-02T00:00:00+00:00", "spent": "9.90"}),
        ("2", {}),
    ]


def test_columns_may_be_carried_along(path: Path) -> None:
    """A column that is kept is no context, and the customer's column may have any name."""
    rows = read(path, "mail,age,name\na@b.c,3,Ann\n", unit="mail", keep=("name",))
    assert rows == [Recipient(2, "a@b.c", {"age": 3}, ("Ann",))]

    rows = read(path, '{"mail": "a@b.c", "age": 3, "name": ["x"]}\n', unit="mail", keep=("name",))
    assert rows == [Recipient(1, "a@b.c", {"age": 3}, ('["x"]',))]


def test_what_cannot_be_used_is_told_with_its_line(path: Path) -> None:
    """Too few cells, no customer, texts that are too long, bytes that are no UTF-8: line, reason and the row as it was."""
    long = "x" * 1_001
    rows = read(path, f"unit,plan\nu1\n ,gold\nu2,{long}\nu3,1e999\n\nu4,ok\n".encode() + b"u5,\xff\n" + b"u\x00,a\n")

    assert people(rows) == [("u4", {"plan": "ok"})]
    assert [(line, raw) for line, _, raw in complaints(rows)] == [
        (2, "u1"),
        (3, " ,gold"),
        (4, f"u2,{long}"),
        (5, "u3,1e999"),
        (8, "u5,\udcff"),
        (9, "u\x00,a"),
    ]
    words = ["1 cells, the header 2", "names no customer", "at most 1000", "finite", "surrogate", "1 to 256"]
    for (_, reason, _), word in zip(complaints(rows), words, strict=True):
        assert word in reason


def test_json_that_cannot_be_used_is_told_too(path: Path) -> None:
    """Lines that are no JSON, no object, or hold lists or numbers that no float holds exactly."""
    lines = [
        '{"unit": "u1", "age": NaN}',
        "[1]",
        '{"unit": "u2", "tags": [1]}',
        '{"unit": "u3", "n": 9007199254740993}',
    ]
    rows = read(path, "\n".join(['{"unit": "u0"}', *lines, '{"age": 3}', '{"unit": "u9"}']))

    assert people(rows) == [("u0", {}), ("u9", {})]
    assert [line for line, _, _ in complaints(rows)] == [2, 3, 4, 5, 6]
    words = ["not readable JSON", "an object", "flatten", "2^53", "names no customer"]
    for (_, reason, _), word in zip(complaints(rows), words, strict=True):
        assert word in reason


def test_an_open_quote_costs_one_line(path: Path) -> None:
    """A quote that does not close swallows nothing but its own line, at the end of the file and in the middle of it."""
    short = 'unit,plan\nu1,"gold\nu2,b\nu3,"two\nlines"\nu4,d\n'
    rows = read(path, short)
    assert complaints(rows)[0][::2] == (2, 'u1,"gold')
    assert people(rows) == [("u2", {"plan": "b"}), ("u3", {"plan": "two\nlines"}), ("u4", {"plan": "d"})]

    many = "unit,plan\n" + 'u0,"open\n' + "".join(f"u{n},{'x' * 90}\n" for n in range(1, 2_000))
    rows = read(path, many)
    assert [line for line, _, _ in complaints(rows)] == [2]
    assert len(people(rows)) == 1_999


def test_rows_have_a_limit(path: Path) -> None:
    """A row without end is one complaint with its beginning; what follows is read."""
    rows = read(path, "unit,plan\nu1," + "x" * (3 * ROW_LIMIT) + "\nu2,b\n")
    assert people(rows) == [("u2", {"plan": "b"})]
    assert complaints(rows)[0][0] == 2
    assert len(complaints(rows)[0][2]) <= ROW_LIMIT + 1

    rows = read(path, '{"unit": "u1", "x": "' + "x" * ROW_LIMIT + '"}\n{"unit": "u2"}\n')
    assert people(rows) == [("u2", {})]
    assert complaints(rows)[0][0] == 1


@pytest.mark.parametrize(
    ("content", "columns", "word"),
    [
        (b"", {}, "does not begin"),
        (b"customer,age\nu1,3\n", {}, "no column 'unit'"),
        (b"unit,age,age\nu1,3,4\n", {}, "two columns 'age'"),
        (b"unit,age\nu1,3\n", {"keep": ("name",)}, "no column 'name' to keep"),
        (b"unit,age\nu1,3\n", {"keep": ("unit",)}, "not the one that names"),
        (b"unit," + b",".join(b"c%d" % n for n in range(201)) + b"\n", {}, "at most 200"),
        (b"unit," + b"c" * 129 + b"\n", {}, "a name has 1 to 128"),
        (b"PAR1 and no more", {}, "cannot be read"),
        (gzip.compress(b"unit,age\nu1,3\n" * 9_999)[:-20], {}, "cannot be read"),
    ],
)
def test_a_file_that_is_no_audience_is_refused(path: Path, content: bytes, columns: dict[str, Any], word: str) -> None:
    """A file without the columns, cut short, or of too many columns is refused as a whole, in a sentence."""
    with pytest.raises(BadInput, match=word):
        read(path, content, **columns)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is said to be unreadable."""
    with pytest.raises(BadInput, match="No such file"), open_audience(tmp_path / "none", Columns()):
        pass


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(st.binary(max_size=400), st.text(max_size=300).map(str.encode)), head=st.booleans())
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bool) -> None:
    """Whatever the bytes are, the file is refused, or each of its rows is a recipient or a complaint that can be written."""
    path = tmp_path_factory.mktemp("fuzz") / "audience"
    try:
        rows = read(path, (b"unit,a\n" if head else b"") + content)
    except BadInput:
        return
    lines = [row.line for row in rows]
    assert lines == sorted(lines)
    for row in rows:
        msgspec.json.encode(row.context if isinstance(row, Recipient) else row.reason)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_cells_read_what_json_writes(value: float | bool) -> None:
    """A number or boolean as JSON writes it is read as the same value of the same kind."""
    found = read_cell(msgspec.json.encode(value).decode())

    assert (type(found), found) == (type(value), value)
