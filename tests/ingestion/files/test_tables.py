"""Tables are read as text, whatever their format."""

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from infra.errors import BadInput
from ingestion.files.tables import file_digest, open_table, raw_row

CSV = 'campaign,text\nc1,"a, b\nc"\n\nc2,ü\n'


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    with open_table(path) as table:
        return table.columns, list(table.rows)


@pytest.mark.parametrize("name", ["plain.csv", "zipped.csv.gz", "zipped-without-a-name", "marked.csv"])
def test_csv_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    """CSV is recognised by its bytes: quoted new lines stay, blank lines and byte order marks go."""
    body = CSV.encode("utf-8-sig" if name == "marked.csv" else "utf-8")
    (tmp_path / name).write_bytes(gzip.compress(body) if "zipped" in name else body)

    assert read(tmp_path / name) == (["campaign", "text"], [["c1", "a, b\nc"], ["c2", "ü"]])


@pytest.mark.parametrize("zipped", [False, True])
def test_parquet(tmp_path: Path, zipped: bool) -> None:
    """Parquet gives the same text as CSV would: numbers, truth values and nothing at all."""
    table = pyarrow.table({"n": [1, None], "x": [0.5, 2.0], "flag": [True, False], "word": ["a", ""]})
    pyarrow.parquet.write_table(table, tmp_path / "table")
    if zipped:
        (tmp_path / "table").write_bytes(gzip.compress((tmp_path / "table").read_bytes()))

    expected = (["n", "x", "flag", "word"], [["1", "0.5", "1", "a"], ["", "2.0", "0", ""]])
    assert expected == read(tmp_path / "table")


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    """A row that is not UTF-8 can be given back byte for byte."""
    (tmp_path / "latin.csv").write_bytes(b"a,b\n\xfc,1\n")
    _, rows = read(tmp_path / "latin.csv")

    assert raw_row(rows[0]) == b"\xfc,1"


@pytest.mark.parametrize("body", [b"", b"\x1f\x8bnot gzip", b"PAR1 not parquet", gzip.compress(CSV.encode())[:-12]])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, body: bytes) -> None:
    """Empty, damaged and cut-off files give one sentence with the file's name."""
    (tmp_path / "damaged").write_bytes(body)

    with pytest.raises(BadInput, match="damaged"):
        read(tmp_path / "damaged")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there gives one sentence with its name."""
    with pytest.raises(BadInput, match=r"gone\.csv cannot be read"):
        file_digest(tmp_path / "gone.csv")


def test_the_position_reaches_the_size(tmp_path: Path) -> None:
    """Progress is told in units of the file's size, and ends there."""
    (tmp_path / "plain.csv").write_text(CSV)
    with open_table(tmp_path / "plain.csv") as table:
        list(table.rows)

        assert table.size == table.position()
