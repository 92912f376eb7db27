"""Rates as facts: read exactly, kept once, corrected by a newer word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from infra.clock import DAY, EARLIEST
from infra.database import reading, writing
from infra.errors import BadInput
from infra.exact import PARTS
from ingestion.exchange import (
    LARGEST_RATE,
    Rate,
    format_rate,
    keep_rates,
    known_rates,
    parse_rate,
    read_rate,
    unknown_rates,
    without_repetitions,
)

NOW = EARLIEST + 1_000 * DAY


@given(st.integers(min_value=1, max_value=LARGEST_RATE * PARTS))
def test_a_rate_is_its_text(rate: int) -> None:
    """Every rate that may be stored is written and read back to the last digit."""
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,08", "plain decimal"),
        ("1e-3", "plain decimal"),
        ("0.1234567890123", "12 decimals"),
        ("-1", "plain decimal"),
        ("0", "above 0"),
        ("0.000", "above 0"),
        ("9000000.1", "at most 9000000"),
        ("", "plain decimal"),
        ("١.٥", "plain decimal"),
        ("1_0", "plain decimal"),
    ],
)
def test_what_is_no_rate_is_told(text: str, said: str) -> None:
    """A number in another spelling, of too many digits, or out of range is refused with what to write."""
    with pytest.raises(BadInput, match=said):
        parse_rate(text)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"from_currency": "usd"}, "three capital letters"),
        ({"to_currency": "€"}, "three capital letters"),
        ({"to_currency": "USD"}, "converted to itself"),
        ({"valid_from": "22.11.2026"}, "not a time"),
        ({"valid_from": "1999-12-31"}, "before 2000"),
        ({"valid_from": "2062-01-01"}, "a year ahead"),
    ],
)
def test_a_line_is_checked(changed: dict[str, str], said: str) -> None:
    """Currencies are codes and differ, times are times of this century; else the sentence says what to do."""
    line = {"from_currency": "USD", "to_currency": "EUR", "valid_from": "2001-02-03", "rate": "0.9"}
    assert read_rate(**line, now=NOW) == Rate("USD", "EUR", EARLIEST + 399 * DAY, 9 * PARTS // 10)
    with pytest.raises(BadInput, match=said):
        read_rate(**(line | changed), now=NOW)


def test_two_rates_for_one_time_are_a_mistake() -> None:
    """The same twice is once; another is refused, with both lines."""
    one = Rate("USD", "EUR", 5, PARTS)
    assert without_repetitions([(2, one), (3, one)]) == [one]
    with pytest.raises(BadInput, match=r"^4 says 2 and 2 says 1 for USD to EUR"):
        without_repetitions([(2, one), (4, one._replace(rate=2 * PARTS))])


def test_the_newest_word_about_a_time_holds(any_engine: Engine) -> None:
    """A correction is new, the corrected is not forgotten, and what the table says already is not said again."""
    early, late = Rate("USD", "EUR", 5, PARTS), Rate("USD", "EUR", 9, 2 * PARTS)
    better = early._replace(rate=3 * PARTS)
    with writing(any_engine) as connection:
        keep_rates(connection, [early, late], 1, "bank", "ann", 7)
        keep_rates(connection, [better], 2, "desk", "bob", 8)
    with reading(any_engine) as connection:
        assert unknown_rates(connection, [better, late]) == []
        assert unknown_rates(connection, [early, late]) == [early]
        held = [(word.valid_from, word.rate, word.source, word.imported_by) for word in known_rates(connection)]
        assert held == [(5, 3 * PARTS, "desk", "bob"), (9, 2 * PARTS, "bank", "ann")]
        every = [(word.valid_from, word.batch_no) for word in known_rates(connection, "USD", "EUR", every=True)]
        assert every == [(5, 2), (5, 1), (9, 1)]
        assert list(known_rates(connection, "EUR")) == []
