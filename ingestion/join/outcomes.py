"""The join: decisions with their events, per content and metric, as one set-based query.

``judged`` has one row per (event, loop, metric): the event is used, or ``reason`` says why not.
``outcomes_query`` adds the used ones up. The worker restricts it to the decisions a batch touched, backfill to a
loop, training asks for it ``as_of`` an earlier batch; it is always this query.

Order of the reasons, the first that holds:

1. ``labelled``: a label says it was a bot or a test.
2. ``untrusted``: the loop does not believe its source in this (``ingestion/trust.py``).
3. ``before_activation``: its decision has not started.
4. ``outside_window``: not in start - backward_window <= occurred_at < start + window.
5. ``other_currency``: the metric has a currency and the event another or none. Where the metric says ``convert``, an amount
   counts at the rate of its time (``converting.py``), and the reasons are: ``other_currency``, it has no currency;
   ``no_rate USD/EUR``, nobody said what it was worth then; ``too_large``, more than an amount may be.
6. ``no_value``: the metric needs a value and the event has none.
7. ``same_fact``: another report of the same order or session counts; the first in (explicit before last touch,
   time, source, id).
8. ``refunded``: refunds within the refund horizon took back its whole value.
9. ``over_limit``: as many events of the customer as the metric allows in one period count already; they count in the order
   (with a token, time, source, id).

A purchase partly refunded counts with what is left. A refund without an amount takes back everything; one refund
reported twice under one fact key takes back once. Labels on an activation do not undo it.

Reason 9 compares the events of a customer, in whichever decisions of the loop they lie. So where a metric has such a limit
the decisions of one customer are judged together, and the worker asks for them together (:func:`same_customers`).
Statements of loops that limit neither sources nor customers do without all this: ``guarded`` is False. So do those that
convert nothing without rates: ``converting`` is False.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    union,
    union_all,
)

from infra.dialect import as_list, bytewise, elements, listed, member, parsed, part
from infra.tables import attributions, decisions, event_labels, events
from ingestion.events import PURCHASE, REFUND
from ingestion.join.attribution import LAST_TOUCH, REVERSAL, AsOf, all_attributions, reach_of, stamped, start_of
from ingestion.join.converting import converted, is_foreign, looked_up, reasons
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from ingestion.trust import OTHERS, TOKEN, trust_rows

EXCLUDING_LABELS = ("bot", "test")
"""Events with one of these labels are kept and not used."""

ONE = 1_000_000


def matured_at(definition: LoopDefinition, start: int) -> int:
    """When the outcome of a decision that started at ``start`` is final, in microseconds."""
    return start + definition.maturity


def judged(rules: Iterable[LoopDefinition], only: Iterable[str] | None = None, as_of: int | None = None) -> Select[Any]:
    """One row per (event, loop, metric): ``source, event_id, loop_id, method, decision_id, content_id, metric,
    metric_version, aggregate, cap, occurred_at, value, reason``.

    ``value`` is what is left of it after refunds, in millionths. ``only``: decision ids. ``as_of``: a batch number;
    None reads the attributions as the last batch left them.
    """
    definitions = list(rules)
    statement = judging(only is not None, as_of is not None, is_guarded(definitions), is_converting(definitions))
    return statement.params(parameters(definitions, only, as_of))


def outcomes_query(
    rules: Iterable[LoopDefinition], only: Iterable[str] | None = None, as_of: int | None = None
) -> Select[Any]:
    """Outcomes as in the table ``outcomes``: ``decision_id, content_id, metric, metric_version, value, count,
    first_at, last_at``. Decisions without used events, and values of 0, have no row. Arguments as in ``judged``."""
    definitions = list(rules)
    statement = joining(only is not None, as_of is not None, is_guarded(definitions), is_converting(definitions))
    return statement.params(parameters(definitions, only, as_of))


def is_guarded(rules: Iterable[LoopDefinition]) -> bool:
    """Whether one of these loops limits sources or customers."""
    return any(rule.guarded for rule in rules)


def is_converting(rules: Iterable[LoopDefinition]) -> bool:
    """Whether one of these loops counts amounts in other currencies."""
    return any(rule.converts for rule in rules)


def parameters(
    rules: Iterable[LoopDefinition], only: Iterable[str] | None = None, as_of: int | None = None
) -> dict[str, Any]:
    """Values of the parameters of ``judging`` and ``joining``."""
    definitions = list(rules)
    values: dict[str, Any] = {"metrics": _metric_rows(definitions)}
    if is_guarded(definitions):
        values["trust"] = _trust_rows(definitions)
    if only is not None:
        values["wanted"] = as_list((decision_id,) for decision_id in only)
    if as_of is not None:
        values |= {"as_of": as_of, "reach": reach_of(definitions)}
    return values


def judging(restricted: bool, at_a_batch: bool, guarded: bool = False, converting: bool = False) -> Select[Any]:
    """:func:`judged` with parameters left open: ``metrics``; ``wanted`` if restricted; ``as_of, reach`` at a batch;
    ``trust`` if guarded."""
    as_of: AsOf = bindparam("as_of", type_=BigInteger) if at_a_batch else None
    attributed = all_attributions(as_of) if at_a_batch else attributions
    wanted = listed("wanted", decision_id=Text()) if restricted else None
    decided = _decided(_checked(attributed, wanted, as_of, guarded, converting), guarded, converting)
    return _within_limits(decided, wanted) if guarded else decided


def joining(restricted: bool, at_a_batch: bool, guarded: bool = False, converting: bool = False) -> Select[Any]:
    """:func:`outcomes_query` with the parameters of :func:`judging` left open."""
    used = _in_order(judging(restricted, at_a_batch, guarded, converting).subquery("judged"))
    key = [used.c[name] for name in _KEY]
    added = (
        select(
            *key,
            cast(_aggregated(used), BigInteger).label("value"),
            cast(func.count(), Integer).label("count"),
            func.min(used.c.occurred_at).label("first_at"),
            func.max(used.c.occurred_at).label("last_at"),
            func.max(used.c.cap).label("cap"),
        )
        .group_by(*key)
        .subquery("added")
    )
    capped = case((added.c.value > added.c.cap, added.c.cap), else_=added.c.value)
    return select(
        added.c.decision_id,
        added.c.content_id,
        added.c.metric,
        added.c.metric_version,
        capped.label("value"),
        added.c["count"],
        added.c.first_at,
        added.c.last_at,
    ).where(added.c.value != 0)


def same_customers(wanted: FromClause, limited: FromClause, as_of: AsOf = None) -> CompoundSelect[Any]:
    """The wanted decisions, and all others of their customers in the same loop, if it is one of ``limited``."""
    own, other = decisions.alias("asked"), decisions.alias("theirs")
    # not the bare columns: they are to be found by id and by customer, never all those of a loop
    loop, same_loop = func.coalesce(own.c.loop_id, ""), func.coalesce(other.c.loop_id, "")
    together = (
        select(other.c.decision_id)
        .select_from(wanted)
        .join(own, own.c.decision_id == wanted.c.decision_id)
        .join(other, and_(other.c.unit == own.c.unit, same_loop == loop, stamped(other, as_of)))
        .where(loop.in_(select(limited.c.loop_id)))
    )
    return union(select(wanted.c.decision_id), together)


_KEY = ("decision_id", "content_id", "metric", "metric_version")


def _in_order(judged: FromClause) -> FromClause:
    """The used events, with their ``place`` among those of one outcome where that matters: under ``first``."""
    names = (*_KEY, "aggregate", "cap", "occurred_at", "value")
    used = (
        select(*(judged.c[name] for name in (*names, "source", "event_id")))
        .where(judged.c.reason.is_(None))
        .cte("used")
        .prefix_with("MATERIALIZED")
    )
    columns = [used.c[name] for name in names]
    place = func.row_number().over(
        partition_by=[used.c[name] for name in _KEY],
        order_by=(used.c.occurred_at, bytewise(used.c.source), bytewise(used.c.event_id)),
    )
    anyhow = select(*columns, literal(0).label("place")).where(used.c.aggregate != "first")
    in_turn = select(*columns, cast(place, Integer).label("place")).where(used.c.aggregate == "first")
    return union_all(anyhow, in_turn).subquery("ordered")


def _aggregated(used: FromClause) -> ColumnElement[Any]:
    return case(
        (func.max(used.c.aggregate) == "any", literal(ONE, BigInteger)),
        (func.max(used.c.aggregate) == "count", func.count() * ONE),
        (func.max(used.c.aggregate) == "sum", func.sum(used.c.value)),
        (func.max(used.c.aggregate) == "max", func.max(used.c.value)),
        else_=func.sum(case((used.c.place == 1, used.c.value), else_=0)),
    )


def _metric_rows(rules: list[LoopDefinition]) -> str:
    return as_list(
        (
            *(rule.loop, rule.refund_horizon, metric.name, metric.version, metric.event, metric.aggregate),
            *(metric.window, metric.backward_window, metric.cap_micros, metric.currency),
            *_limit_of(metric),
            int(metric.convert),
        )
        for rule in rules
        for metric in rule.metrics
    )


def _limit_of(metric: Metric) -> tuple[int | None, int | None]:
    limit = metric.per_unit_limit
    return (None, None) if limit is None else (limit.most, limit.per)


def _trust_rows(rules: list[LoopDefinition]) -> str:
    return as_list(
        row for rule in rules for row in trust_rows(rule.loop, rule.sources, (metric.event for metric in rule.metrics))
    )


def _trust() -> CTE:
    return listed(
        "trust",
        loop_id=Text(),
        source=Text(),
        type=Text(),
        allowed=Integer(),
        signed=Integer(),
        largest=BigInteger(),
    )


def _metrics() -> CTE:
    return listed(
        "metrics",
        loop_id=Text(),
        refund_horizon=BigInteger(),
        metric=Text(),
        metric_version=Text(),
        event=Text(),
        aggregate=Text(),
        window=BigInteger(),
        backward_window=BigInteger(),
        cap=BigInteger(),
        currency=Text(),
        limit_most=BigInteger(),
        limit_per=BigInteger(),
        converts=Integer(),
    )


_ATTRIBUTED = ("loop_id", "method", "decision_id")
_REPORTED = (
    *("source", "event_id", "type", "occurred_at", "link", "fact_key", "value_micros", "currency", "content_id"),
    "position",
)
_JUDGED = (
    *("source", "event_id", "loop_id", "method", "decision_id", "content_id"),
    *("metric", "metric_version", "aggregate", "cap", "occurred_at"),
)
_LIMITING = ("person", "limit_most", "limit_per")
_DECIDED = ("chosen", "start", "person")


def _scope(
    attributed: FromClause, wanted: CTE | None, metrics: CTE, as_of: AsOf, reported: tuple[str, ...]
) -> FromClause:
    """The attributed events to judge, with the columns ``reported``, each with its decision: those of the wanted decisions,
    and the other reports of the same facts, whose ``rival`` is true. Only types that a metric is about."""
    same = events.c.event_no == attributed.c.event_no
    if wanted is None:
        every = _started(as_of).subquery("started")
        found = attributed.join(events, same).join(every, attributed.c.decision_id == every.c.decision_id)
        return _reports(found, attributed, events, every, metrics, reported).subquery("scope")
    started = _started(as_of, wanted).cte("started").prefix_with("MATERIALIZED")
    belong = attributed.c.decision_id == started.c.decision_id
    found = started.join(attributed, belong).join(events, same)
    own = _reports(found, attributed, events, started, metrics, reported)
    mine = own.cte("own").prefix_with("MATERIALIZED")
    return union_all(select(mine), _rivals(attributed, wanted, mine, metrics, as_of, reported)).subquery("scope")


def _rivals(
    attributed: FromClause, wanted: CTE, mine: CTE, metrics: CTE, as_of: AsOf, reported: tuple[str, ...]
) -> Select[Any]:
    """Other reports of the facts in ``mine``, which belong to decisions that are not wanted."""
    keys = select(mine.c.fact_key).where(mine.c.fact_key.is_not(None)).distinct().subquery("keys")
    other, started = events.alias("other"), _started(as_of).subquery("started_elsewhere")
    same = other.c.event_no == attributed.c.event_no
    found = (
        keys.join(other, other.c.fact_key == keys.c.fact_key)
        .join(attributed, same)
        .join(started, attributed.c.decision_id == started.c.decision_id)
    )
    elsewhere = attributed.c.decision_id.not_in(select(wanted.c.decision_id))
    return _reports(found, attributed, other, started, metrics, reported, rival=True).where(elsewhere)


def _started(as_of: AsOf, wanted: CTE | None = None) -> Select[Any]:
    """Decisions, all or the wanted ones, with what they chose, their start, and whose they are: a decision without a
    customer is a person of its own."""
    found: FromClause = decisions
    if wanted is not None:
        found = wanted.join(decisions, decisions.c.decision_id == wanted.c.decision_id)
    start = start_of(decisions, as_of).label("start")
    person = func.coalesce(decisions.c.unit, literal("of ").concat(decisions.c.decision_id)).label("person")
    chosen = parsed(decisions.c.chosen).label("chosen")
    return select(decisions.c.decision_id, chosen, start, person).select_from(found)


def _reports(
    found: FromClause,
    attributed: FromClause,
    event: FromClause,
    started: FromClause,
    metrics: CTE,
    reported: tuple[str, ...],
    rival: bool = False,
) -> Select[Any]:
    return (
        select(
            *(attributed.c[name] for name in _ATTRIBUTED),
            *(event.c[name] for name in reported),
            *(started.c[name] for name in _DECIDED),
            literal(rival).label("rival"),
        )
        .select_from(found)
        .where(event.c.type.in_(select(metrics.c.event)))
    )


def _checked(attributed: FromClause, wanted: CTE | None, as_of: AsOf, guarded: bool, converting: bool) -> FromClause:
    """Reasons 1 to 6, each of which concerns an event by itself."""
    facts = _facts(attributed, wanted, as_of, guarded, converting)
    reason = case(
        (facts.c.labelled, "labelled"),
        (facts.c.untrusted, "untrusted"),
        (facts.c.start.is_(None), "before_activation"),
        (
            or_(
                facts.c.occurred_at < facts.c.start - facts.c.backward_window,
                facts.c.occurred_at >= facts.c.start + facts.c.window,
            ),
            "outside_window",
        ),
        *(reasons(facts) if converting else [(is_foreign(facts), "other_currency")]),
        (
            and_(facts.c.aggregate.not_in((literal("any"), literal("count"))), facts.c.value_micros.is_(None)),
            "no_value",
        ),
    )
    return select(facts, reason.label("reason")).subquery("checked")


def _facts(attributed: FromClause, wanted: CTE | None, as_of: AsOf, guarded: bool, converting: bool) -> CTE:
    """One row per (event, loop, metric) with all that the reasons look at, each looked up once."""
    metrics, trust = _metrics(), _trust() if guarded else None
    if guarded and wanted is not None:
        wanted = same_customers(wanted, _limiting(metrics), as_of).cte("together").prefix_with("MATERIALIZED")
    event = _scope(attributed, wanted, metrics, as_of, (*_REPORTED, *(("reverses",) if converting else ())))
    kept = ("occurred_at", "fact_key", "value_micros", "currency", "start", "person", "rival")
    return (
        select(
            *(event.c[name] for name in ("source", "event_id", *_ATTRIBUTED, *kept)),
            *(metrics.c[name] for name in ("metric", "metric_version", "aggregate", "cap", "window")),
            *(metrics.c[name] for name in ("backward_window", "limit_most", "limit_per")),
            metrics.c.currency.label("metric_currency"),
            *((metrics.c.converts, looked_up(event, metrics, as_of).label("rate")) if converting else ()),
            _content_of(event).label("content_id"),
            is_labelled(event, as_of).label("labelled"),
            _is_untrusted(event, event, trust).label("untrusted"),
            _taken_back(event, metrics, as_of, trust).label("taken_back"),
        )
        .select_from(event)
        .join(metrics, and_(metrics.c.loop_id == event.c.loop_id, metrics.c.event == event.c.type))
        .cte("facts")
        .prefix_with("MATERIALIZED")
    )


def _decided(checked: FromClause, guarded: bool, converting: bool) -> Select[Any]:
    """Reasons 7 and 8, of which 7 compares the reports of one fact: only these need an order."""
    rank = func.row_number().over(
        partition_by=(checked.c.loop_id, checked.c.metric, checked.c.fact_key, checked.c.reason.is_(None)),
        order_by=(
            checked.c.method.in_((literal(LAST_TOUCH), literal(REVERSAL))),
            checked.c.occurred_at,
            bytewise(checked.c.source),
            bytewise(checked.c.event_id),
        ),
    )
    alone = select(checked, literal(1).label("rank")).where(checked.c.fact_key.is_(None))
    reported = select(checked, cast(rank, Integer).label("rank")).where(checked.c.fact_key.is_not(None))
    ranked = union_all(alone, reported).subquery("ranked")
    reason = case(
        (ranked.c.reason.is_not(None), ranked.c.reason),
        (ranked.c.rank > 1, "same_fact"),
        (ranked.c.taken_back >= func.coalesce(ranked.c.value_micros, 0), "refunded"),
    )
    left = ranked.c.value_micros - func.coalesce(ranked.c.taken_back, 0)
    return select(
        *(ranked.c[name] for name in _JUDGED),
        *(ranked.c[name] for name in (_LIMITING if guarded else ())),
        (converted(ranked, left) if converting else left).label("value"),
        reason.label("reason"),
    ).where(ranked.c.rival.is_(False))


def _within_limits(judged: Select[Any], wanted: CTE | None) -> Select[Any]:
    """Reason 9, which compares the events of one customer; then only the wanted decisions are left."""
    decided = judged.cte("decided").prefix_with("MATERIALIZED")
    counts = and_(decided.c.reason.is_(None), decided.c.limit_most.is_not(None))
    place = func.row_number().over(
        partition_by=[
            decided.c.loop_id,
            decided.c.metric,
            decided.c.person,
            decided.c.occurred_at // decided.c.limit_per,
        ],
        order_by=(
            decided.c.method != literal(TOKEN),
            decided.c.occurred_at,
            bytewise(decided.c.source),
            bytewise(decided.c.event_id),
        ),
    )
    free = select(decided, literal(0).label("place")).where(~counts)
    limited = select(decided, cast(place, Integer).label("place")).where(counts)
    placed = union_all(free, limited).subquery("placed")
    reason = case((placed.c.reason.is_not(None), placed.c.reason), (placed.c.place > placed.c.limit_most, "over_limit"))
    final = select(*(placed.c[name] for name in (*_JUDGED, "value")), reason.label("reason"))
    return final if wanted is None else final.where(placed.c.decision_id.in_(select(wanted.c.decision_id)))


def _limiting(metrics: CTE) -> FromClause:
    """Loops in which a metric limits customers."""
    return select(metrics.c.loop_id).where(metrics.c.limit_most.is_not(None)).distinct().subquery("limiting")


def _is_untrusted(event: Any, loop: FromClause, trust: CTE | None) -> ColumnElement[bool]:
    """Whether the loop does not believe this source in this: what it says of the source itself, else of all others."""
    if trust is None:
        return false()
    too_large = func.coalesce(event.c.value_micros, 0) > trust.c.largest
    unsigned = and_(trust.c.signed == 1, func.coalesce(event.c.link, "") != literal(TOKEN))
    refused = case((or_(trust.c.allowed == 0, unsigned, too_large), 1), else_=0)
    said = (
        select(refused)
        .where(
            trust.c.loop_id == loop.c.loop_id,
            trust.c.type == event.c.type,
            trust.c.source.in_((event.c.source, literal(OTHERS))),
        )
        .order_by(trust.c.source == literal(OTHERS))
        .limit(1)
        .correlate(event, loop)
        .scalar_subquery()
    )
    return func.coalesce(said, 0) == 1


def _content_of(event: Any) -> ColumnElement[str]:
    """The content of its slate an event is about: the one it names, else the one at its position, else the first.
    Where only one was chosen, it is that one whatever the event says."""
    only = part(member(event.c.chosen, 0), "content_id")
    placement = elements(event.c.chosen, "placement")
    content_id = part(placement.c.value, "content_id")
    position = part(placement.c.value, "position", Integer())
    nearness = case((content_id == event.c.content_id, 0), (position == event.c.position, 1), else_=2)
    placed = (
        select(content_id.label("content_id"), position.label("position"), nearness.label("nearness"))
        .select_from(placement)
        .correlate(event)
        .subquery("placed")
    )
    nearest = select(placed.c.content_id).order_by(placed.c.nearness, placed.c.position).limit(1)
    among_several = nearest.correlate(event).scalar_subquery()
    return case((member(event.c.chosen, 1).is_(None), only), else_=among_several)


def is_labelled(event: Any, as_of: AsOf) -> ColumnElement[bool]:
    """Whether the latest word about one of the excluding labels puts it on the event."""
    word, later = event_labels.alias("word"), event_labels.alias("later")
    taken_back = select(later.c.label).where(
        later.c.source == word.c.source,
        later.c.event_id == word.c.event_id,
        later.c.label == word.c.label,
        later.c.labelled_at > word.c.labelled_at,
        stamped(later, as_of),
    )
    return (
        select(word.c.label)
        .where(
            word.c.source == event.c.source,
            word.c.event_id == event.c.event_id,
            word.c.label.in_([literal(label) for label in EXCLUDING_LABELS]),
            word.c.applies.is_(True),
            stamped(word, as_of),
            ~taken_back.correlate(word).exists(),
        )
        .correlate(event)
        .exists()
    )


def _taken_back(event: Any, metrics: CTE, as_of: AsOf, trust: CTE | None) -> ColumnElement[int]:
    """What refunds took back from a purchase, in micros; NULL without any."""
    refund = events.alias("refund_of")
    nameless = or_(refund.c.fact_key.is_(None), refund.c.fact_key == refund.c.reverses)
    each = (
        select(func.max(func.coalesce(refund.c.value_micros, event.c.value_micros, 0)).label("amount"))
        .where(
            refund.c.reverses == event.c.fact_key,
            refund.c.type == REFUND,
            refund.c.currency.is_not_distinct_from(event.c.currency),
            refund.c.occurred_at <= event.c.occurred_at + metrics.c.refund_horizon,
            stamped(refund, as_of),
            ~is_labelled(refund, as_of),
            *(() if trust is None else (~_is_untrusted(refund, metrics, trust),)),
        )
        .group_by(
            case((nameless, refund.c.source), else_=""), case((nameless, refund.c.event_id), else_=refund.c.fact_key)
        )
        .correlate(event, metrics)
        .subquery("refunds")
    )
    amount = select(func.sum(each.c.amount)).correlate(event, metrics).scalar_subquery()
    return case((event.c.type == PURCHASE, amount))
