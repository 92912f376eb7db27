"""What people and judges think of the contents of running campaigns, looked at now and then: it changes by the hour.

    hear_again(connection, rules, running, batch_no, before) -> by loop         loops of which nothing moved stay as they are

Feedback is read again when there is more of it; whom to hear is judged again when outcomes, or the campaigns that run, have
changed. Where nothing was ever said this costs one query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from infra import tables
from ingestion.loops import LoopDefinition
from reward_models.opinions import Opinions, Said, load_opinions, load_said
from reward_models.preferences.judgements import KINDS


@dataclass(frozen=True)
class Heard:
    """Opinions in a loop. Equal marks, equal parts: of all feedback, and of what it was held against."""

    feedback: tuple[int, int]
    said: Said
    against: tuple[Any, ...]
    opinions: Opinions


def hear_again(
    connection: Connection,
    rules: Mapping[str, LoopDefinition],
    running: Mapping[str, str],
    batch_no: int,
    before: Mapping[str, Heard],
) -> dict[str, Heard]:
    """``rules``: of each loop; ``running``: the loop of each campaign that runs; ``batch_no``: of the statistics."""
    feedback = _feedback(connection)
    if not feedback[0]:
        return {}
    found = {}
    for loop_id, definition in rules.items():
        campaigns = sorted(name for name, loop in running.items() if loop == loop_id)
        known, against = before.get(loop_id), (batch_no, definition.reward, campaigns)
        said = known.said if known and known.feedback == feedback else load_said(connection, loop_id)
        if known is None or said is not known.said or known.against != against:
            known = Heard(feedback, said, against, load_opinions(connection, definition, campaigns, said))
        found[loop_id] = known
    return found


def _feedback(connection: Connection) -> tuple[int, int]:
    """How many opinions there are, and when the newest came."""
    c = tables.feedback.c
    count, newest = connection.execute(
        select(func.count(), func.coalesce(func.max(c.created_at), 0)).where(c.kind.in_(KINDS))
    ).one()
    return count, newest
