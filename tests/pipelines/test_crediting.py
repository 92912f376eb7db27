"""`rewardloop credit`: what earned it, in the terminal, on a page and as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from infra.database import writing
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.events import Batch, Campaign, Content
from ingestion.loops import put_loop
from ingestion.store import apply
from pipelines.commands import credit as commands
from pipelines.commands.workspace import FAILED, OK, Workspace
from tests.pipelines.commands import run
from tests.pipelines.holdout_world import NOW, fill, shop
from tests.reward_models.serving.models import registered, trained


@pytest.fixture
def workspace(engine: Engine, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """What the command opens: the test's own database."""
    found = Workspace(Settings(home=tmp_path), engine, secrets, lambda: NOW)
    monkeypatch.setattr(commands, "open_workspace", lambda: found)
    return found


def test_copy_is_credited_by_the_serving_model(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Parts of a content sum to its expectation; the page holds its words, escaped; without a name what earned how much
    over all sends; without a model it says what to do; unknown contents are named."""
    rules = shop()
    copy = (
        Content(content_id="q", campaign_id="past0", slots={"subject": "<b>Line</b> 9?"}, approval="approved"),
        Content(content_id="p", campaign_id="past0", slots={"subject": "Line 9!"}, approval="approved"),
    )
    campaign = Campaign(campaign_id="past0", loop_id="shop", baseline={})
    with writing(workspace.engine) as connection:
        put_loop(connection, rules, NOW)
    apply(workspace.engine, Batch(campaigns=(campaign,), contents=copy), workspace.secrets, NOW)

    assert run(capsys, "credit", "shop", "--content", "q")[0] == FAILED
    registered(workspace.engine, workspace.settings.bundles, trained(), "shop")
    code, document, _ = run(capsys, "credit", "shop", "--content", "q", "--json")
    [one] = json.loads(document)["contents"]
    assert code == OK
    assert sum(part["effect"] for part in one["parts"]) == pytest.approx(one["expected"], abs=1e-9)
    assert np.isfinite(one["expected"])
    code, said, _ = run(capsys, "credit", "shop", "--content", "q", "--html", str(tmp_path / "q.html"))
    assert code == OK
    assert "question" in said
    assert "&lt;b&gt;Line&lt;/b&gt;" in (tmp_path / "q.html").read_text()
    assert run(capsys, "credit", "shop")[0] == OK
    code, _, error = run(capsys, "credit", "shop", "--content", "nothing")
    assert code == FAILED
    assert "no content 'nothing'" in error


def test_sends_are_credited_side_by_side(
    workspace: Workspace, secrets: Secrets, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each model's column sums to what was bought; the table names them all; a wrong duration is one sentence."""
    fill(workspace.engine, secrets, shop(), customers=200)
    code, document, _ = run(capsys, "credit", "shop", "--sends", "--by", "content", "--json")
    found = json.loads(document)
    _, said, _ = run(capsys, "credit", "shop", "--sends")

    assert code == OK
    assert found["metric"] == "revenue"
    assert found["total"] > 0.0
    for model, nobody in found["nobody"].items():
        assert model in said
        assert sum(row["value"][model] for row in found["rows"]) + nobody == pytest.approx(found["total"])
    assert {row["content"] for row in found["rows"]} == {"a", "b"}
    assert run(capsys, "credit", "shop", "--sends", "--lookback", "soon")[0] == FAILED
