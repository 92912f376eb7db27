"""Metrics: how events become a number per decision."""

import hashlib
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from infra.clock import DAY, HOUR, MICROS, MINUTE
from infra.database import canonical_json

Aggregate = Literal["any", "count", "sum", "first", "max"]
"""any: 1 if it happened; count: how often; sum, first, max: of the event's value.

``first`` is the value of the earliest event (ties by source and id). Outcome values are integers in
millionths whatever the aggregate: one click under ``any`` is 1_000_000.
"""

LARGEST_VALUE = 10**10
"""Largest value of one event, in whole units: hundreds of them, in millionths, add up within a 64-bit integer."""

_UNITS = {"s": MICROS, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}


LONGEST = 36_500 * DAY
"""Longest duration: a time and several of them add up within a 64-bit integer, which the join counts in."""


def parse_duration(value: Any) -> int:
    """``"90s"``, ``"30m"``, ``"72h"``, ``"7d"``, ``"2w"`` or whole seconds, to microseconds; at most 100 years."""
    found = _duration(value)
    if found > LONGEST:
        raise ValueError(f"{value!r} is more than 100 years; write a shorter one")
    return found


def _duration(value: Any) -> int:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9})\s*([smhdw])", value.strip(), re.ASCII)):
        return int(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9 and value == int(value):
        return int(value) * MICROS
    raise ValueError(f"{value!r} is not a duration; write whole seconds or a text like '30m', '72h', '7d'")


def format_duration(micros: int) -> str:
    """The shortest text that :func:`parse_duration` reads back."""
    for unit in ("w", "d", "h", "m", "s"):
        if micros % _UNITS[unit] == 0:
            return f"{micros // _UNITS[unit]}{unit}"
    raise ValueError(f"{micros} microseconds are not whole seconds")


Duration = Annotated[
    int,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    PlainSerializer(format_duration, return_type=str),
]
"""Microseconds inside; ``"7d"`` outside."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
EventType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class UnitLimit(BaseModel):
    """At most so many events of one customer count in a metric in each period, whoever reports them.

    Periods follow each other from 1970 on, in UTC: those of `1d` are days. Any stretch as long as a period touches two of
    them. Events that carry a token of `/v1/rank` come first, then the earliest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int = Field(ge=1, le=1_000_000, description="Events of one customer that count in one period.")
    per: Duration = Field(parse_duration("1d"), gt=0, description="Length of a period.")


class Metric(BaseModel):
    """How the events of one type become one number per decision and content."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name = Field(description="Name in results and rewards.")
    event: EventType = Field(description="Event type that counts.")
    aggregate: Aggregate = Field("any", description="How several events become one number.")
    window: Duration = Field(parse_duration("7d"), gt=0, description="How long after the decision an event counts.")
    backward_window: Duration = Field(
        parse_duration("2m"), ge=0, description="Tolerance before the decision, for clocks that disagree."
    )
    cap: float | None = Field(
        None, gt=0, le=LARGEST_VALUE, description="Largest value per decision, in the metric's unit."
    )
    currency: Currency | None = Field(None, description="Currency of the value; other currencies are kept, not used.")
    convert: bool = Field(
        False,
        exclude_if=lambda said: not said,
        description="Amounts in other currencies count too, at the rate of the time (`rewardloop rates`).",
    )
    per_unit_limit: UnitLimit | None = Field(
        None, description="Most events of one customer that count in each period; more are kept, not used."
    )

    @model_validator(mode="after")
    def _convertible(self) -> Self:
        if self.convert and self.currency is None:
            raise ValueError("convert needs the currency to convert to; add currency, like 'EUR'")
        return self

    @property
    def version(self) -> str:
        """Hash of the definition: outcomes of another definition are never mixed with these. What a metric leaves out that
        was added later does not change it."""
        added = {"per_unit_limit"} if self.per_unit_limit is None else None
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude=added))).hexdigest()[:16]

    @property
    def cap_micros(self) -> int | None:
        """The cap in millionths."""
        return None if self.cap is None else round(self.cap * MICROS)
