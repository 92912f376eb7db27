"""What every benchmark shares: the machine, goals whose ``holds`` is computed, and the last line of JSON."""

import operator
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

RESULTS = Path(__file__).parent / "results"
"""Where the last lines are kept that docs/results.md is made of (``REWARDLOOP_BENCH_KEEP=1``)."""

_COMPARE: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Goal:
    """A number that an issue names. ``goal`` reads like ``">= 5000"``; ``interval`` is the range over repeats."""

    name: str
    value: float
    goal: str
    interval: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        """Whether the value meets the goal."""
        sign, threshold = self.goal.split()
        return _COMPARE[sign](self.value, float(threshold))


def machine() -> dict[str, Any]:
    """Where the numbers were made."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def finish(bench: str, goals: Sequence[Goal], figures: Mapping[str, Any]) -> None:
    """Print the goals for people, then the JSON line for programs."""
    for goal in goals:
        print(f"  {'holds ' if goal.holds else 'MISSED'}  {goal.name}: {goal.value:,.6g} (goal {goal.goal})")
    line = msgspec.json.encode(document_of(bench, goals, figures))
    if os.environ.get("REWARDLOOP_BENCH_KEEP"):
        (RESULTS / f"{bench}.json").write_bytes(line + b"\n")
    print(line.decode())


def document_of(bench: str, goals: Sequence[Goal], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the last line says."""
    document = {"bench": bench, "machine": machine(), "goals": [_entry(goal) for goal in goals], "figures": figures}
    return document | {"quick": True} if os.environ.get("REWARDLOOP_BENCH_QUICK") else document


def _entry(goal: Goal) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": goal.name, "value": goal.value, "goal": goal.goal, "holds": goal.holds}
    return entry if goal.interval is None else entry | {"interval": list(goal.interval)}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
