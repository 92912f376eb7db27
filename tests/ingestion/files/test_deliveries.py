"""Vendors' payloads in files: which deliveries a file holds, whatever its form."""

import gzip
import json
import re
from pathlib import Path

import fastavro
import pytest

from infra.errors import BadInput
from ingestion.files.deliveries import Stored, open_deliveries, open_delivery

ONE, TWO = {"event": "open", "n": 1}, {"event": "click", "n": 2}
PLAIN: list[tuple[bytes, dict[str, str]]] = [
    (json.dumps(document, separators=(",", ":")).encode(), {}) for document in (ONE, TWO)
]


def read(path: Path, content: bytes) -> list[Stored]:
    """The deliveries of a file with this content."""
    path.write_bytes(content)
    with open_deliveries(path) as file:
        return list(file.deliveries)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([ONE, TWO], separators=(",", ":")),
        json.dumps([ONE, TWO], indent=2),
        f"[{json.dumps(ONE)},\r\n{json.dumps(TWO)}]\r\n",
        "\n".join(json.dumps(one, separators=(",", ":")) for one in (ONE, TWO)),
        "\ufeff\n\n" + "\n\n".join(json.dumps(one, separators=(",", ":")) for one in (ONE, TWO)) + "\n",
    ],
    ids=["array", "indented array", "array of lines", "JSON lines", "blank lines and a BOM"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_two_records_in_every_form(tmp_path: Path, content: str, zipped: bool) -> None:
    """An array and JSON lines hold a delivery per record, gzipped or not."""
    raw = content.encode()
    found = read(tmp_path / "file", gzip.compress(raw) if zipped else raw)

    assert [(json.loads(body.decode("utf-8-sig")), headers) for body, headers in found] == [(ONE, {}), (TWO, {})]


def test_one_document_is_one_delivery(tmp_path: Path) -> None:
    """Indented or in one line, an object is one body, as it stands in the file."""
    for raw in (json.dumps(ONE).encode(), json.dumps(ONE, indent=2).encode()):
        assert read(tmp_path / "file", raw) == [(raw, {})]


def test_a_recorded_request_is_opened() -> None:
    """Headers lose their case; the body may be a document or the text of one."""
    headers = {"X-Shopify-Topic": "orders/paid", "Content-Length": 17}
    for body in ({"id": 1}, '{"id":1}'):
        found = open_delivery(json.dumps({"headers": headers, "body": body, "topic": "x"}).encode())

        assert found == (b'{"id":1}', {"x-shopify-topic": "orders/paid"})


def test_a_damaged_line_stands_alone(tmp_path: Path) -> None:
    """In JSON lines a line that is no JSON is a delivery like the others, also the first one."""
    good = PLAIN[0][0]

    assert read(tmp_path / "file", good + b"\n{cut\n" + good) == [(good, {}), (b"{cut", {}), (good, {})]
    assert read(tmp_path / "file", b"{cut\n" + good) == [(b"{cut", {}), (good, {})]


def test_a_damaged_document_is_one_delivery(tmp_path: Path) -> None:
    """A document that was cut off is one unreadable body, not as many as it has lines."""
    cut = json.dumps([ONE, TWO], indent=2).encode()[:-20]

    assert read(tmp_path / "file", cut) == [(cut, {})]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    """A missing file and a gzip that is cut short are errors of the call, by name."""
    with pytest.raises(BadInput, match="nowhere"), open_deliveries(tmp_path / "nowhere") as file:
        list(file.deliveries)
    with pytest.raises(BadInput, match="cut"):
        read(tmp_path / "cut", gzip.compress(json.dumps([ONE] * 1000).encode())[:-20])


def test_a_damaged_archive_is_said_to_be_one(tmp_path: Path) -> None:
    """Whatever byte of a gzipped file is wrong, the command says that the file cannot be read."""
    whole = gzip.compress(b"".join(b'{"n":%d}\n' % number for number in range(2_000)))
    for place in range(12, len(whole), 997):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        with pytest.raises(BadInput, match="cannot be read"):
            read(tmp_path / "file", bytes(damaged))


AVRO = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Click",
        "fields": [{"name": "id", "type": "string"}, {"name": "url", "type": ["null", "string"], "default": None}],
    }
)


def avro(path: Path, records: list[dict[str, str | None]], codec: str = "deflate") -> bytes:
    """Write an Avro object container; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fastavro.writer(file, AVRO, records, codec=codec)
    return path.read_bytes()


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy"])
def test_avro_records_are_deliveries(tmp_path: Path, codec: str) -> None:
    """An Avro export holds a delivery per record; a field that only its folder names is part of each."""
    path = tmp_path / "date=2026-01-31" / "event_type=users.messages.email.Click" / "part-0.avro"
    avro(path, [{"id": "a", "url": None}, {"id": "b", "url": "https://shop.example"}], codec)
    with open_deliveries(path) as file:
        found = [json.loads(body) for body, _ in file.deliveries]

    common = {"date": "2026-01-31", "event_type": "users.messages.email.Click"}
    assert found == [common | {"id": "a", "url": None}, common | {"id": "b", "url": "https://shop.example"}]


def test_a_damaged_avro_file_says_so(tmp_path: Path) -> None:
    """An Avro file that was cut is an error in words wherever that shows: not where whole blocks are left."""
    whole = avro(tmp_path / "file", [{"id": str(number), "url": "x" * number} for number in range(20)])
    unseen = [size for size in range(5, len(whole)) if _is_readable(tmp_path / "cut", whole[:size])]
    assert len(unseen) <= 2


def _is_readable(path: Path, content: bytes) -> bool:
    try:
        return read(path, content) == []
    except BadInput as error:
        return re.search("damaged|cannot be read", str(error)) is None
