"""Flows tell people what they must hear, at their end and when they break."""

import json
from pathlib import Path

import pytest

from infra.errors import Unavailable
from pipelines.flows import shape
from pipelines.flows.paper import Paper
from tests.pipelines.notifying.servers import web

WAITING = Paper(subject="mail", state="passed", sentence="mail-3 passed.")


def gone(loop_id: str) -> Paper:
    """A body that breaks."""
    raise Unavailable(f"The database of {loop_id} went away.")


@pytest.mark.parametrize(("breaks", "kind"), [(False, "approval"), (True, "failure")])
def test_a_flow_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool, kind: str) -> None:
    """A version that waits for a person is told at the end; a flow that breaks tells why, and breaks all the same."""
    monkeypatch.setattr(shape, "publish", lambda _name, _paper: None)
    file = tmp_path / "targets.json"
    monkeypatch.setenv("REWARDLOOP_NOTIFY_FILE", str(file))

    def body(loop_id: str) -> Paper:
        return gone(loop_id) if breaks else WAITING

    flow = shape.as_flow("retrain", minutes=1, after="What serves did not change.", paper=lambda paper: paper)(body)
    with web(200) as inbox:
        file.write_text(
            json.dumps({"targets": [{"name": "a", "kind": "webhook", "url": f"http://127.0.0.1:{inbox.port}/"}]})
        )
        file.chmod(0o600)
        if breaks:
            with pytest.raises(Unavailable):
                flow.fn(loop_id="mail")
        else:
            flow.fn(loop_id="mail")

    (told,) = [json.loads(content) for _, content in inbox.got]
    assert (told["kind"], told["flow"]) == (kind, "retrain")
    assert "mail" in told["text"]
    assert ("What serves did not change." in told["text"]) == breaks
