"""Known vulnerabilities of the locked dependencies: what pip-audit found, or that it could not find out.

    python -m tests.stack.dependencies

pip-audit ends with 1 when it found something and when its database did not answer, and with 0 ("No known vulnerabilities
found") when a mirror answers that it knows nothing of any package. Here these are three endings:

    0   every locked package was looked up, and none has a known vulnerability
    1   some have: each is named with its vulnerabilities and the versions that mend them
    2   not known: the database could not be asked, or not about every package
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
CLEAN, FOUND, UNKNOWN = 0, 1, 2
_SHOWN = 3


class _Report(msgspec.Struct):
    """What pip-audit writes, as far as it is read."""

    dependencies: list[dict[str, Any]]


def verdict(printed: str, complaint: str) -> tuple[int, list[str]]:
    """The ending and its lines, from what pip-audit wrote to stdout (JSON, if it got that far) and to stderr."""
    try:
        packages = msgspec.json.decode(printed, type=_Report).dependencies
    except msgspec.DecodeError:
        said = [line.strip() for line in complaint.splitlines() if line.strip()][-_SHOWN:]
        return UNKNOWN, [
            "NOT KNOWN: the database of vulnerabilities could not be asked, so nothing was found out, good or bad.",
            "Run it where the package registry's JSON interface is reachable. pip-audit said:",
            *(f"  {line[:300]}" for line in said or ["nothing"]),
        ]
    found = [line for package in packages for line in _findings(package)]
    skipped = [package for package in packages if "skip_reason" in package]
    some = [f"  {package['name']}: {package['skip_reason']}" for package in skipped[:_SHOWN]]
    left = f"NOT KNOWN: {len(skipped)} of {len(packages)} packages could not be looked up, among them"
    if found:
        summary = f"VULNERABLE: {len(found)} known vulnerabilities in {len(packages)} packages"
        return FOUND, [summary, *found, *([left, *some] if skipped else ())]
    if skipped or not packages:
        return UNKNOWN, [left, *some]
    return CLEAN, [f"CLEAN: none of {len(packages)} packages has a known vulnerability"]


def _findings(package: dict[str, Any]) -> Iterator[str]:
    for one in package.get("vulns", ()):
        mended = ", ".join(one.get("fix_versions", ())) or "no version yet"
        yield f"  {package['name']} {package['version']}: {one['id']}, mended in {mended}"


def main() -> int:
    """Ask, say what came of it, end accordingly."""
    uv = Path(sys.executable).with_name("uv")
    command = [
        str(uv),
        "tool",
        "run",
        "pip-audit",
        "--requirement",
        "requirements.lock",
        "--require-hashes",
        "--disable-pip",
    ]
    options = ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    code, lines = verdict(done.stdout, done.stderr)
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
