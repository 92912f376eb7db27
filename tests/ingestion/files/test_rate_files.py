"""Files of rates: read whole or refused with every line that is wrong."""

from pathlib import Path

import pytest

from infra.clock import DAY, EARLIEST
from infra.errors import BadInput
from infra.exact import PARTS
from ingestion.exchange import Rate
from ingestion.files import rate_files
from ingestion.files.rate_files import UnreadableRates, read_rates

NOW = EARLIEST + 1_000 * DAY


def test_columns_come_in_any_order(tmp_path: Path) -> None:
    """The header names them; blank lines, spaces and repetitions do no harm."""
    path = tmp_path / "rates.csv"
    path.write_text(
        "\ufeffrate, to,from,valid_from\n0.5, EUR,USD ,2000-01-02\n\n,,,\n0.5,EUR,USD,2000-01-02\n2,USD,EUR,2000-01-01\n"
    )
    assert read_rates(path, NOW) == [
        Rate("EUR", "USD", EARLIEST, 2 * PARTS),
        Rate("USD", "EUR", EARLIEST + DAY, PARTS // 2),
    ]


def test_every_wrong_line_is_told(tmp_path: Path) -> None:
    """Nothing is taken of a file with wrong lines; each is named by its number, with what to do."""
    path = tmp_path / "rates.csv"
    path.write_text(
        'from,to,valid_from,rate\nUSD,EUR,2000-01-02,0.5\nUSD,EUR,"2000-\n01-03",1\nUSD,EUR\nUSD,EUR,2000-01-04,"0,5"\n'
    )
    with pytest.raises(UnreadableRates, match="3 lines cannot be used, so nothing was imported") as caught:
        read_rates(path, NOW)
    assert [line.split(":")[0] for line in caught.value.lines] == ["line 4", "line 5", "line 6"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns none"),
        ("currency,rate\n", "must name from, to, valid_from, rate"),
        ("from,to,valid_from,rate\n", "holds no rates"),
        ("from,to,valid_from,rate\nUSD,EUR,2000-01-02,1\nUSD,EUR,2000-01-02,2\n", "line 3 says 2 and 2 says 1"),
        ("from,to,valid_from,rate\n" + "USD,EUR,2000-01-02,1\n" * 4, "more than 3 rates"),
    ],
)
def test_a_file_that_is_none_of_ours_is_told(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the header, without rates, with two rates for one time, or too long: refused with what to do."""
    monkeypatch.setattr(rate_files, "MOST", 3)
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_rates(path, NOW)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, a folder and a file too large are sentences, not tracebacks."""
    (tmp_path / "rates.csv").write_bytes(b"from,to,valid_from,rate\n\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        read_rates(tmp_path / "rates.csv", NOW)
    with pytest.raises(BadInput, match="cannot be read"):
        read_rates(tmp_path, NOW)
