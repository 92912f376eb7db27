"""The architecture page names only what exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = re.findall(r"`([a-z_/]+\.py)`\s+`(\w+)`", PAGE)
FILES = set(re.findall(r"`([a-z_/]+\.py)`", PAGE))


def defined(path: Path) -> set[str]:
    """Names of functions, methods and classes in a file."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_page_walks_through_the_house() -> None:
    """The walks name at least thirty steps, so that the next test has something to hold."""
    assert len(NAMED) >= 30


def test_every_named_file_and_function_exists() -> None:
    """Each step of the walks names a file and a function that are there."""
    missing = [f"{file}: {name}" for file, name in NAMED if name not in defined(ROOT / file)]
    missing += [file for file in FILES if not (ROOT / file).exists()]

    assert missing == []
