"""The running sums of contents hold whatever amounts shops have."""

from sqlalchemy import Engine, func, select

from infra import tables
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion.events import Batch
from ingestion.join.statistics import SQUARE_SPLIT
from ingestion.loops import put_loop
from ingestion.metrics import LARGEST_VALUE
from ingestion.store import apply
from tests.ingestion.join.test_join_histories import LOOP, decision, purchase, refund

PRICES = [30_000] * 200 + [LARGEST_VALUE] * 20


def squares(engine: Engine) -> int:
    """The sum of the squared revenues as the two columns hold it, in units of 1e-8."""
    stats = tables.content_stats.c
    with reading(engine) as connection:
        query = select(func.sum(stats.sum_squares), func.sum(stats.sum_squares_high)).where(stats.metric == "revenue")
        low, high = connection.execute(query).one()
    return int(low) + SQUARE_SPLIT * int(high)


def test_squares_of_large_prices_are_exact(any_engine: Engine, secrets: Secrets) -> None:
    """Hundreds of prices in yen, and the largest price there may be, are summed exactly and taken back exactly."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    people = [f"u1:{number}" for number in range(len(PRICES))]
    decisions = tuple(decision(f"d{person}", 0, unit=person) for person in people)
    orders = tuple(
        purchase(f"o{person}", 5, price, decision_id=f"d{person}", link="decision_id")
        for person, price in zip(people, PRICES, strict=True)
    )
    apply(any_engine, Batch(decisions=decisions, events=orders), secrets, 0)

    assert squares(any_engine) == sum((price * 10_000) ** 2 for price in PRICES)

    returned = tuple(refund(f"r{order.event_id}", 6, None, order.event_id) for order in orders)
    apply(any_engine, Batch(events=returned), secrets, 0)

    assert squares(any_engine) == 0
