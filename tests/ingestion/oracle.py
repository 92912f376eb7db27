"""The join once more, in plain Python over lists of facts: slow, readable, and without a line of the product's SQL.

What the property tests hold the store against. It shares the types of the facts and the definitions, nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from ingestion.events import Decision, Event, Label
from ingestion.exchange import Rate
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric

DAY = 86_400_000_000


@dataclass
class Truth:
    """Rows of the three tables, sorted, as tuples in the order of their columns."""

    attributions: list[tuple[Any, ...]]
    outcomes: list[tuple[Any, ...]]
    content_stats: list[tuple[Any, ...]]


@dataclass
class World:
    """All facts, each once."""

    loops: dict[str, LoopDefinition]
    decisions: dict[str, Decision] = field(default_factory=dict)
    events: dict[tuple[str, str], Event] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    """In the order in which they were said."""

    def truth(self) -> Truth:
        """What any order of arrival must lead to."""
        attributions = self._attributions()
        used = [
            use
            for loop in self.loops.values()
            for metric in loop.metrics
            for use in self._used(loop, metric, attributions)
        ]
        outcomes = _outcomes(used)
        return Truth(
            sorted((*key, loop, method, decision) for key, loop, method, decision in attributions),
            outcomes,
            self._stats(outcomes),
        )

    def start(self, decision: Decision) -> int | None:
        """First activation, else when decided; None for a deferred decision without one."""
        activations = [
            event.occurred_at
            for event in self.events.values()
            if event.type == "activation" and event.decision_id == decision.decision_id
        ]
        if activations:
            return min(activations)
        return None if decision.deferred else decision.decided_at

    def _attributions(self) -> list[tuple[tuple[str, str], str, str, str]]:
        direct = [
            (key, *found) for key, event in self.events.items() if not _reverses(event) for found in self._direct(event)
        ]
        return direct + [
            (key, *found)
            for key, event in self.events.items()
            if _reverses(event)
            for found in self._reversed(event, direct)
        ]

    def _direct(self, event: Event) -> Iterable[tuple[str, str, str]]:
        if event.decision_id is not None:
            decision = self.decisions.get(event.decision_id)
            if decision is not None:
                yield decision.loop_id, event.link or "decision_id", decision.decision_id
            return
        for loop in self.loops.values():
            touches = [
                (start, decision.decision_id)
                for decision in self.decisions.values()
                if decision.loop_id == loop.loop
                and decision.unit is not None
                and decision.unit in (event.unit, event.unit_before)
                and (start := self.start(decision)) is not None
                and event.occurred_at - loop.reach < start <= event.occurred_at + loop.tolerance
            ]
            if touches:
                yield loop.loop, "last_touch", max(touches)[1]

    def _reversed(self, refund: Event, direct: Sequence[tuple[Any, ...]]) -> Iterable[tuple[str, str, str]]:
        reports = defaultdict(list)
        for key, loop, method, decision in direct:
            purchase = self.events[key]
            if purchase.type == "purchase" and purchase.fact_key == refund.reverses:
                reports[loop].append((method == "last_touch", purchase.occurred_at, key, decision))
        for loop, found in reports.items():
            yield loop, "reversal", min(found)[3]

    def _labelled(self, event: Event) -> bool:
        words: dict[str, Label] = {}
        for label in sorted(self.labels, key=lambda label: label.labelled_at):
            if (label.source, label.event_id) == (event.source, event.event_id):
                words[label.label] = label
        return any(words[name].applies for name in ("bot", "test") if name in words)

    def _used(self, loop: LoopDefinition, metric: Metric, attributions: Sequence[tuple[Any, ...]]) -> list["Use"]:
        usable = [
            (method in ("last_touch", "reversal"), self.events[key].occurred_at, key, decision, method == "token")
            for key, owner, method, decision in attributions
            if owner == loop.loop and self._usable(loop, metric, self.events[key], self.decisions[decision])
        ]
        used, seen = [], set()
        for _, _, key, decision_id, signed in sorted(usable):
            event = self.events[key]
            if event.fact_key is not None and event.fact_key in seen:
                continue
            seen.add(event.fact_key)
            refunds = self._refunds(event, loop)
            if refunds is None or refunds < (event.value_micros or 0):
                content = _content(self.decisions[decision_id], event)
                left = None if event.value_micros is None else event.value_micros - (refunds or 0)
                value = left if event.currency == metric.currency else self._converted(metric, event, left)
                used.append(Use(decision_id, content, metric, event, value, signed))
        return self._within_limit(metric, used)

    def _within_limit(self, metric: Metric, used: list["Use"]) -> list["Use"]:
        limit = metric.per_unit_limit
        if limit is None:
            return used
        together = defaultdict(list)
        for use in used:
            decision = self.decisions[use.decision_id]
            person = decision.unit or ("nobody known", decision.decision_id)
            together[person, use.event.occurred_at // limit.per].append(use)
        kept = []
        for uses in together.values():
            uses.sort(key=lambda use: (not use.signed, use.event.occurred_at, use.event.source, use.event.event_id))
            kept += uses[: limit.most]
        return kept

    def _believed(self, loop: LoopDefinition, event: Event) -> bool:
        word = loop.sources.get(event.source) or loop.sources.get("*")
        if word is None:
            return True
        if word.types is not None and event.type not in word.types:
            return False
        if word.largest is not None and (event.value_micros or 0) > word.largest * 1_000_000:
            return False
        return word.trusted or event.link == "token"

    def _usable(self, loop: LoopDefinition, metric: Metric, event: Event, decision: Decision) -> bool:
        start = self.start(decision)
        return (
            event.type == metric.event
            and self._believed(loop, event)
            and not self._labelled(event)
            and start is not None
            and start - metric.backward_window <= event.occurred_at < start + metric.window
            and (metric.currency in (None, event.currency) or self._rate(metric, event) is not None)
            and (metric.aggregate in ("any", "count") or event.value_micros is not None)
        )

    def _rate(self, metric: Metric, event: Event) -> int | None:
        """The last word about the latest time before the event, or before the purchase that it takes back."""
        if not metric.convert or event.currency is None:
            return None
        at = event.occurred_at
        if _reverses(event):
            reports = [
                one.occurred_at
                for one in self.events.values()
                if one.fact_key == event.reverses and one.type == "purchase"
            ]
            at = min(reports, default=at)
        said = [
            (rate.valid_from, number, rate.rate)
            for number, rate in enumerate(self.rates)
            if (rate.from_currency, rate.to_currency) == (event.currency, metric.currency) and rate.valid_from <= at
        ]
        return max(said)[2] if said else None

    def _converted(self, metric: Metric, event: Event, value: int | None) -> int | None:
        rate = self._rate(metric, event)
        if rate is None or value is None:
            return value
        exact = Context(prec=60).multiply(Decimal(value), Decimal(rate).scaleb(-12, Context(prec=60)))
        return int(exact.to_integral_value(ROUND_HALF_UP))

    def _refunds(self, purchase: Event, loop: LoopDefinition) -> int | None:
        amounts: dict[Any, int] = {}
        for key, refund in self.events.items():
            if (
                purchase.type == "purchase"
                and _reverses(refund)
                and refund.reverses == purchase.fact_key
                and refund.currency == purchase.currency
                and refund.occurred_at <= purchase.occurred_at + loop.refund_horizon
                and not self._labelled(refund)
                and self._believed(loop, refund)
            ):
                own_name = refund.fact_key not in (None, refund.reverses)
                name = refund.fact_key if own_name else key
                amount = purchase.value_micros if refund.value_micros is None else refund.value_micros
                amounts[name] = max(amounts.get(name, 0), amount or 0)
        return sum(amounts.values()) if amounts else None

    def _stats(self, outcomes: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        values = {row[:4]: row[4] for row in outcomes}
        sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0])
        for decision in self.decisions.values():
            if self.start(decision) is None:
                continue
            expected = {candidate.content_id: candidate.expected or 0 for candidate in decision.candidates}
            shown = [place for place in decision.chosen if place.position <= decision.constraints["slots"]]
            for content in (place.content_id for place in shown):
                for metric in self.loops[decision.loop_id].metrics:
                    value = values.get((decision.decision_id, content, metric.name, metric.version), 0)
                    key = (decision.campaign_id, content, metric.name, decision.model_version or "")
                    row = sums[*key, decision.decided_at // DAY]
                    added = (
                        1,
                        value > 0,
                        value,
                        *reversed(divmod((value // 100) ** 2, 10**12)),
                        round(expected.get(content, 0) * 1e6),
                    )
                    row[:] = [old + int(new) for old, new in zip(row, added, strict=True)]
        return sorted((*key, *row) for key, row in sums.items())


@dataclass(frozen=True)
class Use:
    """One event that counts for one metric of one decision; ``value`` is net of refunds."""

    decision_id: str
    content_id: str
    metric: Metric
    event: Event
    value: int | None
    signed: bool


def _reverses(event: Event) -> bool:
    return event.type == "refund" and event.reverses is not None


def _content(decision: Decision, event: Event) -> str:
    by_position = {place.position: place.content_id for place in decision.chosen}
    if event.content_id in by_position.values():
        return str(event.content_id)
    return by_position.get(event.position or 1, by_position[1])


def _outcomes(used: Sequence[Use]) -> list[tuple[Any, ...]]:
    groups = defaultdict(list)
    for use in used:
        groups[use.decision_id, use.content_id, use.metric.name].append(use)
    rows = []
    for (decision_id, content_id, name), uses in groups.items():
        uses.sort(key=lambda use: (use.event.occurred_at, use.event.source, use.event.event_id))
        metric = uses[0].metric
        value = _value(metric, [use.value or 0 for use in uses])
        times = [use.event.occurred_at for use in uses]
        if value != 0:
            rows.append((decision_id, content_id, name, metric.version, value, len(uses), min(times), max(times)))
    return sorted(rows)


def _value(metric: Metric, values: list[int]) -> int:
    value = {
        "any": 1_000_000,
        "count": len(values) * 1_000_000,
        "sum": sum(values),
        "first": values[0],
        "max": max(values),
    }[metric.aggregate]
    return value if metric.cap_micros is None else min(value, metric.cap_micros)
