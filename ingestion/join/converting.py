"""Amounts in another currency than the metric's, where the metric says ``convert``: which rate holds, as expressions.

An amount is converted at the rate that was valid when its event happened; a refund that names its purchase at the rate of
that purchase. What is left of a purchase after refunds in its own currency is converted as one amount, rounded half up
to the millionth, so a full refund leaves exactly nothing. Of two words about one time the newest batch's holds; ``as_of`` an
earlier batch the rates are those of that batch. Rates are not chained and not turned round: what is not in the table is not
known.

A rate is looked up for foreign amounts only (``case`` in ``infra/exact.py``'s company: both databases evaluate the branch
they take), and statements of loops that convert nothing do not mention rates.
"""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, case, func, literal, or_, select

from infra.exact import scaled
from infra.tables import events, exchange_rates
from ingestion.events import PURCHASE
from ingestion.join.attribution import AsOf, is_reversal, stamped


def rate_of(event: FromClause, to_currency: ColumnElement[Any], as_of: AsOf) -> ColumnElement[int]:
    """What one unit of the event's currency was worth when it happened, in trillionths; NULL where nobody said."""
    c = exchange_rates.c
    at = case(
        (is_reversal(event), func.coalesce(_bought_at(event, as_of), event.c.occurred_at)), else_=event.c.occurred_at
    )
    return (
        select(c.rate)
        .where(
            c.from_currency == event.c.currency,
            c.to_currency == to_currency,
            c.valid_from <= at,
            stamped(exchange_rates, as_of),
        )
        .order_by(c.valid_from.desc(), c.batch_no.desc())
        .limit(1)
        .correlate_except(exchange_rates)
        .scalar_subquery()
    )


def _bought_at(refund: FromClause, as_of: AsOf) -> ColumnElement[int]:
    """When the purchase was made that a refund takes back, by its earliest report."""
    bought = events.alias("bought")
    found = select(func.min(bought.c.occurred_at)).where(
        bought.c.fact_key == refund.c.reverses, bought.c.type == PURCHASE, stamped(bought, as_of)
    )
    return found.correlate_except(bought).scalar_subquery()


def is_foreign(facts: FromClause) -> ColumnElement[bool]:
    """The metric has a currency, and the amount another or none."""
    return and_(facts.c.metric_currency.is_not(None), func.coalesce(facts.c.currency, "") != facts.c.metric_currency)


def looked_up(event: FromClause, metrics: FromClause, as_of: AsOf) -> ColumnElement[int]:
    """The rate of an amount that is to be converted; NULL for all others."""
    wanted = and_(metrics.c.converts == 1, event.c.currency != metrics.c.currency)
    return case((wanted, rate_of(event, metrics.c.currency, as_of)))


def reasons(facts: FromClause) -> list[tuple[ColumnElement[bool], Any]]:
    """Why an amount in another currency is not used, where amounts are converted; the first that holds."""
    foreign = is_foreign(facts)
    missing = literal("no_rate ").concat(facts.c.currency).concat("/").concat(facts.c.metric_currency)
    outgrown = and_(facts.c.value_micros.is_not(None), scaled(facts.c.value_micros, facts.c.rate).is_(None))
    return [
        (and_(foreign, or_(facts.c.converts == 0, facts.c.currency.is_(None))), "other_currency"),
        (and_(foreign, facts.c.rate.is_(None)), missing),
        (and_(foreign, outgrown), "too_large"),
    ]


def converted(facts: FromClause, left: ColumnElement[int]) -> ColumnElement[int]:
    """What is ``left`` of an amount, in the metric's currency; NULL where it is to be converted and there is no rate."""
    foreign = and_(facts.c.converts == 1, is_foreign(facts))
    return case((foreign, scaled(case((left > 0, left), else_=0), facts.c.rate)), else_=left)
