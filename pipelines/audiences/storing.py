"""Decisions of a send, stored by the thousand and read back as what is written of them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Row, select
from sqlalchemy.exc import IntegrityError

from infra import tables
from infra.database import Cells, chunks, insert_all, writing
from ingestion.events import Decision, Group, Mode
from reward_models.serving.decision_log import insert_decisions

_COLUMNS = tuple(str(column.name) for column in tables.decisions.columns if column.name != "batch_no")
_READ = 500


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
    """Store each id once; what is stored under each id, in their order.

    PostgreSQL copies them in. Where an id is there already, as when two processes make one send, that fails as a whole,
    and they are inserted like any others.
    """
    if engine.dialect.name == "postgresql":
        try:
            with writing(engine) as connection:
                insert_all(connection, tables.decisions, cells(decisions))
            return [choice_of(decision) for decision in decisions]
        except IntegrityError:
            pass
    with writing(engine) as connection:
        return [choice_of(stored) for some in chunks(decisions, _READ) for stored in insert_decisions(connection, some)]


def cells(decisions: Sequence[Decision]) -> Cells:
    """The decisions by column, in the order of their ids: writers who meet wait for each other in one order."""
    ordered = sorted(decisions, key=lambda decision: decision.decision_id)
    return {name: [getattr(decision, name) for decision in ordered] for name in _COLUMNS} if ordered else {}


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
