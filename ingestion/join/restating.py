"""New rates, and what they change: outcomes of every decision with an amount that another rate holds for now.

``import_rates`` is one transaction and one batch, under the join lock:

1. what the table says already is left; with nothing new nothing happens
2. the new words are stored under the next ``batch_no``
3. *spans*: from each new word's time until the next time of its two currencies
4. the events in those spans, of types that a converting metric counts, in one of the currencies; every refund that names its
   purchase, whose time decides; then the other reports of the same facts: one that can be used now may take their place
5. the decisions these belong to, and where customers are limited their customers' others, are joined anew, some at a time, by
   the same query; outcomes and sums move by the difference
6. the ledger and the audit are told

So what is stored is what the join says of all facts and all rates, whichever came first. Rates touch no attribution, and no
sealed decision.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, Engine, Select, Text, and_, or_, select, union

from infra.database import chunks, lock_join, search_by_keys, writing
from infra.dialect import as_list, listed, prepared
from infra.errors import BadInput
from infra.tables import attributions, events
from ingestion import audit
from ingestion.exchange import MOST, Rate, keep_rates, known_rates, unknown_rates
from ingestion.fields import storable
from ingestion.join.attribution import is_reversal, stamped
from ingestion.join.rejoin import Rules, refresh, with_those_of_their_customers
from ingestion.join.seals import horizon_of, open_decisions
from ingestion.ledger import Counts, newest_batch, record_batch
from ingestion.loops import LoopDefinition, load_loops

SOME = 20_000
"""Decisions that are joined anew together."""

_FOR_EVER = 2**62


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did. ``batch_no``: null where nothing was new; ``restated``: decisions that were joined anew, and
    ``loops``: those in which amounts are converted."""

    new: int
    known: int
    restated: int = 0
    batch_no: int | None = None
    loops: tuple[str, ...] = ()


def import_rates(engine: Engine, rates: Sequence[Rate], source: str, actor: str, now: int) -> Imported:
    """Store rates and restate what they change; the same again changes nothing.

    ``rates``: each time of two currencies once, sorted. Raises :class:`BadInput`, ``Unavailable``.
    """
    _check(rates, source)
    with writing(engine) as connection:
        lock_join(connection)
        rules = {loop_id: definition for loop_id, (definition, _) in load_loops(connection).items()}
        converting = tuple(sorted(loop_id for loop_id, rule in rules.items() if rule.converts))
        new = unknown_rates(connection, rates)
        if not new:
            return Imported(new=0, known=len(rates), loops=converting)
        batch_no = newest_batch(connection) + 1
        keep_rates(connection, new, batch_no, source, actor, now)
        restated = _restate(connection, rules, batch_no, new)
        counts = Counts(read=len(rates), applied=len(new), duplicate=len(rates) - len(new))
        record_batch(connection, batch_no, now, counts)
        details = {"new": len(new), "batch_no": batch_no, "restated": restated, "pairs": _pairs(new)}
        audit.record(connection, actor, "import_rates", source, details, now)
    return Imported(new=len(new), known=len(rates) - len(new), restated=restated, batch_no=batch_no, loops=converting)


def _check(rates: Sequence[Rate], source: str) -> None:
    if len(rates) > MOST:
        raise BadInput(f"There are {len(rates):,} rates; import at most {MOST:,} at once")
    try:
        fits = 0 < len(storable(source)) <= 256
    except ValueError:
        fits = False
    if not fits:
        raise BadInput("The source has 1 to 256 characters that every database keeps; correct it")


def _pairs(rates: Iterable[Rate]) -> list[str]:
    """The first hundred pairs of currencies, as the audit names them."""
    return sorted({f"{rate.from_currency}/{rate.to_currency}" for rate in rates})[:100]


def _restate(connection: Connection, rules: Rules, batch_no: int, new: Sequence[Rate]) -> int:
    """Join anew what the new rates concern; returns how many decisions."""
    measured = _measured(rules.values(), new)
    if not measured:
        return 0
    spans = as_list(_spans(connection, new))
    concerned = set(_concerned(connection, spans=spans, measured=as_list(measured)).scalars())
    search_by_keys(connection)
    horizon = horizon_of(connection)
    due = sorted(open_decisions(connection, with_those_of_their_customers(connection, rules, concerned), horizon))
    for some in chunks(due, SOME):
        refresh(connection, rules, batch_no, set(), set(some), horizon)
    return len(due)


def _measured(rules: Iterable[LoopDefinition], new: Sequence[Rate]) -> list[tuple[str, str, str]]:
    """Loop, type of event and currency of the metrics that convert to one of the new rates' currencies."""
    wanted = {rate.to_currency for rate in new}
    found = {
        (rule.loop, metric.event, metric.currency)
        for rule in rules
        for metric in rule.metrics
        if metric.convert and metric.currency in wanted
    }
    return sorted(found)


def _spans(connection: Connection, new: Sequence[Rate]) -> list[tuple[str, str, int, int]]:
    """From when until when an amount of these currencies takes one of the new rates; what meets is one span."""
    changed: dict[tuple[str, str], set[int]] = {}
    for rate in new:
        changed.setdefault(rate[:2], set()).add(rate.valid_from)
    found: list[tuple[str, str, int, int]] = []
    for pair, starts in sorted(changed.items()):
        times = [word.valid_from for word in known_rates(connection, *pair)]
        for since, until in zip(times, [*times[1:], _FOR_EVER], strict=True):
            if since not in starts:
                continue
            if found and found[-1][:2] == pair and found[-1][3] == since:
                found[-1] = (*pair, found[-1][2], until)
            else:
                found.append((*pair, since, until))
    return found


@prepared
def _concerned() -> Select[Any]:
    """Decisions with an event that a new rate holds for, or another report of its fact."""
    spans = listed("spans", from_currency=Text(), to_currency=Text(), since=BigInteger(), until=BigInteger())
    measured = listed("measured", loop_id=Text(), type=Text(), to_currency=Text())
    within = and_(events.c.occurred_at >= spans.c.since, events.c.occurred_at < spans.c.until)
    hit = (
        select(events.c.event_no, events.c.fact_key, measured.c.loop_id)
        .select_from(
            events.join(spans, and_(spans.c.from_currency == events.c.currency, or_(within, is_reversal(events)))).join(
                measured, and_(measured.c.to_currency == spans.c.to_currency, measured.c.type == events.c.type)
            )
        )
        .where(stamped(events, None))
        .distinct()
        .cte("hit")
        .prefix_with("MATERIALIZED")
    )
    other = events.alias("other")
    tied = union(
        select(hit.c.event_no, hit.c.loop_id),
        select(other.c.event_no, hit.c.loop_id).select_from(hit.join(other, other.c.fact_key == hit.c.fact_key)),
    ).subquery("tied")
    belongs = and_(attributions.c.event_no == tied.c.event_no, attributions.c.loop_id == tied.c.loop_id)
    return select(attributions.c.decision_id).select_from(tied.join(attributions, belongs)).distinct()
