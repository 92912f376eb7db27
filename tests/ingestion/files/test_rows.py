"""One row becomes its facts, or a sentence that says why not."""

import re

import pytest

from infra.clock import HOUR, parse_time
from infra.secrets import Secrets
from ingestion.events import Placement
from ingestion.files.rows import PastDecision, PastResult, Unreadable
from tests.ingestion.importing import (
    DECISION_COLUMNS,
    RESULT_COLUMNS,
    decisions,
    decode_with,
    results,
)

SENT = "2026-01-05T09:00:00Z"
GOOD = ["ann", "A", SENT, "41", "Bonn", "19.99"]


def past_decision(secrets: Secrets, row: int, cells: list[str]) -> PastDecision:
    fact = decode_with(decisions(), DECISION_COLUMNS, secrets)(row, cells)
    assert isinstance(fact, PastDecision)
    return fact


def past_result(secrets: Secrets, cells: list[str]) -> PastResult:
    fact = decode_with(results(), RESULT_COLUMNS, secrets)(1, cells)
    assert isinstance(fact, PastResult)
    return fact


def test_a_row_is_a_decision(secrets: Secrets) -> None:
    """A row holds who, what could be sent, what was sent with which probability, and what was known."""
    decision = past_decision(secrets, 7, GOOD).decision

    assert decision.decision_id == "spring/7"
    assert secrets.unit("ann") == decision.unit
    assert decision.context == {"age": 41.0, "city": "Bonn"}
    assert [(c.content_id, c.policy_p, c.behaviour_p) for c in decision.candidates] == [
        ("a", 0.5, 0.5),
        ("no_send", 0.5, 0.5),
    ]
    assert (Placement(position=1, content_id="a", propensity=0.5),) == decision.chosen
    assert parse_time(SENT) == decision.decided_at


def test_an_outcome_column_is_an_event(secrets: Secrets) -> None:
    """A value above zero is an event of the decision, its id made of import and row number; its time is invented and says so."""
    (event,) = past_decision(secrets, 7, GOOD).events

    assert (event.source, event.event_id, event.decision_id) == ("import:spring", "spring/7/purchase", "spring/7")
    assert (event.value_micros, event.currency) == (19_990_000, "EUR")
    assert parse_time(SENT) + 2 * HOUR == event.occurred_at
    assert event.raw == {"times": "invented"}


def test_no_outcome_no_event(secrets: Secrets) -> None:
    """A value of zero, or none, is no event."""
    assert [past_decision(secrets, 1, [*GOOD[:5], cell]).events for cell in ("0", "")] == [(), ()]


def test_a_blank_cell_is_not_known(secrets: Secrets) -> None:
    """Blank context cells are left out, not taken for zero or for a word."""
    assert past_decision(secrets, 1, ["ann", "A", SENT, "", "", ""]).decision.context == {}


def test_the_digest_tells_rows_apart(secrets: Secrets) -> None:
    """The same row has the same digest in every run; any other content of the row another one."""
    digests = {
        past_decision(secrets, 1, cells).decision.request_digest
        for cells in (GOOD, list(GOOD), ["ann", "none", *GOOD[2:]], ["bob", *GOOD[1:]], [*GOOD[:3], "42", *GOOD[4:]])
    }

    assert len(digests) == 4


def test_unknown_propensity_is_null(secrets: Secrets) -> None:
    """Where the propensity is unknown it is null, and the decision counts as the caller's own choice."""
    document = decisions()
    document["decisions"] |= {"propensity": "unknown"}
    fact = decode_with(document, DECISION_COLUMNS, secrets)(1, GOOD)

    assert isinstance(fact, PastDecision)
    assert (
        fact.decision.chosen[0].propensity,
        fact.decision.candidates[0].behaviour_p,
        fact.decision.group,
    ) == (None, None, "customer_managed")


def test_propensity_from_a_column(secrets: Secrets) -> None:
    """A propensity column is that of the chosen content; those of the others are not known."""
    document = decisions()
    document["decisions"] |= {"propensity": {"column": "age"}}
    decode = decode_with(document, DECISION_COLUMNS, secrets)
    fact = decode(1, ["ann", "A", SENT, "0.25", "Bonn", ""])

    assert isinstance(fact, PastDecision)
    assert fact.decision.chosen[0].propensity == 0.25
    assert [candidate.behaviour_p for candidate in fact.decision.candidates] == [0.25, None]
    with pytest.raises(Unreadable, match="probability above 0"):
        decode(2, ["ann", "A", SENT, "0", "Bonn", ""])


def test_the_row_number_stands_for_the_customer(secrets: Secrets) -> None:
    """Without a customer column every row is a unit of its own."""
    document = decisions()
    document["decisions"] |= {"unit": "row"}
    decode = decode_with(document, DECISION_COLUMNS, secrets)
    units = [fact.decision.unit for row in (1, 2) if isinstance(fact := decode(row, GOOD), PastDecision)]

    assert [secrets.unit("spring/1"), secrets.unit("spring/2")] == units


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        ("arm", "B", "arm is 'B', which is no candidate; the mapping has 'A', 'none'"),
        ("age", "old", "age is 'old', no number"),
        ("age", "inf", "age is 'inf', no number"),
        ("spend", "-3", "spend is '-3'; an amount cannot be negative"),
        ("spend", "1e30", "above 10000000000; check its unit"),
        ("sent", "yesterday", "sent is 'yesterday', no time"),
        ("sent", "2031-01-01T00:00:00Z", "more than 24 hours after now"),
        ("sent", "0001-01-01T10:00:00+14:00", "before the year 2000; correct the clock"),
        ("customer", "", "customer is empty"),
        ("city", "x" * 100_000, "city has 100000 bytes; the limit is 20000"),
        ("city", "a\x00b", "NUL"),
        ("city", "\udcfc", "not UTF-8"),
    ],
)
def test_an_unreadable_row_says_why(secrets: Secrets, column: str, cell: str, sentence: str) -> None:
    """Each thing wrong with a row is a sentence with what was found."""
    cells = list(GOOD)
    cells[DECISION_COLUMNS.index(column)] = cell

    with pytest.raises(Unreadable, match=re.escape(sentence)):
        decode_with(decisions(), DECISION_COLUMNS, secrets)(1, cells)


def test_a_short_row_says_why(secrets: Secrets) -> None:
    """A row with another number of cells than the header is not guessed at."""
    with pytest.raises(Unreadable, match="the row has 2 cells, the header 6"):
        decode_with(decisions(), DECISION_COLUMNS, secrets)(1, ["ann", "A"])


def test_ignored_rows(secrets: Secrets) -> None:
    """A row that meets an `ignore` condition is left out."""
    document = decisions(ignore=[{"column": "city", "equals": "test"}])

    assert decode_with(document, DECISION_COLUMNS, secrets)(1, [*GOOD[:4], "test", ""]) is None


def test_a_row_is_a_result(secrets: Secrets) -> None:
    """A row of results holds its copy, exposures and sums, and whether it is trusted."""
    trusted = past_result(secrets, ["t1", "Read this", "1000", "31", "0"])
    doubted = past_result(secrets, ["t1", "Read this", "900", "12", "1"])

    assert trusted.content.slots == {"headline": "Read this"}
    assert (
        trusted.result.exposures,
        trusted.result.metrics,
        trusted.result.trusted,
    ) == (1000, {"click": 31_000_000}, True)
    assert doubted.result.trusted is False


def test_the_same_copy_is_the_same_content(secrets: Secrets) -> None:
    """Rows that share a text within a campaign share the content; in another campaign it is another content."""
    ids = [
        past_result(secrets, [test, text, "10", "1", "0"]).result.content_id
        for test, text in (("t1", "x"), ("t1", "x"), ("t1", "y"), ("t2", "x"))
    ]

    assert [ids[0] == other for other in ids[1:]] == [True, False, False]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["", "x", "10", "1", "0"], "test is empty"),
        (["t1", "", "10", "1", "0"], "there is no copy"),
        (["t1", "x", "10.5", "1", "0"], "shown is '10.5'; it must be a whole number"),
        (["t1", "x", "-1", "1", "0"], "shown is '-1'; it must be a whole number"),
        (["t1", "x", "10", "11", "0"], "clicks is '11', more than the 10 exposures"),
        (["t" * 300, "x", "10", "1", "0"], "an id has at most 256"),
    ],
)
def test_an_unreadable_result_says_why(secrets: Secrets, cells: list[str], sentence: str) -> None:
    """Each thing wrong with a result is a sentence with what was found."""
    with pytest.raises(Unreadable, match=re.escape(sentence)):
        decode_with(results(), RESULT_COLUMNS, secrets)(1, cells)
