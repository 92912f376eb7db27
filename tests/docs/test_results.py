"""docs/results.md says what the kept benchmark lines say."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tests.benchmarks.harness import RESULTS, Goal, document_of
from tests.benchmarks.results import DOCS, PICTURES, pages

GOALS = [Goal("time, against <bare>", 1.7, "<= 1.5", (1.6, 1.8)), Goal("gain", 0.02, ">= 0", (0.01, 0.03))]


def keep(folder: Path, bench: str = "train", **changes: Any) -> None:
    """A kept line with two goals."""
    (folder / f"{bench}.json").write_bytes(msgspec.json.encode(document_of(bench, GOALS, {}) | changes))


def test_the_page_is_what_the_kept_lines_make() -> None:
    """Page and pictures are those `make results` writes, and no picture is left over."""
    made = pages(RESULTS)

    assert {name: text for name, text in made.items() if (DOCS / name).read_text(encoding="utf-8") != text} == {}
    assert {f"{PICTURES}/{path.name}" for path in (DOCS / PICTURES).glob("*.svg")} == made.keys() - {"results.md"}


def test_a_missed_goal_is_shown_as_missed(tmp_path: Path) -> None:
    """Value, interval, goal and verdict of every goal are on the page; the score counts those that hold."""
    keep(tmp_path)
    page = pages(tmp_path)["results.md"]

    assert "| time, against <bare> | 1.7 | 1.6 to 1.8 | ≤ 1.5 | **missed** |" in page
    assert "| gain | 0.02 | 0.01 to 0.03 | ≥ 0 | holds |" in page
    assert "| 1 of 2 |" in page


def test_a_line_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """A verdict is never taken from the file: one that does not follow from its numbers stops the page."""
    entry = {"name": "time", "value": 1.7, "goal": "<= 1.5", "holds": True}
    keep(tmp_path, goals=[entry])

    with pytest.raises(ValueError, match=r"'time' is 1\.7"):
        pages(tmp_path)


def test_pictures_are_drawings_with_every_goal(tmp_path: Path) -> None:
    """Each goal is a row with its value's dot inside the drawing; names are escaped."""
    keep(tmp_path)
    drawn = ElementTree.fromstring(pages(tmp_path)[f"{PICTURES}/train.svg"])
    names = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    dots = [float(dot.attrib["cx"]) for dot in drawn.iter("{http://www.w3.org/2000/svg}circle")]

    assert {"time, against <bare>", "gain"} <= set(names)
    assert len(dots) == 2
    assert all(400 <= dot <= 740 for dot in dots)


def test_learning_comes_first_and_short_runs_say_so(tmp_path: Path) -> None:
    """The order is that of the learning benchmarks, then the others by name; a short run is marked."""
    for bench in ("import", "train", "certificate"):
        keep(tmp_path, bench, quick=bench == "train")
    page = pages(tmp_path)["results.md"]

    assert page.index("## certificate") < page.index("## train") < page.index("## import")
    assert page.count("(short run)") == page.count("A short run") == 1


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    """Without lines the page says how to get them."""
    assert "make bench NAME=… KEEP=1" in pages(tmp_path)["results.md"]
