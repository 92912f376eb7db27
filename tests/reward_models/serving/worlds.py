"""Small worlds for the tests of the ranker: a loop, a campaign and what was counted, built by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from infra.secrets import Secrets
from ingestion.events import Content
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.serving.campaigns import Campaign
from reward_models.serving.ranker import Request
from reward_models.serving.snapshot import Loop, Mark, Snapshot
from reward_models.statistics import Counts, StatRow

NOW = 1_795_000_000_000_000
SECRETS = Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32})


def definition(**changes: Any) -> LoopDefinition:
    """A loop that learns from clicks."""
    document = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}
    return parse_definition(document | changes)


def contents(count: int, approval: Any = "approved") -> dict[str, Content]:
    """Contents ``c00``, ``c01`` …"""
    names = [f"c{number:02d}" for number in range(count)]
    return {
        name: Content(content_id=name, campaign_id="june", slots={"subject": f"Line {name}"}, approval=approval)
        for name in names
    }


def uniform_baseline(ids: Sequence[str]) -> dict[str, Any]:
    """A baseline that is uniform over these contents."""
    return {"version": 1, "kind": "uniform", "content_ids": list(ids), "weights": [1 / len(ids)] * len(ids)}


def control_baseline(content_id: str) -> dict[str, Any]:
    """A baseline that is one content."""
    return {"version": 1, "kind": "control", "content_ids": [content_id], "weights": [1.0]}


def snapshot(
    count: int = 3,
    counts: Mapping[str, tuple[int, int]] | None = None,
    baseline: Mapping[str, Any] | None = None,
    loop: Mapping[str, Any] | None = None,
    state: str = "running",
    copy: Mapping[str, Content] | None = None,
    **changes: Any,
) -> Snapshot:
    """A world with ``count`` contents; ``counts``: exposures and clicks of some; ``changes``: to the loop's definition."""
    known = dict(copy if copy is not None else contents(count))
    rows = [
        StatRow(name, "click", shown, clicks * 1_000_000, clicks * 10**8, 0)
        for name, (shown, clicks) in (counts or {}).items()
    ]
    frozen = baseline if baseline is not None else uniform_baseline(list(known) or ["c00"])
    return Snapshot(
        loops={"mail": Loop(definition(**changes), 1, **(loop or {}))},
        campaigns={"june": Campaign("june", "mail", state, frozen, known)},
        counts=Counts({"june": {"": rows}}, {}, 0),
        mark=Mark(batch_no=7),
    )


def request(decision_id: str = "d1", **changes: Any) -> Request:
    """A question in that world."""
    fields: dict[str, Any] = {"request_digest": "0" * 64, "loop_id": "mail", "campaign_id": "june", "decided_at": NOW}
    return Request(decision_id=decision_id, **(fields | changes))
