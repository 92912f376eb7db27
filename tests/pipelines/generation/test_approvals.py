"""The approval queue: by API, by command, by page; nothing that waits or was rejected is a candidate."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.settings import Settings
from pipelines import cli
from pipelines.app import create_app

LOOP = {
    "metrics": [{"name": "click", "event": "click"}],
    "reward": {"click": 1},
    "copy_rules": {"banned": ["sale"], "facts": "brief"},
}
BRIEF = "News about the winter collection: 12 coats."
LINES = ("Twelve coats are here", "Sale on coats", "Meet <b>the</b> coats")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server over a folder of its own, with a loop, a campaign and three lines, one of them against the rules."""
    with TestClient(create_app(Settings(home=tmp_path_factory.mktemp("approvals")))) as client:
        assert client.put("/v1/loops/mail", json=LOOP).is_success
        contents = [{"id": f"c{number}", "slots": {"subject": line}} for number, line in enumerate(LINES)]
        body = {"campaign": "winter", "loop": "mail", "brief": BRIEF, "contents": contents}
        assert client.post("/v1/campaigns", json=body).is_success
        yield client


def test_the_queue_holds_what_passed_with_its_verdicts(api: TestClient) -> None:
    """What a rule rejected does not wait; what waits has its verdicts; pages follow one another."""
    found = api.get("/v1/loops/mail/approvals").json()
    first = api.get("/v1/loops/mail/approvals", params={"limit": 1}).json()
    then = api.get("/v1/loops/mail/approvals", params={"limit": 1, "after": first["next"]}).json()

    assert [one["content_id"] for one in found["waiting"]] == ["c0", "c2"]
    assert [said["rule"] for said in found["waiting"][0]["verdicts"]] == ["banned", "facts"]
    assert [one["content_id"] for one in (*first["waiting"], *then["waiting"])] == ["c0", "c2"]
    assert then["next"] is None
    assert api.get("/v1/loops/none/approvals").status_code == 404


def test_inline_drafts_are_held_against_the_rules(api: TestClient) -> None:
    """In a loop that approves by itself, drafts given with the question are candidates if they pass, in a dry run too."""
    assert api.put("/v1/loops/auto", json=LOOP | {"approval": "automatic"}).is_success
    campaign = {"campaign": "auto-1", "loop": "auto", "brief": BRIEF, "contents": [{"slots": {"subject": "Coats"}}]}
    assert api.post("/v1/campaigns", json=campaign).is_success
    drafts = [{"slots": {"subject": line}} for line in ("Coats, coats", "Sale!", "99 coats")]
    body = {"loop": "auto", "campaign": "auto-1", "context": {}, "candidates": drafts, "slots": 3}

    for question in (body | {"dry_run": True}, body | {"decision_id": "d1"}):
        answer = api.post("/v1/rank", json=question)
        assert answer.is_success, answer.text
        assert len(answer.json()["ranked"]) == 1


def test_a_click_on_the_page_approves_and_a_foreign_one_does_not(api: TestClient) -> None:
    """The page shows copy as text; its buttons work once; another address, or another site, changes nothing."""
    page = api.get("/loops/mail/approvals")
    assert "Meet &lt;b&gt;the&lt;/b&gt; coats" in page.text
    assert "Twelve coats are here" in page.text
    buttons = [one.replace("&amp;", "&") for one in re.findall(r'action="([^"]+)"', page.text)]
    approve = next(one for one in buttons if "/c2/" in one and "approved" in one)

    assert api.post(approve, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert api.post(re.sub("signed=.", "signed=x", approve)).status_code == 403
    assert api.post(approve.replace("/c2/", "/c0/")).status_code == 403
    done = api.post(approve, headers={"sec-fetch-site": "same-origin"}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/loops/mail/approvals")
    assert api.post(approve).status_code == 404
    states = {one["content_id"]: one["approval"] for one in api.get("/v1/contents").json()["contents"]}
    assert (states["c0"], states["c1"], states["c2"]) == ("draft", "rejected", "approved")


def test_the_queue_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`copy queue` lists, `copy approve` and `copy reject` decide; an unknown content is one sentence."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    with TestClient(create_app(Settings(home=tmp_path))) as client:
        client.put("/v1/loops/mail", json=LOOP)
        contents = [{"id": f"c{number}", "slots": {"subject": line}} for number, line in enumerate(LINES)]
        client.post("/v1/campaigns", json={"campaign": "winter", "loop": "mail", "brief": BRIEF, "contents": contents})

    assert cli.run(["copy", "queue", "--json"]) == 0
    assert [one["content_id"] for one in json.loads(capsys.readouterr().out)] == ["c0", "c2"]
    assert cli.run(["copy", "approve", "c0", "--as", "ann"]) == 0
    assert cli.run(["copy", "reject", "c2", "--reason", "off brand"]) == 0
    assert "c2 was draft and is rejected." in capsys.readouterr().out
    assert cli.run(["copy", "queue", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert cli.run(["copy", "approve", "none"]) == 1
