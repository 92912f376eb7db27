"""What people are told: that a version or copy waits for them, a guardrail vetoed, a flow failed, the lift fades. Pure.

A notice is made of the paper with which a flow ends (``pipelines/flows/paper.py``); most papers make none.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from pipelines.flows.paper import Paper

Kind = Literal["approval", "veto", "failure", "fading"]
"""approval: a version passed, or copy was kept, and waits for a person; veto: a guardrail stopped a version or a loop; failure: a flow did not
do its work; fading: what was earned is earned no more."""

TITLES: dict[Kind, str] = {
    "approval": "needs an approval",
    "veto": "was stopped by a guardrail",
    "failure": "failed",
    "fading": "earns less than it did",
}
LONGEST = 2_000
"""Characters of a notice's text; the rest is where the flow put it."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One message to people. ``subject``: a loop, or what else the flow was about."""

    kind: Kind
    flow: str
    subject: str
    text: str

    @property
    def title(self) -> str:
        """One line."""
        who = f"{self.flow} of {self.subject}" if self.kind == "failure" else self.subject
        return " ".join(f"Rewardloop: {who} {TITLES[self.kind]}".split())[:200]


def failed(flow: str, subject: str, sentence: str) -> Notice:
    """A flow that ended in an error."""
    return Notice(kind="failure", flow=flow, subject=subject, text=_cut(sentence))


def notices_of(flow: str, paper: Paper) -> list[Notice]:
    """What people must hear of a paper: each kind once per subject."""
    told = {(each.kind, each.subject): each for each in _read(flow, paper)}
    return list(told.values())


def _read(flow: str, paper: Paper) -> Iterator[Notice]:
    if flow in ("retrain", "promote"):
        if paper.state == "passed":
            yield _notice("approval", flow, paper.subject, f"{paper.sentence} Approve it with: rewardloop approve")
        elif paper.state in ("failed", "refused") and "vetoed by a guardrail" in paper.sentence.lower():
            yield _notice("veto", flow, paper.subject, paper.sentence)
        return
    if flow == "generate":
        if paper.state == "waiting":
            queue = f"Look at it with: rewardloop copy queue --loop {paper.subject}"
            yield _notice("approval", flow, paper.subject, f"{paper.sentence} {queue}")
        return
    for row in paper.rows:
        subject, finding = str(row.get("loop") or paper.subject), str(row.get("finding", ""))
        what, severity = str(row.get("what", "")), row.get("severity")
        if row.get("state") == "failed":
            yield _notice("failure", flow, subject, finding)
        elif what.startswith("guardrail") and severity == "act":
            yield _notice("veto", flow, subject, finding)
        elif (what == "novelty" and severity in ("look", "act")) or (what.startswith("lift") and severity == "act"):
            yield _notice("fading", flow, subject, finding)


def _notice(kind: Kind, flow: str, subject: str, text: str) -> Notice:
    return Notice(kind=kind, flow=flow, subject=subject, text=_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
