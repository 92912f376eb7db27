"""Hostile copy in a real browser: the weekly report runs none of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from infra.database import open_database
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tracking import Tracking
from pipelines.reporting.making import Made, weekly
from pipelines.supervisor import free_port
from tests.conftest import MlflowServer
from tests.pipelines.reporting.worlds import HOSTILE, PERIOD, bench_of, open_shop
from tests.stack.browsing import chromium, look_for_marks, watched

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer) -> Settings:
    """An installation with hostile copy, whose MLflow is the run's server."""
    settings = Settings(
        home=tmp_path_factory.mktemp("hostile"), mlflow_tracking_uri=mlflow_server.url, port=free_port(), tick_seconds=5
    )
    engine = open_database(settings.database)
    migrate(engine)
    open_shop(engine, load_secrets(settings), customers=1_200)
    engine.dispose()
    return settings


@pytest.fixture(scope="module")
def made(settings: Settings, mlflow_server: MlflowServer) -> Iterator[Made]:
    """The weekly report, in files and in MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        mlflow_server.sign_in(patch)
        engine = open_database(settings.database)
        yield weekly(bench_of(settings, engine, Tracking(settings)), "shop", PERIOD)
        engine.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for this file."""
    with chromium() as found:
        yield found


def test_the_watch_notices_what_runs(browser: Browser, tmp_path: Path) -> None:
    """Put into a page as markup, the same copy does open dialogs and leave its mark: the other tests could fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(f"<!doctype html><body>{HOSTILE[0]}{HOSTILE[1]}")
    page, noticed = watched(browser.new_context())
    page.goto(bad.as_uri())
    page.wait_for_timeout(200)
    look_for_marks(page, noticed)

    assert noticed.dialogs
    assert noticed.marks


def test_the_report_shows_copy_and_runs_nothing(browser: Browser, made: Made) -> None:
    """The page of the week, opened from its file: copy is text, the charts are there, and there is a PDF of it."""
    page, noticed = watched(browser.new_context())
    page.goto(made.page.as_uri())
    shown = " ".join(page.inner_text("main").split())
    look_for_marks(page, noticed)
    drawn = page.evaluate("() => [...document.images].every(image => image.complete && image.naturalWidth > 100)")
    listed = [line.copy for line in made.report.leagues[0].lines]

    assert noticed.nothing
    assert drawn
    assert sum(copy in HOSTILE for copy in listed) >= 10
    assert all(" ".join(copy.split()) in shown for copy in listed)
    assert (made.folder / "report.pdf").read_bytes().startswith(b"%PDF-")
