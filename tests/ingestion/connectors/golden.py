"""The golden corpus: whole deliveries of each vendor, and what their connector makes of them.

A file holds ``rule`` (a sentence), ``headers`` and ``body`` as the vendor sends them, and the ``items`` that come out.
After a change that is meant, ``python -m tests.ingestion.connectors.golden`` writes the items anew; review the diff.
"""

import json
from pathlib import Path
from typing import Any

from ingestion.connectors import CONNECTORS
from ingestion.connectors.items import Ignored, Item, Recognised

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("*/*.json"))
TOKEN = "1.MDptYWlsLTE." + "A" * 22
"""The form of a token; its signature is nobody's."""


def items(connector: str, body: Any, headers: dict[str, str] | None = None) -> list[Item]:
    """What the connector makes of a body, given as bytes or as a document."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(CONNECTORS[connector].read(raw, headers or {}))


def only(found: list[Item]) -> dict[str, Any]:
    """The document of the one event that was recognised."""
    assert [type(item) for item in found] == [Recognised], found
    assert isinstance(found[0], Recognised)
    return found[0].document


def reasons(found: list[Item]) -> list[str]:
    """Why each item is ignored or unreadable."""
    return ["" if isinstance(item, Recognised) else item.reason for item in found]


def shown(item: Item) -> dict[str, Any]:
    """An item as the corpus writes it."""
    if isinstance(item, Recognised):
        return {"recognised": item.document} | ({"marks": [list(mark) for mark in item.marks]} if item.marks else {})
    return {"ignored" if isinstance(item, Ignored) else "unreadable": item.reason}


def main() -> None:
    """Write the items of every file anew."""
    for path in FILES:
        case = json.loads(path.read_text())
        case["items"] = [shown(item) for item in items(path.parent.name, case["body"], case["headers"])]
        path.write_text(json.dumps(case, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
