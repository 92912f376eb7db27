"""Which papers of flows make a notice, and what it says."""

from typing import Any

import pytest

from pipelines.flows.paper import Paper
from pipelines.notifying.notices import LONGEST, failed, notices_of
from reward_models.gate import Verdict
from reward_models.guardrails import Guarded, vetoed


def paper(state: str, sentence: str = "So it is.", *rows: dict[str, Any]) -> Paper:
    """A paper about the loop `mail`."""
    return Paper(subject="mail", state=state, sentence=sentence, rows=rows)


def finding(what: str, severity: str, **more: Any) -> dict[str, Any]:
    """A row of the watch flow's table."""
    return {"severity": severity, "what": what, "finding": f"About {what}.", **more}


@pytest.mark.parametrize("state", ["promoted", "failed", "refused", "waiting"])
def test_most_retrains_say_nothing(state: str) -> None:
    """Only a version that waits for a person is told; what the gate turned down was turned down."""
    assert notices_of("retrain", paper(state)) == []


def test_a_version_that_waits_asks_for_an_approval() -> None:
    """It names the loop and the command that approves."""
    (notice,) = notices_of("retrain", paper("passed", "mail-3 passed."))
    assert (notice.kind, notice.title) == ("approval", "Rewardloop: mail needs an approval")
    assert "rewardloop approve" in notice.text


def test_copy_that_waits_asks_for_an_approval() -> None:
    """What a run kept waits for a person, who is told where; copy that is approved by rule, or none at all, is no notice."""
    (notice,) = notices_of("generate", paper("waiting", "8 wait for approval.", {"content": "c1", "state": "draft"}))
    assert (notice.kind, notice.title) == ("approval", "Rewardloop: mail needs an approval")
    assert notice.text == "8 wait for approval. Look at it with: rewardloop copy queue --loop mail"
    assert [notices_of("generate", paper(state)) for state in ("approved", "nothing")] == [[], []]


def test_a_veto_is_told_with_its_reason() -> None:
    """By the words that the gate's own verdict has."""
    guard = Guarded("unsubscribe", "breached", "unsubscribe: clearly more than the holdout.", 0.5, 0.1, units=900)
    verdict = vetoed(Verdict("passed", "It passed.", "change", 1, 0.03, 0.0), [guard])
    (notice,) = notices_of("retrain", paper(verdict.state, verdict.sentence))
    assert (notice.kind, "clearly more than the holdout" in notice.text) == ("veto", True)


def test_what_the_watch_finds() -> None:
    """A breached guardrail, fading copy, a lift that is worse, and a loop that could not be looked at, each once per loop;
    what is fine or merely worth a look is nobody's mail."""
    rows = (
        finding("guardrail: unsubscribe", "act", loop="mail"),
        finding("guardrail: complaint", "fine", loop="mail"),
        finding("novelty", "look", loop="mail"),
        finding("lift: click", "act", loop="push"),
        finding("lift: revenue", "fine", loop="push"),
        finding("customers", "look", loop="push"),
        {"loop": "sms", "state": "failed", "finding": "The database went away."},
    )
    told = [(each.kind, each.subject) for each in notices_of("watch", paper("failed", "Many.", *rows))]
    assert told == [("veto", "mail"), ("fading", "mail"), ("fading", "push"), ("failure", "sms")]


def test_a_flow_that_failed_says_which() -> None:
    """Flow and loop are in the title; a text of any length is cut."""
    notice = failed("retrain", "mail", "x" * 3 * LONGEST)
    assert notice.title == "Rewardloop: retrain of mail failed"
    assert len(notice.text) == LONGEST


def test_a_title_is_one_line() -> None:
    """A loop's name cannot add a header to a mail."""
    assert "\n" not in failed("retrain", "mail\nBcc: all@example.com", "x").title
