"""Hostile copy in a real browser: our pages, the weekly report and MLflow's pages run none of it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser

from infra.database import open_database
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tracking import Tracking
from pipelines.app import create_app
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
def api(settings: Settings) -> Iterator[str]:
    """The real API over that installation."""
    config = uvicorn.Config(create_app(settings), port=settings.port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.1)
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        server.should_exit = True
        thread.join()


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


def test_our_pages_show_copy_and_run_nothing(browser: Browser, api: str) -> None:
    """Lines to compare and a campaign's copy are text, whatever they say."""
    page, noticed = watched(browser.new_context())
    for place in range(0, len(HOSTILE), 8):
        lines = HOSTILE[place : place + 8]
        page.goto(f"{api}/")
        page.fill("#texts", "\n".join(lines))
        page.click("button")
        assert page.input_value("#texts").splitlines() == list(lines)
        look_for_marks(page, noticed)
    page.goto(f"{api}/campaigns/spring")
    shown = page.inner_text("main")
    look_for_marks(page, noticed)

    assert noticed.nothing
    assert all(" ".join(line.split()) in " ".join(shown.split()) for line in HOSTILE)


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


def test_mlflow_shows_a_report_and_runs_nothing(browser: Browser, made: Made, mlflow_server: MlflowServer) -> None:
    """The run's page with its description, and the report among its artifacts, as MLflow's own screen shows them."""
    context = browser.new_context(http_credentials={"username": mlflow_server.user, "password": mlflow_server.password})
    page, noticed = watched(context)
    experiment = _experiment(made, mlflow_server)
    page.goto(f"{mlflow_server.url}/#/experiments/{experiment}/runs/{made.run_id}")
    page.get_by_text("What it earned").first.wait_for(timeout=60_000)
    look_for_marks(page, noticed)
    page.goto(f"{mlflow_server.url}/#/experiments/{experiment}/runs/{made.run_id}/artifacts/report.html")
    page.frame_locator("iframe").first.get_by_text("Data health").first.wait_for(timeout=60_000)
    look_for_marks(page, noticed)

    assert noticed.nothing


def _experiment(made: Made, server: MlflowServer) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient(server.url).get_run(str(made.run_id)).info.experiment_id)
