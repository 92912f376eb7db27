"""A customer's sends and purchases, in order: what send attribution is computed from.

    load_journeys(connection, definition, metric, key) -> Journeys       path_of(journey, purchase, lookback) -> touches
    ended(journeys, lookback) -> paths, each with or without a purchase at its end

A touch is a decision that was really sent (``start_of``), with the content at its first position; ``no_send`` is none.
Purchases are all of a customer's, joined or not: what a rule of the join has credited already would decide the question.
What is no fact about the customer stays out, as in ``assignment.py``; so do customers who asked to be forgotten.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, select

from infra.tables import decisions, forgotten_units
from ingestion.events import NO_SEND
from ingestion.join.attribution import start_of
from ingestion.join.outcomes import ONE
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from reward_models.assignment import Register, load_register

Key = Literal["campaign", "content"]
"""What sends are compared by."""

_CHUNK = 5_000


class Touch(NamedTuple):
    """A send. ``key``: its campaign or content; ``at``: microseconds."""

    decision_id: str
    key: str
    at: int


class Purchase(NamedTuple):
    """What somebody bought, in the metric's unit; ``at``: microseconds."""

    at: int
    value: float


class Journey(NamedTuple):
    """Sends and purchases of one customer, each in order of time."""

    unit: str
    touches: tuple[Touch, ...]
    purchases: tuple[Purchase, ...]


class Path(NamedTuple):
    """The keys of sends one after the other, and whether a purchase ended them."""

    keys: tuple[str, ...]
    bought: bool


def path_of(journey: Journey, purchase: Purchase, lookback: int) -> list[Touch]:
    """The sends of the ``lookback`` microseconds up to a purchase, in order."""
    return [touch for touch in journey.touches if purchase.at - lookback < touch.at <= purchase.at]


def ended(journeys: Iterable[Journey], lookback: int) -> Iterator[Path]:
    """Journeys cut at their purchases: sends since the one before and within the lookback; what is left over bought
    nothing. A purchase without sends ends no path."""
    for journey in journeys:
        since = -1
        for purchase in journey.purchases:
            keys = tuple(touch.key for touch in path_of(journey, purchase, lookback) if touch.at > since)
            since = purchase.at
            if keys:
                yield Path(keys, True)
        if rest := tuple(touch.key for touch in journey.touches if touch.at > since):
            yield Path(rest, False)


def load_journeys(
    connection: Connection, definition: LoopDefinition, metric: str, key: Key = "campaign", since: int = 0
) -> list[Journey]:
    """Everybody the loop decided on from ``since`` on (microseconds), with their events of the metric; who was sent nothing
    has no touches."""
    touches = _touches(connection, definition.loop, key, since)
    purchases = _purchases(load_register(connection, definition), definition.metric(metric), since)
    return [Journey(unit, tuple(sent), tuple(purchases.get(unit, ()))) for unit, sent in sorted(touches.items())]


def _touches(connection: Connection, loop_id: str, key: Key, since: int) -> Mapping[str, Sequence[Touch]]:
    c, start = decisions.c, start_of(decisions).label("start")
    query = (
        select(c.unit, c.decision_id, c.campaign_id, c.chosen, start)
        .where(
            c.loop_id == loop_id,
            c.unit.is_not(None),
            c.batch_no.is_not(None),
            c.unit.not_in(select(forgotten_units.c.unit)),
        )
        .order_by(c.unit, start, c.decision_id)
    )
    found: dict[str, list[Touch]] = defaultdict(list)
    for row in connection.execution_options(yield_per=_CHUNK).execute(query):
        if row.start is None or row.start < since:
            continue
        content, sent = _first(row.chosen), found[row.unit]
        if content != NO_SEND:
            sent.append(Touch(row.decision_id, row.campaign_id if key == "campaign" else content, int(row.start)))
    return found


def _first(chosen: Sequence[Mapping[str, Any]]) -> str:
    return str(min(chosen, key=lambda placement: placement["position"])["content_id"]) if chosen else NO_SEND


def _purchases(register: Register, metric: Metric, since: int) -> Mapping[str, Sequence[Purchase]]:
    """By customer, in order; what was refunded in full is none."""
    counted = metric.aggregate in ("any", "count")
    found: dict[str, list[Purchase]] = defaultdict(list)
    for (unit, name), groups in register.deeds.items():
        if name == metric.name:
            bought = (
                Purchase(deed.occurred_at, 1.0 if counted else deed.value / ONE) for deeds in groups for deed in deeds
            )
            found[unit] += [one for one in bought if one.at >= since and one.value > 0.0]
    return {unit: sorted(bought) for unit, bought in found.items()}
