"""What a loop believes of the events of one source: the part of a definition that limits what forged events can do.

A source is limited to event types and to a largest value, or distrusted: then its events count only if they carry a token
of ``/v1/rank``, which nobody can forge. What is not believed is kept with the reason ``untrusted`` and not used, in the
outcomes as in the lift, and neither does such a refund take anything back. It is a judgement, not a fact: a change
re-scores history, so a key that was stolen last week is answered by one change of the definition.

The join asks :func:`trust_rows`, everything else :meth:`Believed.event`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from infra.clock import MICROS
from ingestion.events import REFUND
from ingestion.metrics import LARGEST_VALUE, EventType

OTHERS = "*"
"""Stands for every source that is not named."""
TOKEN = "token"  # noqa: S105 (a way of naming a decision)

Source = Annotated[str, Field(min_length=1, max_length=256)]


class SourceTrust(BaseModel):
    """What counts of the events of one source."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trusted: bool = Field(True, description="`false`: its events count only with a token of `/v1/rank`.")
    types: tuple[EventType, ...] | None = Field(
        None, max_length=50, description="Types of events that count; without it all. Empty: nothing counts."
    )
    largest: float | None = Field(
        None, ge=0, le=LARGEST_VALUE, description="Largest value of one event that counts, in whole units."
    )

    @property
    def largest_micros(self) -> int | None:
        """The largest value in millionths."""
        return None if self.largest is None else round(self.largest * MICROS)

    def allows(self, type_: str) -> bool:
        """Whether events of this type may count at all."""
        return self.types is None or type_ in self.types


@dataclass(frozen=True)
class Believed:
    """The sources of one loop, by name."""

    sources: Mapping[str, SourceTrust]

    def event(self, source: str, type_: str, link: str | None, value_micros: int | None) -> bool:
        """Whether an event counts, as far as its source goes."""
        trust = self.sources.get(source, self.sources.get(OTHERS))
        if trust is None:
            return True
        largest = trust.largest_micros
        return (
            trust.allows(type_)
            and (trust.trusted or link == TOKEN)
            and (largest is None or value_micros is None or value_micros <= largest)
        )


TrustRow = tuple[str, str, str, int, int, int | None]
"""Loop, source, event type; 1 if it may count; 1 if it needs a token; largest value in millionths."""


def trust_rows(loop_id: str, sources: Mapping[str, SourceTrust], types: Iterable[str]) -> Iterator[TrustRow]:
    """The same as rows: one per source and type of event that a metric or a purchase depends on."""
    for type_ in sorted({*types, REFUND}):
        for name, trust in sorted(sources.items()):
            yield loop_id, name, type_, int(trust.allows(type_)), int(not trust.trusted), trust.largest_micros
