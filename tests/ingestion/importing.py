"""Builders shared by the tests of imports."""

import os
from pathlib import Path
from typing import Any

import pytest

from infra.clock import HOUR, parse_time
from infra.secrets import Secrets
from ingestion.files.mappings import Mapping, load_mapping, parse_mapping
from ingestion.files.rows import Decode, Edge, decoder

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
FIXTURES = ROOT / "tests" / "fixtures"
DATA = Path(os.environ.get("REWARDLOOP_DATA", ROOT.parent / "shared" / "data"))
NOW = parse_time("2026-01-31T12:00:00Z")


def example(name: str) -> Mapping:
    """One of the documented mappings."""
    return load_mapping(EXAMPLES / f"{name}.toml")


def real(path: str) -> Path:
    """A real data file; the test is skipped where it is missing."""
    if not (DATA / path).exists():
        pytest.skip(f"no {path} under {DATA}; set REWARDLOOP_DATA to the folder of the data sets")
    return DATA / path


def decisions(**changes: Any) -> dict[str, Any]:
    """A mapping of past decisions between two contents, as a document."""
    return {
        "kind": "decisions",
        "import": "spring",
        "loop": {
            "loop": "shop",
            "metrics": [{"name": "spend", "event": "purchase", "aggregate": "sum"}],
            "reward": {"spend": 1},
        },
        "campaign": {"id": "spring-1"},
        "candidates": [
            {"content": "a", "value": "A", "slots": {"subject": "Hello"}},
            {"content": "no_send", "value": "none"},
        ],
        "decisions": {
            "chosen": "arm",
            "propensity": "1/2",
            "unit": {"column": "customer"},
            "decided_at": {"column": "sent"},
        },
        "context": {"numbers": ["age"], "texts": ["city"]},
        "outcomes": [{"event": "purchase", "value": "spend", "currency": "EUR", "after": "2h"}],
    } | changes


DECISION_COLUMNS = ["customer", "arm", "sent", "age", "city", "spend"]


def results(**changes: Any) -> dict[str, Any]:
    """A mapping of aggregated results, as a document."""
    return {
        "kind": "results",
        "import": "report",
        "loop": {"loop": "news", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}},
        "results": {
            "campaign": "test",
            "slots": {"headline": "text"},
            "exposures": "shown",
            "metrics": {"click": "clicks"},
            "untrusted": {"column": "fault", "equals": "1"},
        },
    } | changes


RESULT_COLUMNS = ["test", "text", "shown", "clicks", "fault"]


def decode_with(document: dict[str, Any], columns: list[str], secrets: Secrets) -> Decode:
    """The decoder of a mapping at a fixed time."""
    edge = Edge(secrets=secrets, loop_version=1, now=NOW, skew=24 * HOUR, text_limit=20_000)
    return decoder(parse_mapping(document), columns, edge)
