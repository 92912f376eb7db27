"""What is said of pip-audit's word: findings, none, and not knowing are told apart."""

import json
from typing import Any

import pytest

from tests.stack.dependencies import CLEAN, FOUND, UNKNOWN, verdict

FINE = {"name": "attrs", "version": "26.1.0", "vulns": []}
HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["3.18.0"], "aliases": ["CVE-2026-0001"], "description": "…"}
BAD = {"name": "mlflow", "version": "3.17.2", "vulns": [HOLE, HOLE | {"id": "PYSEC-2026-2", "fix_versions": []}]}
SKIPPED = {"name": "fastapi", "skip_reason": "Dependency not found on PyPI and could not be audited: fastapi (0.154.0)"}
AWAY = "ERROR:pip_audit._cli:HTTPSConnectionPool(host='registry'): Max retries exceeded with url: /pypi/attrs/json"


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([FINE, FINE], CLEAN, ["CLEAN: none of 2 packages"]),
        (
            [FINE, BAD],
            FOUND,
            ["VULNERABLE: 2 known", "mlflow 3.17.2: PYSEC-2026-1, mended in 3.18.0", "no version yet"],
        ),
        ([BAD, SKIPPED], FOUND, ["VULNERABLE: 2 known", "NOT KNOWN: 1 of 2 packages"]),
        ([SKIPPED, SKIPPED], UNKNOWN, ["NOT KNOWN: 2 of 2 packages", "fastapi: Dependency not found"]),
        ([FINE, SKIPPED], UNKNOWN, ["NOT KNOWN: 1 of 2 packages"]),
        ([], UNKNOWN, ["NOT KNOWN: 0 of 0 packages"]),
    ],
)
def test_each_ending_has_its_code(packages: list[Any], code: int, words: list[str]) -> None:
    """None is clean only if every package was looked up; a package that was not, is never counted as clean."""
    ending, lines = verdict(json.dumps({"dependencies": packages, "fixes": []}), "No known vulnerabilities found")
    assert ending == code
    assert all(word in "\n".join(lines) for word in words), lines


@pytest.mark.parametrize("printed", ["", "Traceback …", "[]", "{}", '{"dependencies": null}'])
def test_silence_is_no_good_news(printed: str) -> None:
    """Without an answer nothing is known; what went wrong is shown, and no vulnerability is claimed."""
    ending, lines = verdict(printed, f"Warning: …\n{AWAY}\n")
    assert ending == UNKNOWN
    assert "nothing was found out, good or bad" in lines[0]
    assert "Max retries exceeded" in lines[-1]
    assert "VULNERABLE" not in "\n".join(lines)
