"""`rewardloop episodes`: journeys valued, late effects foretold."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.commands import episodes as commands
from pipelines.commands.workspace import FAILED, GATE_REFUSED, OK, Workspace
from pipelines.journeys import POLICIES
from tests.pipelines import holdout_world
from tests.pipelines.commands import run
from tests.pipelines.holdout_world import fill, shop
from tests.pipelines.worlds import NOW, populate


def opened(monkeypatch: pytest.MonkeyPatch, engine: Engine, secrets: Secrets, home: Path, now: int) -> None:
    """The commands open the test's own database at this time."""
    found = Workspace(Settings(home=home), engine, secrets, lambda: now)
    monkeypatch.setattr(commands, "open_workspace", lambda: found)


def test_policies_of_journeys_are_valued(
    engine: Engine,
    secrets: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every policy by every estimator with customers as clusters; what ran is worth what it earned; a horizon that is not
    over yet is refused in a sentence."""
    populate(engine, secrets, decisions=1_500)
    opened(monkeypatch, engine, secrets, tmp_path, NOW + 2 * DAY)
    code, document, _ = run(capsys, "episodes", "value", "subjects", "--horizon", "7d", "--json")
    found = json.loads(document)
    ran = {each["name"]: each for each in found["policies"]["as it was"]["estimates"]}
    per_episode = found["decisions"] / found["episodes"]

    assert code == OK
    assert set(found["policies"]) == set(POLICIES)
    assert found["units"] < found["episodes"] < found["decisions"]
    assert ran["PDIS"]["low"] < 0.15 * per_episode < ran["PDIS"]["high"]
    assert ran["PDIS"]["clusters"] == found["units"]
    assert ran["FQE"]["note"].startswith("model-dependent")
    assert found["policies"]["uniform"]["difference"]["name"] == "difference"
    code, _, error = run(capsys, "episodes", "value", "subjects", "--horizon", "52w")
    assert code == FAILED
    assert "--horizon" in error


def test_a_late_effect_is_foretold_or_doubted(
    engine: Engine,
    secrets: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The effect on the index with all that speaks for and against it; what cannot be trusted ends with another code."""
    fill(engine, secrets, shop(), customers=1_500)
    opened(monkeypatch, engine, secrets, tmp_path, holdout_world.BEGAN + 21 * DAY)
    arguments = ("episodes", "surrogate", "shop", "--early", "1d", "--late", "10d", "--metric", "revenue")
    code, document, _ = run(capsys, *arguments, "--json")
    found = json.loads(document)
    _, said, _ = run(capsys, *arguments)

    assert found["effect"][1] < 0.9 * 0.2 * 0.5 * 20 < found["effect"][2]
    assert code == (OK if found["trusted"] else GATE_REFUSED)
    assert "foretold from the first 1" in said
    assert all(flag.split(":")[0] in said for flag in found["flags"])
    assert run(capsys, *arguments[:-4], "--late", "1d")[0] == FAILED
