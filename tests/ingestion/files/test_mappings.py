"""Mappings are validated before a row is read, and their mistakes are named."""

import re
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput
from ingestion.files.mappings import DecisionsMapping, check_columns, load_mapping, parse_mapping, parse_probability
from tests.ingestion.importing import DECISION_COLUMNS, decisions, example, results


def test_a_fraction_is_a_probability() -> None:
    """A propensity may be written as a fraction, so that a third is a third."""
    assert parse_probability("1/3") == 1 / 3


@pytest.mark.parametrize("value", [0, 0.0, "0", "-1/3", 1.5, "nan", "1/0", "often", None])
def test_no_probability(value: Any) -> None:
    """Zero, negative, above one and unreadable propensities are refused."""
    with pytest.raises(ValueError, match="probability"):
        parse_probability(value)


def test_the_examples_are_valid() -> None:
    """The documented mappings load, and feed the loops they are named after."""
    assert [example(name).loop.loop for name in ("hillstrom", "upworthy")] == ["hillstrom", "upworthy"]


def test_a_wrong_column_lists_the_columns_found() -> None:
    """A column that is not in the file is named, with the nearest one and all columns found."""
    found = ["customer", "arms", "sent", "age", "city", "spend"]

    with pytest.raises(BadInput, match=re.escape("'arm' (decisions.chosen; did you mean 'arms'?)")) as error:
        check_columns(parse_mapping(decisions()), found)
    assert "Columns found: customer, arms, sent, age, city, spend" in str(error.value)


def test_a_column_twice_is_refused() -> None:
    """A column the mapping names must be in the header once."""
    with pytest.raises(BadInput, match="more than one column 'age'"):
        check_columns(parse_mapping(decisions()), [*DECISION_COLUMNS, "age"])


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, "/kind: write kind = 'decisions'"),
        (decisions() | {"kind": "sums"}, "/kind: write kind = 'decisions'"),
        (decisions(campaigns="x"), "/campaigns: 'campaigns' is not a field here"),
        (decisions(campaign={"id": ""}), "/campaign/id"),
        (decisions(outcomes=[{"event": "visit"}]), "an outcome needs `when`"),
        (decisions(candidates=[{"content": "a", "value": "A"}, {"content": "a", "value": "B"}]), "share a content"),
        (decisions(candidates=[{"content": "a", "value": "A"}]), "sum to 0.5, not to 1"),
        (
            decisions(decisions={"chosen": "arm", "propensity": "0", "decided_at": {"column": "sent"}}),
            "must be above 0",
        ),
        (decisions(decisions={"chosen": "arm", "decided_at": {"column": "sent"}}), "give `propensity`"),
        (
            decisions(decisions={"chosen": "arm", "propensity": 0, "decided_at": {"column": "sent"}}),
            "/decisions/propensity: 'propensity': 0 is no probability of something that was sent",
        ),
        (
            decisions(decisions={"chosen": "arm", "propensity": 1, "decided_at": {"invented": "soon"}}),
            "/decisions/decided_at/invented: 'invented': 'soon' is no time; write ISO 8601",
        ),
        (
            decisions(candidates=[{"content": "a", "value": "A", "features": {"x": float("nan")}}]),
            "/candidates/0/features/x: 'x': must be a finite number",
        ),
        (results(results=results()["results"] | {"metrics": {"clicks": "clicks"}}), "no metric of the loop"),
    ],
)
def test_a_wrong_mapping_is_named(document: dict[str, Any], sentence: str) -> None:
    """Each mistake in a mapping is one sentence that names the place."""
    with pytest.raises(BadInput, match=re.escape(sentence)):
        parse_mapping(document, "spring.toml")


def test_unequal_arms_have_their_own_propensities() -> None:
    """Candidates that were not equally likely carry one propensity each."""
    candidates = [
        {"content": "a", "value": "A", "propensity": "3/4"},
        {"content": "b", "value": "B", "propensity": 0.25},
    ]
    mapping = parse_mapping(
        decisions(candidates=candidates, decisions={"chosen": "arm", "decided_at": {"column": "sent"}})
    )

    assert isinstance(mapping, DecisionsMapping)
    assert mapping.propensities == (0.75, 0.25)


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    """A missing file and a broken one each give one sentence."""
    (tmp_path / "broken.toml").write_text("kind = decisions")

    with pytest.raises(BadInput, match=r"broken\.toml is not valid TOML"):
        load_mapping(tmp_path / "broken.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        load_mapping(tmp_path / "missing.toml")
