"""Ratings by a judge: copy is asked about, and what is said is stored as feedback of its own source, never as an outcome.

judge_of(settings, budget) -> Judge | None        None: nobody is to rate what a run keeps
judge.rate(brief, contents) -> answers            store_ratings(connection, loop, judge, contents, answers, now)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from infra import tables
from infra.database import insert_once
from infra.settings import Settings
from ingestion.events import Content
from pipelines.generation.budget import Budget
from pipelines.generation.endpoint import Answer, Endpoint, endpoint_of
from pipelines.generation.judge import Rubric, Verdict, judge, load_rubric


@dataclass(frozen=True)
class Judge:
    """Who rates, by what, and for how much."""

    endpoint: Endpoint
    rubric: Rubric
    budget: Budget

    @property
    def name(self) -> str:
        """Rubric, version and model: trust is earned by this name."""
        return self.rubric.by(self.endpoint.model)

    def rate(self, brief: str, contents: Sequence[Content]) -> list[Answer[Verdict]]:
        """One answer per content, in order."""
        return judge(self.endpoint, self.rubric, brief, contents, self.budget)


def judge_of(settings: Settings, budget: Budget) -> Judge | None:
    """The judge of the settings, who spends from the same budget as the writer."""
    endpoint = endpoint_of(settings) if settings.generator_judge else None
    return None if endpoint is None else Judge(endpoint, load_rubric(settings.generator_rubric), budget)


def store_ratings(
    connection: Connection,
    loop: str,
    name: str,
    contents: Sequence[Content],
    answers: Sequence[Answer[Verdict]],
    now: int,
) -> None:
    """Each rating once: its id says who rated what."""
    rows = [
        {
            "feedback_id": "judge-" + hashlib.sha256(f"{name}\n{content.content_id}".encode()).hexdigest()[:32],
            "kind": "rating",
            "source": "LLM_JUDGE",
            "loop_id": loop,
            "decision_id": None,
            "content_id": content.content_id,
            "value": {
                "rating": answer.value.rating,
                "scores": dict(answer.value.scores),
                "reason": answer.value.reason,
                "judge": name,
                "seed": answer.seed,
                "tokens": answer.tokens.total,
                "micros": answer.micros,
            },
            "created_at": now,
        }
        for content, answer in zip(contents, answers, strict=True)
        if answer.value is not None
    ]
    if rows:
        insert_once(connection, tables.feedback, rows)
