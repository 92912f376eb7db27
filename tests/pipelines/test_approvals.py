"""Approval: what is asked for in MLflow is a request, and what may not be is refused, audited and answered."""

from typing import Any

import pytest
from sqlalchemy import Engine

from infra.database import reading, writing
from infra.errors import BadInput
from infra.settings import Settings
from infra.tracking import Request
from ingestion.audit import read_audit
from ingestion.loops import put_loop
from pipelines import approvals, learning
from pipelines.learning import Bench
from reward_models import registry
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.worlds import NOW, definition


@pytest.fixture
def tracking() -> MemoryTracking:
    return MemoryTracking()


@pytest.fixture
def bench(settings: Settings, engine: Engine, tracking: MemoryTracking, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two versions without files: the first failed its gate, the second passed and waits."""
    monkeypatch.setattr(learning, "_check_files", lambda bench, stored: None)
    with writing(engine) as connection:
        put_loop(connection, definition(gate={"approval": True}), NOW)
        for number, state in ((1, "failed"), (2, "passed")):
            name = f"subjects-{number}"
            registry.register(
                connection,
                "subjects",
                name,
                digest=f"d{number}",
                config_digest="c",
                loop_version=1,
                as_of=1,
                cutoff=NOW,
                kind="first",
                now=NOW + number,
            )
            registry.settle(connection, "subjects", name, state, {"sentence": "Judged.", "champion": None})  # type: ignore[arg-type]
    return Bench(settings, engine, lambda: NOW, tracking)


def champion_of(bench: Bench) -> str | None:
    with reading(bench.engine) as connection:
        found = registry.champion(connection, "subjects")
    return found.version if found else None


def audited(bench: Bench) -> list[tuple[str, str, str]]:
    with reading(bench.engine) as connection:
        return [(entry.actor, entry.action, entry.subject) for entry in read_audit(connection)]


@pytest.mark.parametrize("alias", [True, False])
def test_a_request_for_a_gated_version_is_done(bench: Bench, tracking: MemoryTracking, alias: bool) -> None:
    """Asked for by tag or alias where MLflow is guarded, a version that passed serves, and the answer says so."""
    tracking.asked = [Request("subjects-2", "approved", alias)]
    (answer,) = approvals.take_requests(bench, "subjects")

    assert (answer.accepted, champion_of(bench)) == (True, "subjects-2")
    assert tracking.answered == [("subjects-2", "Approved: subjects-2 serves now.")]
    assert audited(bench) == [("mlflow", "approve", "subjects-2"), ("mlflow", "promote", "subjects-2")]
    assert tracking.asked == []


def test_without_a_password_a_request_is_nobodys(bench: Bench, tracking: MemoryTracking) -> None:
    """While MLflow lets everybody in, a request is refused, audited and answered, and nothing serves."""
    tracking.password = False
    tracking.asked = [Request("subjects-2", "approved", alias=False)]
    (answer,) = approvals.take_requests(bench, "subjects")

    assert (answer.accepted, champion_of(bench)) == (False, None)
    assert "asks nobody for a password" in tracking.answered[0][1]
    assert audited(bench) == [("mlflow", "refuse_approval", "subjects-2")]


@pytest.mark.parametrize("version", ["subjects-1", "subjects-9", ""])
def test_only_gated_versions_can_be_asked_for(bench: Bench, tracking: MemoryTracking, version: str) -> None:
    """A version that failed, or that is none, is refused, and nothing serves."""
    tracking.asked = [Request(version, "approved", alias=True)]
    (answer,) = approvals.take_requests(bench, "subjects")

    assert (answer.accepted, champion_of(bench)) == (False, None)
    assert audited(bench)[-1][:2] == ("mlflow", "refuse_approval")


def test_a_no_is_kept(bench: Bench, tracking: MemoryTracking) -> None:
    """A rejection is a person's word in the database; the version does not serve."""
    tracking.asked = [Request("subjects-2", "rejected", alias=False)]
    approvals.take_requests(bench, "subjects")
    with reading(bench.engine) as connection:
        stored = registry.version_of(connection, "subjects", "subjects-2")

    assert (stored.approved, stored.approvals[-1]["verdict"], champion_of(bench)) == (False, "rejected", None)
    with pytest.raises(BadInput, match="only one that passed"):
        approvals.reject(bench, "subjects", "subjects-1", "ann")


def test_asking_again_for_what_serves_changes_nothing(bench: Bench, tracking: MemoryTracking) -> None:
    """A request for the version that serves is answered, and the champion's revision stays."""
    approvals.approve(bench, "subjects", "subjects-2", "ann")
    before: Any = audited(bench)
    tracking.asked = [Request("subjects-2", "approved", alias=False)]
    (answer,) = approvals.take_requests(bench, "subjects")

    assert (answer.sentence, audited(bench)) == ("It serves already.", before)


def test_no_request_asks_nothing(bench: Bench, tracking: MemoryTracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without requests nobody asks MLflow whether it is guarded."""
    monkeypatch.setattr(tracking, "guarded", lambda: pytest.fail("asked"))

    assert approvals.take_requests(bench, "subjects") == []
