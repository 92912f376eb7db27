"""No pickle anywhere (invariant 17)."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORBIDDEN = re.compile(r"^\s*(?:import|from)\s+(?:pickle|joblib|dill|cloudpickle|shelve|marshal)\b", re.MULTILINE)


def test_nothing_imports_a_pickler() -> None:
    """No source file imports pickle, joblib, dill, cloudpickle, shelve or marshal."""
    files = [
        path
        for package in ("infra", "ingestion", "reward_models", "pipelines", "tests")
        for path in (ROOT / package).rglob("*.py")
    ]

    guilty = [str(path.relative_to(ROOT)) for path in files if FORBIDDEN.search(path.read_text())]

    assert len(files) > 40
    assert guilty == []


def test_the_search_finds_what_it_looks_for() -> None:
    """The pattern matches both kinds of import, and no longer word."""
    assert FORBIDDEN.search("import pickle\n")
    assert FORBIDDEN.search("x = 1\n    from joblib import dump\n")
    assert not FORBIDDEN.search("import picklejar\n# import pickle\n")
