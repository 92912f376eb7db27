"""A marketer's path through a real MLflow: find the loop, read the week, compare two versions, approve one.

With MLflow's authentication installed the yes is accepted; without it, the same yes is refused, and says why.
Pictures of what was seen are kept where ``REWARDLOOP_PICTURES`` says.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from infra.clock import DAY
from infra.database import open_database, reading
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from infra.tracking import Tracking
from pipelines import approvals
from pipelines.learning import Bench, retrain
from pipelines.reporting.making import Made, weekly
from reward_models import registry
from tests.conftest import MlflowServer
from tests.pipelines.reporting.showcase import LOOP, NOW, populate
from tests.stack.browsing import chromium, watched

pytestmark = pytest.mark.timeout(600)
PATIENCE = 120_000.0
"""Milliseconds for a page: a busy machine is no fault."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer) -> Iterator[Bench]:
    """A loop with a version that serves and one that waits for a yes, in the run's MLflow."""
    settings = Settings(home=tmp_path_factory.mktemp("walk"), mlflow_tracking_uri=mlflow_server.url)
    engine = open_database(settings.database)
    migrate(engine)
    populate(engine, load_secrets(settings), customers=5_000)
    now = [NOW]
    with pytest.MonkeyPatch.context() as patch:
        mlflow_server.sign_in(patch)
        bench = Bench(settings, engine, lambda: now[0], Tracking(settings))
        retrain(bench, LOOP)
        approvals.approve(bench, LOOP, None, "ann")
        now[0] += DAY // 2
        assert retrain(bench, LOOP).state == "passed"
        yield bench
    engine.dispose()


@pytest.fixture(scope="module")
def made(bench: Bench) -> Made:
    """The report of the week."""
    return weekly(bench, LOOP)


@pytest.fixture(scope="module")
def page(mlflow_server: MlflowServer) -> Iterator[Page]:
    """The marketer's browser, signed in."""
    who = {"username": mlflow_server.user, "password": mlflow_server.password}
    with chromium() as browser:
        context = browser.new_context(http_credentials=who, viewport={"width": 1280, "height": 900})  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        yield watched(context)[0]


def seen(page: Page, name: str) -> None:
    """Keep a picture of what is seen, if somebody wants one."""
    if folder := os.environ.get("REWARDLOOP_PICTURES"):
        page.wait_for_timeout(1_500)
        page.screenshot(path=str(Path(folder) / f"mlflow-{name}.png"))


def test_the_loop_is_an_experiment_with_its_weeks_and_versions(
    page: Page, made: Made, mlflow_server: MlflowServer
) -> None:
    """Opening MLflow, with Model training chosen once, the loop is in the list by its name; its runs are weeks and
    versions."""
    page.goto(f"{mlflow_server.url}/#/experiments")
    page.get_by_text("Model training").first.click()
    page.get_by_role("link", name=LOOP, exact=True).first.click()
    page.wait_for_url("**/runs?*")
    page.get_by_text(f"{LOOP}-2").first.wait_for()
    page.get_by_text("week to").first.wait_for()
    page.get_by_role("button", name="Close", exact=True).first.click()  # MLflow's assistant is in the way
    seen(page, "runs")


def test_the_week_answers_its_questions(page: Page, made: Made, mlflow_server: MlflowServer) -> None:
    """A week's run opens with the five answers; its report is shown with its charts."""
    page.goto(f"{mlflow_server.url}/#/experiments/{experiment(mlflow_server)}/runs/{made.run_id}")
    page.get_by_text("What needs a decision").first.wait_for()
    shown = page.inner_text("body")
    seen(page, "report")
    assert made.report.told["What it earned"][0] in shown
    assert f"{LOOP}-2 passed its gate and waits for a yes" in shown

    page.goto(f"{page.url.split('?')[0]}/artifacts/report.html")
    page.frame_locator("iframe").first.get_by_text("What each policy would earn").first.wait_for()
    seen(page, "artifact")


def test_two_versions_are_compared(page: Page, bench: Bench, mlflow_server: MlflowServer) -> None:
    """Side by side two versions show the same business figures."""
    runs = [run.run_id for _, run in sorted(bench.tracking.runs(LOOP).items())]
    here = experiment(mlflow_server)
    page.goto(f"{mlflow_server.url}/#/compare-runs?runs={json.dumps(runs)}&experiments={json.dumps([here])}")
    page.get_by_text("expected gain per 1000").first.wait_for()
    shown = page.inner_text("body")
    seen(page, "compare")
    assert f"{LOOP}-1" in shown
    assert f"{LOOP}-2" in shown


def test_a_yes_in_mlflow_is_a_request(page: Page, bench: Bench, made: Made, mlflow_server: MlflowServer) -> None:
    """The tag `approval` set on the version's page is answered: done where MLflow is guarded, else refused."""
    page.goto(f"{mlflow_server.url}/#/models/{LOOP}/versions/2")
    page.get_by_text("would have earned").first.wait_for()
    add_tag(page, "approval", "approved")
    page.wait_for_function("() => document.body.innerText.includes('approved')")
    seen(page, "approve")
    (answer,) = approvals.take_requests(bench, LOOP)
    with reading(bench.engine) as connection:
        champion = registry.champion(connection, LOOP)
    assert champion is not None
    assert (answer.accepted, champion.version) == (
        (True, f"{LOOP}-2") if mlflow_server.guarded else (False, f"{LOOP}-1")
    )

    page.reload()
    page.get_by_text("approval.answer").first.wait_for()
    assert answer.sentence[:30] in page.inner_text("body")


def test_strangers_are_let_in_nowhere(mlflow_server: MlflowServer, bench: Bench) -> None:
    """Whether MLflow is guarded is asked as a stranger, whatever this process knows."""
    assert bench.tracking.guarded() is mlflow_server.guarded


def add_tag(page: Page, name: str, value: str) -> None:
    """Set a tag in the section of a version's page."""
    page.get_by_test_id("tags-form-input-name").fill(name)
    page.get_by_test_id("tags-form-input-value").fill(value)
    page.get_by_role("button", name="Add", exact=True).click()


def experiment(server: MlflowServer) -> str:
    """The number of the loop's experiment."""
    from mlflow import MlflowClient

    found: Any = MlflowClient(server.url).get_experiment_by_name(LOOP)
    return str(found.experiment_id)
