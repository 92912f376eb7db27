"""The weekly report: what it says, that its numbers are the logged ones, and that it runs nothing."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.database import open_database, writing
from infra.errors import BadInput
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.feedback import add_feedback
from ingestion.http.bodies import FeedbackBody
from ingestion.switches import set_switch
from pipelines.reporting import pdf
from pipelines.reporting.facts import Period, period_until
from pipelines.reporting.making import Made, weekly
from pipelines.reporting.words import QUESTIONS, describe, number
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.reporting.worlds import AFTER, PERIOD, bench_of, open_shop

SECRETS = Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))})


@pytest.fixture(scope="module")
def shop_file(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the shop; copy it, do not open it."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    shutil.copy(migrated_file, path)
    engine = open_database(f"sqlite:///{path}")
    open_shop(engine, SECRETS)
    with writing(engine) as connection:
        set_switch(connection, "shop", True, "wrong prices", "ann", PERIOD.since + DAY)
        set_switch(connection, "shop", False, "mended", "ann", PERIOD.since + 2 * DAY)
        for name, rating in (("a", 0.2), ("b", 0.9)):
            said = {"rating": rating, "judge": "<b>strict</b>"}
            add_feedback(connection, f"of {name}", judged(name, said), 20_000, PERIOD.since)
    engine.dispose()
    return path


def judged(content_id: str, said: dict[str, Any]) -> FeedbackBody:
    """A judge's word about a content."""
    return FeedbackBody(
        feedback_id=None,
        kind="rating",
        source="LLM_JUDGE",
        loop="shop",
        decision_id=None,
        content_id=content_id,
        annotator=None,
        value=said,
    )


@pytest.fixture(scope="module")
def made(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Made, MemoryTracking]]:
    """The report of the last week, made once; printing is tried elsewhere."""
    home, tracking, patch = tmp_path_factory.mktemp("reported"), MemoryTracking(), pytest.MonkeyPatch()
    patch.setattr(pdf, "printed", lambda page: None)
    shutil.copy(shop_file, home / "rewardloop.db")
    engine = open_database(f"sqlite:///{home / 'rewardloop.db'}")
    yield weekly(bench_of(Settings(home=home), engine, tracking), "shop", PERIOD), tracking
    engine.dispose()
    patch.undo()


def test_the_report_answers_the_questions(made: tuple[Made, MemoryTracking]) -> None:
    """What changed, what it earned, what serves, what needs a decision, what not to trust: each has an answer."""
    told = made[0].report.told

    assert tuple(told) == QUESTIONS
    assert all(told.values())
    assert "clearly better than the baseline" in told["What it earned"][0]
    assert told["What is serving now"] == ["The baseline: no model has been promoted yet."]
    assert "32 contents without approval" in told["What needs a decision"][0].replace("34", "32")


def test_every_number_of_the_sentences_is_logged(made: tuple[Made, MemoryTracking]) -> None:
    """What was earned, and what may still come, is told in numbers that are metrics of the run, as they are shown."""
    report, tracking = made[0].report, made[1]
    logged = tracking.reported[report.period.key].metrics
    shown = {number(value, signed) for value in logged.values() for signed in (False, True)}
    told = " ".join(report.told["What it earned"]).replace("per 1,000", "")
    numbers = re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", told)

    assert logged == report.metrics
    assert len(numbers) >= 8
    assert set(numbers) <= shown


def test_names_of_metrics_are_a_marketers(made: tuple[Made, MemoryTracking]) -> None:
    """Few columns, in business words, money with its currency."""
    metrics = made[0].report.metrics

    assert {"clicks per 1000", "revenue per 1000 sends in EUR", "lift vs holdout", "lift vs holdout low"} <= set(
        metrics
    )
    assert len(metrics) <= 24


def test_the_lift_is_the_shops(made: tuple[Made, MemoryTracking]) -> None:
    """Treatment gets the better copy nine times in ten: 180 more clicks per 1,000, which the interval holds."""
    course = made[0].report.courses[0]

    assert course.now.low < 180 < course.now.high
    assert course.now.low > 0


def test_the_better_copy_leads_the_league(made: tuple[Made, MemoryTracking]) -> None:
    """The copy with twice the clicks is the likeliest best, with its text, share and interval."""
    (league,) = made[0].report.leagues
    first = league.lines[0]

    assert (first.copy, first.content_id) == ("b", "b")
    assert first.best > 0.99
    assert first.expected is not None
    assert first.expected.low < 400 < first.expected.high
    assert league.others == 34 - len(league.lines)


def test_the_report_says_who_is_listened_to(made: tuple[Made, MemoryTracking]) -> None:
    """Of every judge one sentence, on the page as text; two contents prove nothing, so this one moves nothing."""
    (sentence,) = made[0].report.opinions

    assert sentence.startswith("<b>strict</b>: ")
    assert "it moves nothing" in sentence
    assert sentence in Page(made[0].page.read_text()).text


def test_the_timeline_has_what_was_changed(made: tuple[Made, MemoryTracking]) -> None:
    """New copy and switches stand in it, in their order."""
    changes = made[0].report.changes
    switched = [change.words for change in changes if change.kind == "paused"]

    assert switched == ["switched to the baseline", "chooses again"]
    assert [change.at for change in changes] == sorted(change.at for change in changes)


class Page(HTMLParser):
    """The elements and attributes that a browser makes of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_and_runs_nothing(made: tuple[Made, MemoryTracking]) -> None:
    """No script, no address but data of its own, and hostile copy is text of the page."""
    page = Page(made[0].page.read_text())
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]

    assert not page.tags & {"script", "iframe", "object", "embed", "link", "form", "a", "base", "video", "math"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert addresses
    assert all(value and value.startswith("data:image/png;base64,") for value in addresses)
    shown = [line for line in made[0].report.leagues[0].lines if line.content_id.startswith("h")]
    assert len(shown) >= 10
    assert all(line.copy in page.text for line in shown)


def test_the_description_is_plain_text(made: tuple[Made, MemoryTracking]) -> None:
    """The run's description opens with the questions, and nothing in it is a tag."""
    text = made[1].reported[made[0].report.period.key].description

    assert text == describe(made[0].report)
    assert text.startswith("**What changed.** ")
    assert re.findall(r"\*\*(.+?)\.\*\*", text) == list(QUESTIONS)
    assert "<" not in text


def test_the_files_are_the_runs(made: tuple[Made, MemoryTracking]) -> None:
    """Page, data and charts lie in the data folder, and the same bytes are the run's artifacts."""
    record = made[1].reported[made[0].report.period.key]
    names = {path.name for path in made[0].folder.iterdir()}

    assert {"report.html", "report.json", "lift.png"} <= names
    assert record.files["report.html"] == made[0].page.read_bytes()
    assert record.files["plots/lift.png"] == (made[0].folder / "lift.png").read_bytes()
    assert all(content[:4] == b"\x89PNG" for name, content in record.files.items() if name.endswith(".png"))


def test_an_empty_loop_has_a_report_too(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """A loop with hardly anything: the report says that there is no lift, and with MLflow away it is still written."""
    open_shop(engine, secrets, customers=20)
    tracking = MemoryTracking()
    tracking.away = True
    patch = pytest.MonkeyPatch()
    patch.setattr(pdf, "printed", lambda page: b"%PDF-")
    found = weekly(bench_of(settings, engine, tracking), "shop", Period(AFTER - DAY, AFTER))
    patch.undo()

    assert found.run_id is None
    assert "There is no honest lift yet" in found.report.told["What it earned"][0]
    assert found.report.metrics["sends"] == 0
    assert (found.folder / "report.pdf").read_bytes() == b"%PDF-"


def test_periods_are_whole_days() -> None:
    """The last seven days before today, named by first and last; absurd lengths are refused."""
    period = period_until(AFTER + 5)

    assert (period.until, period.until - period.since) == (AFTER, 7 * DAY)
    assert period.key.endswith("-7d")
    with pytest.raises(BadInput, match="1 to 366 days"):
        period_until(AFTER, 0)


def test_a_page_is_printed_where_there_is_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a browser a page becomes a PDF; without one, or with one that fails, there is none, and nothing is raised."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert pdf.printed(b"<p>x</p>") is None

    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(broken))
    assert pdf.printed(b"<p>x</p>") is None
