"""Decisions of a send, stored by the thousand and read back as what is written of them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Row, select

from infra import tables
from infra.database import chunks, writing
from ingestion.events import Decision, Group, Mode
from reward_models.serving.decision_log import insert_decisions

_READ, _WRITE = 500, 1_000
"""Rows in one statement."""


class Choice(NamedTuple):
    """What was decided, in short. ``withheld``: why nothing may be sent."""

    decision_id: str
    campaign_id: str
    group: Group
    learning_mode: Mode
    content_id: str
    propensity: float | None
    withheld: str | None


def store_many(engine: Engine, decisions: Sequence[Decision]) -> list[Choice]:
    """Store each id once, all in one commit; what is stored under each id, in the order of the ids: two writers who meet
    wait for each other in one order."""
    ordered = sorted(decisions, key=lambda decision: decision.decision_id)
    with writing(engine) as connection:
        return [choice_of(one) for some in chunks(ordered, _WRITE) for one in insert_decisions(connection, some)]


def read_choices(connection: Connection, decision_ids: Sequence[str]) -> dict[str, Choice]:
    """What is stored under these ids."""
    c = tables.decisions.c
    query = select(c.decision_id, c.campaign_id, c.group, c.learning_mode, c.chosen, c.constraints)
    found = {}
    for some in chunks(decision_ids, _READ):
        for row in connection.execute(query.where(c.decision_id.in_(some))):
            found[row.decision_id] = _of_row(row)
    return found


def choice_of(decision: Decision) -> Choice:
    """The decision in short."""
    first = decision.chosen[0]
    return Choice(
        decision.decision_id,
        decision.campaign_id,
        decision.group,
        decision.learning_mode,
        first.content_id,
        first.propensity,
        decision.constraints.get("withheld"),
    )


def _of_row(row: Row[tuple[object, ...]]) -> Choice:
    first = row.chosen[0]
    return Choice(
        row.decision_id,
        row.campaign_id,
        row.group,
        row.learning_mode,
        first["content_id"],
        first["propensity"],
        row.constraints.get("withheld"),
    )
