"""Importing past decisions and aggregated results into SQLite, through the store that live events use.

Files are generated (the columns of the documented examples), databases are new for every repeat. The floor is the
dry run: reading and decoding without storing.
"""

import csv
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from infra.clock import system_clock
from infra.database import open_database
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.files.imports import Importer, Report, dry_run, run_import
from ingestion.files.mappings import Mapping, load_mapping
from tests.benchmarks.harness import Goal, finish

DECISIONS = 24_000
RESULTS = 40_000
REPEATS = 3
_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
_WORDS = [f"{start}{end}" for start in ("ba", "ce", "di", "fo", "gu", "ha", "lo", "mi") for end in ("rn", "st", "lk")]


def main() -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as name:
        folder = Path(name)
        files = {
            "decisions": (load_mapping(_EXAMPLES / "hillstrom.toml"), _decisions(folder / "decisions.csv")),
            "results": (load_mapping(_EXAMPLES / "upworthy.toml"), _results(folder / "results.csv")),
        }
        figures: dict[str, Any] = {"rows": {"decisions": DECISIONS, "results": RESULTS}}
        rates: dict[str, list[float]] = {kind: [] for kind in files}
        for repeat in range(REPEATS):
            for kind, (mapping, file) in files.items():
                importer = _installation(folder / f"{kind}-{repeat}")
                figures[f"{kind} decoded per second"] = _rate(dry_run, importer, mapping, file)
                rates[kind].append(_rate(run_import, importer, mapping, file))
                figures[f"{kind} found again per second"] = _rate(run_import, importer, mapping, file, again=True)
                importer.engine.dispose()
                print(f"  repeat {repeat + 1}: {rates[kind][-1]:,.0f} {kind} per second", flush=True)
    finish(
        "import",
        [
            _goal("decisions with their events per second, SQLite", rates["decisions"], 5_000),
            _goal("aggregated results per second, SQLite", rates["results"], 20_000),
        ],
        figures,
    )


def _goal(name: str, rates: list[float], least: int) -> Goal:
    return Goal(name, round(median(rates), 1), f">= {least}", (round(min(rates), 1), round(max(rates), 1)))


def _rate(
    run: Callable[[Importer, Mapping, Path], Report],
    importer: Importer,
    mapping: Mapping,
    file: Path,
    again: bool = False,
) -> float:
    begun = time.perf_counter()
    report = run(importer, mapping, file)
    seconds = time.perf_counter() - begun
    found = report.tally.duplicate if again else report.tally.applied
    if found != report.tally.rows:
        raise SystemExit(f"{file.name}: {found} rows of {report.tally.rows} ended as they should: {report}")
    return round(report.tally.rows / seconds, 1)


def _installation(home: Path) -> Importer:
    settings = Settings(home=home)
    home.mkdir()
    engine = open_database(settings.database)
    migrate(engine)
    return Importer(engine, load_secrets(settings), settings, system_clock)


def _decisions(path: Path) -> Path:
    """One customer per row, with the columns and about the rates of the Hillstrom experiment."""
    draw = random.Random(11)
    header = "recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header.split(","))
        for _ in range(DECISIONS):
            arm = draw.choice(("Mens E-Mail", "Womens E-Mail", "No E-Mail"))
            visit = int(draw.random() < 0.147)
            bought = int(visit and draw.random() < 0.061)
            spend = round(draw.uniform(20, 300), 2) if bought else 0
            who = [draw.randint(1, 12), "2) $100 - $200", round(draw.uniform(30, 900), 2), draw.randint(0, 1)]
            where = [
                draw.randint(0, 1),
                draw.choice(("Urban", "Rural")),
                draw.randint(0, 1),
                draw.choice(("Web", "Phone")),
            ]
            rows.writerow([*who, *where, arm, visit, bought, spend])
    return path


def _results(path: Path) -> Path:
    """Five rows per test and, as in the Upworthy archive, three headlines in them: some are shown with two images."""
    draw = random.Random(12)
    headline = ""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["clickability_test_id", "headline", "impressions", "clicks", "randomization_risk_week"])
        for row in range(RESULTS):
            if row % 5 not in (2, 4):
                headline = " ".join(draw.choices(_WORDS, k=12))
            shown = draw.randint(2_000, 5_000)
            rows.writerow([f"test-{row // 5:06}", headline, shown, draw.randint(10, 150), int(row % 5_000 < 900)])
    return path
