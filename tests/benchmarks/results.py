"""docs/results.md and its pictures, from the JSON lines that benchmarks ended with.

    make bench NAME=lift KEEP=1        runs it and keeps its line as tests/benchmarks/results/lift.json
    make results [RESULTS=folder]      writes the page from every line kept

``pages(folder)`` has the text of every file; nothing in it depends on when or where it is made. Whether a goal holds is
computed again from value and goal; a line that says otherwise is refused.
"""

import ast
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks.harness import RESULTS, Goal

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = "pictures/results"
FIRST = ("headlines-online", "headlines-offline", "bandits", "offpolicy", "certificate", "delays", "lift", "train")
"""The learning comes first, in this order; the others follow by name."""

_INTRODUCTION = """# Results

What the benchmarks measured, each by one command on one machine. This page is generated from the JSON that they print
(`make results`); whether a goal holds is computed from the number beside it.
A missed goal stays here; what was tried about it is in `DECISIONS.md`.
"""
_WIDTH, _LABEL, _ROW, _PAD = 860, 400, 34, 14
_INK, _FAINT, _GOOD, _BAD, _FIELD = "#1b1f24", "#8b949e", "#00796b", "#b3261e", "#d7efe9"


class Entry(msgspec.Struct, frozen=True):
    """One goal of a kept line."""

    name: str
    value: float
    goal: str
    holds: bool
    interval: tuple[float, float] | None = None


class Result(msgspec.Struct, frozen=True):
    """One kept line."""

    bench: str
    machine: dict[str, Any]
    goals: list[Entry]
    figures: dict[str, Any]
    quick: bool = False


def main(arguments: Sequence[str]) -> int:
    """Write the page and its pictures."""
    folder = Path(arguments[0]) if arguments else RESULTS
    (DOCS / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, text in pages(folder).items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(DOCS / name)
    return 0


def pages(folder: Path) -> dict[str, str]:
    """Text by path under ``docs``. Raises :class:`ValueError` for a line that contradicts itself."""
    results = kept(folder)
    pictures = {f"{PICTURES}/{result.bench}.svg": picture(result) for result in results if result.goals}
    return {"results.md": page(results), **pictures}


def kept(folder: Path) -> list[Result]:
    """Every kept line, in the order of the page."""
    results = [_read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: (_place(result.bench), result.bench))


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    if results:
        rows = [
            f"| [{result.bench}](#{result.bench}) | {about(result.bench)} | {_score(result)} |" for result in results
        ]
        parts.append("\n".join(["| benchmark | what it measures | goals that hold |", "|---|---|---|", *rows]) + "\n")
    else:
        parts.append("No benchmark has been kept yet: `make bench NAME=… KEEP=1`.\n")
    return "\n".join([*parts, *(section(result) for result in results)])


def section(result: Result) -> str:
    """One benchmark."""
    machine = result.machine
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, Python {machine['python']}"
    quick = (
        "\nA short run (`REWARDLOOP_BENCH_QUICK=1`): the intervals are wider than those of a full one.\n"
        if result.quick
        else ""
    )
    drawn = f"\n![Each goal with what was measured]({PICTURES}/{result.bench}.svg)\n" if result.goals else ""
    rows = [
        f"| {_cell(entry.name)} | {number(entry.value)} | {_interval(entry.interval)} | {_goal(entry.goal)} | "
        f"{'holds' if entry.holds else '**missed**'} |"
        for entry in result.goals
    ]
    table = "\n".join(["| | measured | interval | goal | |", "|---|---|---|---|---|", *rows])
    return (
        f"## {result.bench}\n\n{about(result.bench)}\n{quick}{drawn}\n{table}\n\n"
        f"`make bench NAME={result.bench}` on {where}.\n"
    )


def about(bench: str) -> str:
    """The first line of the benchmark's docstring."""
    module = ast.parse((Path(__file__).parent / f"bench_{bench.replace('-', '_')}.py").read_text(encoding="utf-8"))
    return _cell((ast.get_docstring(module) or bench).splitlines()[0])


def picture(result: Result) -> str:
    """One row per goal, each on a scale of its own: the field that is aimed at, the value, its interval. SVG."""
    height = _ROW * len(result.goals) + 2 * _PAD
    rows = [_drawn(entry, _PAD + _ROW * place) for place, entry in enumerate(result.goals)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'font-family="sans-serif" font-size="12">',
            f"<title>{escape(result.bench)}: each goal with what was measured</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *rows,
            "</svg>\n",
        ]
    )


def number(value: float) -> str:
    """Four significant digits, never an exponent."""
    if value == 0 or abs(value) >= 1_000:
        return f"{value:,.0f}"
    digits = f"{value:.4g}"
    return digits if "e" not in digits else f"{value:.10f}".rstrip("0")


def _read(path: Path) -> Result:
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    for entry in result.goals:
        if Goal(entry.name, entry.value, entry.goal).holds != entry.holds:
            raise ValueError(
                f"{path.name}: {entry.name!r} is {entry.value:g} and the goal {entry.goal}, yet it says holds={entry.holds}"
            )
    return result


def _drawn(entry: Entry, top: int) -> str:
    middle, left, right = top + _ROW / 2, _LABEL, _WIDTH - 120
    threshold = float(entry.goal.split()[1])
    low, high = entry.interval or (entry.value, entry.value)
    ends = (min(low, entry.value, threshold), max(high, entry.value, threshold))
    room = 0.15 * (ends[1] - ends[0]) or abs(threshold) or 1.0
    scale = (right - left) / (ends[1] - ends[0] + 2 * room)

    def x(value: float) -> float:
        return round(left + (value - ends[0] + room) * scale, 1)

    begins, stops = (x(threshold), right) if entry.goal.startswith(">") else (left, x(threshold))
    colour = _GOOD if entry.holds else _BAD
    label = entry.name if len(entry.name) <= 62 else entry.name[:61] + "…"
    return "\n".join(
        [
            f'<text x="{left - 12}" y="{middle + 4}" text-anchor="end" fill="{_INK}">{escape(label)}</text>',
            f'<rect x="{begins}" y="{top + 5}" width="{round(stops - begins, 1)}" height="{_ROW - 10}" fill="{_FIELD}"/>',
            f'<line x1="{left}" x2="{right}" y1="{middle}" y2="{middle}" stroke="{_FAINT}" stroke-width="0.5"/>',
            f'<line x1="{x(threshold)}" x2="{x(threshold)}" y1="{top + 5}" y2="{top + _ROW - 5}" stroke="{_FAINT}"/>',
            f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(entry.value)}" cy="{middle}" r="5" fill="{colour}"/>',
            f'<text x="{right + 10}" y="{middle + 4}" fill="{colour}">{number(entry.value)} ({_goal(entry.goal)})</text>',
        ]
    )


def _place(bench: str) -> int:
    return FIRST.index(bench) if bench in FIRST else len(FIRST)


def _score(result: Result) -> str:
    held = sum(entry.holds for entry in result.goals)
    return f"{held} of {len(result.goals)}{' (short run)' if result.quick else ''}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def _goal(goal: str) -> str:
    sign, threshold = goal.split()
    return f"{ {'>=': '≥', '<=': '≤'}.get(sign, sign) } {number(float(threshold))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
