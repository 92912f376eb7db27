"""What a loop may spend on language models: no more per run, and no more per calendar month (UTC), than the settings say.

    with purse(engine, settings, loop_id, clock) as budget: ...

1 take     the run's budget, or what the loop has left of its month, is taken out of the month in one transaction; nothing
           left is refused, with what to do
2 spend    ``budget.py`` keeps the run within it
3 book     what was not spent goes back when the run ends, however it ends. A run that was killed leaves all of it taken: nobody
           knows what it spent

Runs at the same time share a month: what one has taken the other cannot take. Without a budget per month spending is booked all
the same. A model whose prices are 0 costs nothing and is never refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, select, update

from infra import tables
from infra.clock import MICROS, Clock
from infra.database import insert_new, reading, writing
from infra.errors import Conflict
from infra.settings import Settings
from pipelines.generation.budget import Budget, Price


@contextmanager
def purse(engine: Engine, settings: Settings, loop_id: str, clock: Clock) -> Iterator[Budget]:
    """The budget of one run for a loop. Raises :class:`Conflict` where the loop has spent its month."""
    price = Price(settings.generator_price_read, settings.generator_price_written, settings.generator_currency)
    month, free = _month(clock()), not (price.read or price.written)
    taken = 0 if free else _take(engine, settings, loop_id, month)
    budget = Budget(taken, settings.generator_token_budget, price)
    try:
        yield budget
    finally:
        if taken:
            _book(engine, settings, loop_id, month, budget.micros - taken)


def spent(engine: Engine, settings: Settings, loop_id: str, now: int) -> int:
    """What a loop has spent, and running runs have taken, in the month of ``now``: micros of the settings' currency."""
    with reading(engine) as connection:
        c = tables.spending.c
        query = select(c.micros).where(*_of(settings, loop_id, _month(now)))
        return int(connection.scalar(query) or 0)


def _take(engine: Engine, settings: Settings, loop_id: str, month: str) -> int:
    """The most that this run may spend, taken."""
    most = round(settings.generator_budget * MICROS)
    key = {"loop_id": loop_id, "month": month, "currency": settings.generator_currency}
    with writing(engine) as connection:
        insert_new(connection, tables.spending, [key | {"micros": 0}])
        row = connection.execute(
            select(tables.spending.c.micros).where(*_of(settings, loop_id, month)).with_for_update()
        ).one()
        if settings.generator_month_budget is not None:
            most = min(most, round(settings.generator_month_budget * MICROS) - row.micros)
        if most <= 0 < settings.generator_budget:
            raise Conflict(
                f"Loop {loop_id!r} has spent its {settings.generator_month_budget:g} {settings.generator_currency} of {month}; "
                "raise REWARDLOOP_GENERATOR_MONTH_BUDGET, or wait for the next month"
            )
        _add(connection, settings, loop_id, month, most)
    return most


def _book(engine: Engine, settings: Settings, loop_id: str, month: str, micros: int) -> None:
    with writing(engine) as connection:
        _add(connection, settings, loop_id, month, micros)


def _add(connection: Connection, settings: Settings, loop_id: str, month: str, micros: int) -> None:
    changed = update(tables.spending).where(*_of(settings, loop_id, month))
    connection.execute(changed.values(micros=tables.spending.c.micros + micros))


def _of(settings: Settings, loop_id: str, month: str) -> tuple[ColumnElement[bool], ...]:
    c = tables.spending.c
    return c.loop_id == loop_id, c.month == month, c.currency == settings.generator_currency


def _month(now: int) -> str:
    return datetime.fromtimestamp(now / MICROS, UTC).strftime("%Y-%m")
