"""What a loop believes of a source."""

from typing import Any

import pytest

from infra.errors import BadInput
from ingestion.loops import LoopDefinition, parse_definition

BASE: dict[str, Any] = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}


def definition(**changes: Any) -> LoopDefinition:
    """A loop with these parts."""
    return parse_definition(BASE | changes)


@pytest.mark.parametrize(
    ("source", "type_", "link", "value", "counts"),
    [
        ("shop", "purchase", None, 10**12, True),
        ("site", "click", None, None, False),
        ("site", "click", "decision_id", None, False),
        ("site", "click", "token", None, True),
        ("till", "purchase", None, 5_000_000, True),
        ("till", "purchase", None, 5_000_001, False),
        ("till", "click", None, None, True),
        ("app", "click", None, None, True),
        ("app", "refund", None, 1, False),
    ],
)
def test_a_source_counts_as_far_as_it_is_believed(
    source: str, type_: str, link: str | None, value: int | None, counts: bool
) -> None:
    """Types, largest value and token are asked for as the loop says of the source, else of all others."""
    sources = {
        "shop": {},
        "site": {"trusted": False},
        "till": {"largest": 5},
        "*": {"types": ["click"]},
    }
    assert definition(sources=sources).believed.event(source, type_, link, value) == counts


def test_without_a_word_everything_counts() -> None:
    """A loop that says nothing of sources believes all of them, and the join takes its plain way."""
    plain = definition()
    assert plain.believed.event("anybody", "purchase", None, 10**15)
    assert not plain.guarded
    assert definition(sources={"x": {}}).guarded


def test_a_limit_of_customers_is_part_of_the_metric() -> None:
    """Its version changes with the limit; a metric without one keeps the version it always had."""
    limited = definition(metrics=[BASE["metrics"][0] | {"per_unit_limit": {"most": 2, "per": "1d"}}])
    assert limited.guarded
    assert limited.limits_customers
    assert limited.metrics[0].version != definition().metrics[0].version
    assert definition().metrics[0].version == "694f885ebb0affad"


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": {"": {}}},
        {"sources": {"x": {"largest": -1}}},
        {"sources": {"x": {"largest": float("inf")}}},
        {"sources": {"x": {"trust": False}}},
        {"sources": {"x": {"types": ["Click!"]}}},
        {"metrics": [BASE["metrics"][0] | {"per_unit_limit": {"most": 0}}]},
        {"metrics": [BASE["metrics"][0] | {"per_unit_limit": {"most": 1, "per": "0s"}}]},
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any]) -> None:
    """A limit that says nothing, or what nobody can mean, does not become a definition."""
    with pytest.raises(BadInput):
        definition(**changes)
