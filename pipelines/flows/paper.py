"""What a flow says when it ends: a sentence, a page of Markdown and a table, the same shape for every flow.

A paper is data, free of Prefect: steps make it, ``shape.py`` publishes it, the command line prints it. Texts that came
in with copy or from outside must go through ``reward_models.report.plain`` before they stand in Markdown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from infra.errors import RewardloopError

EVERY_LOOP = "every loop"
INSTALLATION = "installation"


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. ``rows``: a table, its columns are the keys of the first row."""

    subject: str
    """A loop, or what else it was about."""
    state: str
    """One word."""
    sentence: str
    text: str = ""
    """Markdown below the sentence."""
    rows: tuple[dict[str, Any], ...] = ()
    alarm: bool = False
    """A person must see it: the run ends as failed, although it did its work."""


class Alarm(RewardloopError):
    """A run that did its work, and found what a person must see. ``paper``: all of it."""

    title = "Something needs a person"

    def __init__(self, paper: Paper) -> None:
        super().__init__(paper.sentence)
        self.paper = paper


def joined(subject: str, papers: Sequence[Paper], failures: Mapping[str, str]) -> Paper:
    """One paper out of those of several loops, what is wrong first. ``failures``: why others have none, by loop."""
    sentences = [f"{loop}: failed. {reason}" for loop, reason in failures.items()]
    sentences += [f"{each.subject}: {each.sentence}" for each in sorted(papers, key=lambda each: not each.alarm)]
    rows = [{"loop": each.subject, **row} for each in papers for row in each.rows]
    rows += [{"loop": loop, "state": "failed", "finding": reason} for loop, reason in failures.items()]
    return Paper(
        subject=subject,
        state=_worst(papers, failures),
        sentence=" ".join(sentences) or "There is no loop yet.",
        text="\n\n".join(f"## {each.subject}\n\n{each.text}" for each in papers if each.text),
        rows=_even(rows),
        alarm=bool(failures) or any(each.alarm for each in papers),
    )


def _worst(papers: Sequence[Paper], failures: Mapping[str, str]) -> str:
    if failures:
        return "failed"
    alarming = [each.state for each in papers if each.alarm]
    states = {each.state for each in papers}
    return alarming[0] if alarming else states.pop() if len(states) == 1 else "done"


def _even(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows with the same columns, in the order they came up."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return tuple({name: row.get(name, "") for name in columns} for row in rows)
