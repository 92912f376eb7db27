"""Which decision an event belongs to, per loop: invariant 5 as expressions over the stored facts.

1. *explicit*: the event names its decision (``decision_id``, or a ``token`` that did); it belongs to that decision,
   in that decision's loop only.
2. *last touch*: no decision named, but a unit: in every loop the latest decision of that unit whose start lies
   within the loop's reach before the event, or its tolerance after it.
3. *reversal*: a refund belongs where the purchase it reverses belongs.

A decision starts with its first activation, else when it was decided; a deferred decision without one never starts.
Only stamped facts are read (``batch_no``, up to ``as_of``) and never ``received_at``. Ties break by time, source, id,
and never by an event's number, which depends on who came first.
"""

from collections.abc import Iterable

from sqlalchemy import (
    CTE,
    BigInteger,
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    String,
    Text,
    and_,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)

from infra.dialect import as_list, bytewise, listed
from infra.tables import attributions, decisions, events
from ingestion.events import ACTIVATION, PURCHASE, REFUND, Event
from ingestion.loops import LoopDefinition

COLUMNS = ("event_no", "loop_id", "method", "decision_id")
"""Of ``attributions``, and of every select here that stands in for it."""

Attributed = Select[tuple[int, str, str, str]]
"""A select of ``COLUMNS``."""

LAST_TOUCH = "last_touch"
REVERSAL = "reversal"


AsOf = int | BindParameter[int] | None
"""A batch number, or a parameter for one; None: everything stamped."""


def stamped(facts: FromClause, as_of: AsOf) -> ColumnElement[bool]:
    """Facts that a batch has counted, up to and with batch ``as_of``."""
    batch_no = facts.c.batch_no
    return batch_no.is_not(None) if as_of is None else batch_no <= as_of


def method_of(event: Event) -> str:
    """How an event is attributed, if it is: ``method`` of its attributions."""
    if event.type == REFUND and event.reverses is not None:
        return REVERSAL
    return LAST_TOUCH if event.decision_id is None else event.link or "decision_id"


def is_reversal(event: FromClause) -> ColumnElement[bool]:
    """A refund that names what it takes back."""
    return and_(event.c.type == REFUND, event.c.reverses.is_not(None))


def names_no_decision(event: FromClause) -> ColumnElement[bool]:
    """Events to be attributed by their unit. Not ``IS NULL``, which SQLite might look for in an index of all events
    instead of by the few keys at hand."""
    return func.coalesce(event.c.decision_id, "") == ""


def is_activation(event: FromClause) -> ColumnElement[bool]:
    """Spelled out, not a parameter: so the database sees that its small index of activations will do."""
    return event.c.type == literal_column(f"'{ACTIVATION}'")


def first_activation(decision: FromClause, as_of: AsOf) -> ColumnElement[int]:
    """When a decision was first activated; NULL if it never was."""
    activation = events.alias("activation")
    found = select(func.min(activation.c.occurred_at)).where(
        activation.c.decision_id == decision.c.decision_id,
        is_activation(activation),
        stamped(activation, as_of),
    )
    return found.correlate(decision).scalar_subquery()


def start_of(decision: FromClause, as_of: AsOf = None) -> ColumnElement[int]:
    """When a decision starts to count, in microseconds; NULL for a deferred decision that was not activated."""
    return func.coalesce(
        first_activation(decision, as_of), case((decision.c.deferred.is_(False), decision.c.decided_at))
    )


def reach_of(rules: Iterable[LoopDefinition]) -> str:
    """The value of the parameter ``reach``: how far an event looks for its decision, per loop."""
    return as_list((rule.loop, rule.reach, rule.tolerance) for rule in rules)


def all_attributions(as_of: AsOf = None) -> CTE:
    """Every attribution of every event in the loops of ``reach``, computed from the facts alone."""
    direct = direct_attributions(as_of).cte("direct")
    return union_all(select(direct), reversals(direct, as_of)).cte("attributed")


def direct_attributions(as_of: AsOf = None) -> Attributed:
    """Attributions of all events but reversals."""
    reach = _reach()
    direct = and_(~is_reversal(events), stamped(events, as_of))
    by_unit = and_(names_no_decision(events), direct)
    return _both(_explicit(reach, as_of, events, direct), _last_touch(reach, as_of, events, by_unit))


def attributions_at_hand() -> Attributed:
    """The same of events that need not be looked up: those that name a decision are in the parameter ``named``, the
    others, if they have a unit, in ``unnamed``."""
    reach = _reach()
    named = listed("named", event_no=BigInteger(), decision_id=Text(), link=Text())
    unnamed = listed("unnamed", event_no=BigInteger(), unit=Text(), unit_before=Text(), occurred_at=BigInteger())
    return _both(_explicit(reach, None, named, true()), _last_touch(reach, None, unnamed, true()))


def _reach() -> CTE:
    return listed("reach", loop_id=Text(), reach=BigInteger(), tolerance=BigInteger())


def _both(explicit: Attributed, last_touch: Attributed) -> Attributed:
    direct = union_all(explicit, last_touch).subquery("attributed_directly")
    return select(*(direct.c[name] for name in COLUMNS))


def reversals(direct: FromClause, as_of: AsOf = None, only: FromClause | None = None) -> Attributed:
    """Attributions of refunds, taken over from ``direct``; of two reports of one purchase the first in
    (explicit before last touch, time, source, id) leads."""
    refund, purchase = events.alias("refund"), events.alias("purchase")
    rank = func.row_number().over(
        partition_by=(refund.c.event_no, direct.c.loop_id),
        order_by=(
            direct.c.method == LAST_TOUCH,
            purchase.c.occurred_at,
            bytewise(purchase.c.source),
            bytewise(purchase.c.event_id),
        ),
    )
    found = (
        select(
            refund.c.event_no,
            direct.c.loop_id,
            literal(REVERSAL, String).label("method"),
            direct.c.decision_id,
            rank.label("rank"),
        )
        .select_from(_among(refund, only))
        .join(purchase, and_(purchase.c.fact_key == refund.c.reverses, purchase.c.type == PURCHASE))
        .join(direct, direct.c.event_no == purchase.c.event_no)
        .where(is_reversal(refund), stamped(refund, as_of), stamped(purchase, as_of))
        .subquery()
    )
    return select(*(found.c[name] for name in COLUMNS)).where(found.c.rank == 1)


def unattributed(query: Attributed) -> Attributed:
    """What a select of attributions says of events and loops that have none yet."""
    said, stored = query.subquery("said"), attributions.alias("stored")
    known = select(stored.c.event_no).where(stored.c.event_no == said.c.event_no, stored.c.loop_id == said.c.loop_id)
    return select(*(said.c[name] for name in COLUMNS)).where(~known.correlate(said).exists())


def _explicit(reach: CTE, as_of: AsOf, event: FromClause, these: ColumnElement[bool]) -> Attributed:
    return (
        select(
            event.c.event_no,
            decisions.c.loop_id,
            func.coalesce(event.c.link, literal("decision_id", String)).label("method"),
            decisions.c.decision_id,
        )
        .select_from(event)
        .join(decisions, decisions.c.decision_id == event.c.decision_id)
        .join(reach, reach.c.loop_id == _loop_of(decisions))
        .where(these, stamped(decisions, as_of))
    )


def _last_touch(reach: CTE, as_of: AsOf, event: FromClause, these: ColumnElement[bool]) -> Attributed:
    near = _near(reach, as_of, event, these)
    rank = func.row_number().over(
        partition_by=(near.c.event_no, near.c.loop_id),
        order_by=(near.c.start.desc(), bytewise(near.c.decision_id).desc()),
    )
    found = (
        select(near, literal(LAST_TOUCH, String).label("method"), rank.label("rank"))
        .where(near.c.start <= near.c.latest, near.c.start > near.c.earliest)
        .subquery()
    )
    return select(*(found.c[name] for name in COLUMNS)).where(found.c.rank == 1)


def _near(reach: CTE, as_of: AsOf, event: FromClause, these: ColumnElement[bool]) -> CTE:
    """These events, which name no decision, with those of their unit that may have started near enough: they were decided
    there, or they were activated, whenever that was."""
    latest = (event.c.occurred_at + reach.c.tolerance).label("latest")
    earliest = (event.c.occurred_at - reach.c.reach).label("earliest")
    decided_near = and_(decisions.c.decided_at <= latest.element, decisions.c.decided_at > earliest.element)
    return (
        select(
            event.c.event_no,
            decisions.c.loop_id,
            decisions.c.decision_id,
            start_of(decisions, as_of).label("start"),
            earliest,
            latest,
        )
        .select_from(event)
        .join(decisions, decisions.c.unit.in_((event.c.unit, event.c.unit_before)))
        .join(reach, reach.c.loop_id == _loop_of(decisions))
        .where(
            these,
            stamped(decisions, as_of),
            or_(decided_near, first_activation(decisions, as_of).is_not(None)),
        )
        .cte("near")
        .prefix_with("MATERIALIZED")
    )


def _loop_of(decision: FromClause) -> ColumnElement[str]:
    """Not the bare column: decisions are to be found by the event's keys, never all those of a loop."""
    return func.coalesce(decision.c.loop_id, "")


def _among(event: FromClause, only: FromClause | None) -> FromClause:
    """All events, or ``only`` these, looked up by their numbers."""
    return event if only is None else only.join(event, event.c.event_no == only.c.event_no)
