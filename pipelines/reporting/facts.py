"""The weekly report as data: what is told, before it is words, a page or a picture.

Money is in units of its currency, rates are per 1,000 decisions or customers, times are microseconds. Texts are copy as
it was written: whoever shows them escapes them.
"""

from typing import Literal, NamedTuple

import msgspec

from infra.clock import DAY, format_time
from infra.errors import BadInput

Kind = Literal["copy", "model", "paused", "rules"]
"""What changed: new copy, a promotion, contents or the loop switched off (or on again), the definition."""


class Period(NamedTuple):
    """Whole days UTC, [since, until) in microseconds."""

    since: int
    until: int

    @property
    def name(self) -> str:
        """``2026-11-09 to 2026-11-15``: first and last day."""
        return f"{day(self.since)} to {day(self.until - DAY)}"

    @property
    def key(self) -> str:
        """``2026-11-15-7d``: what the period is filed under."""
        return f"{day(self.until - DAY)}-{(self.until - self.since) // DAY}d"


def period_until(now: int, days: int = 7) -> Period:
    """The last ``days`` whole days before ``now``. Raises :class:`BadInput` for less than one or more than 366."""
    if not 1 <= days <= 366:
        raise BadInput(f"A report covers 1 to 366 days, not {days}")
    until = now - now % DAY
    return Period(until - days * DAY, until)


def day(at: int) -> str:
    """The date of a time, ISO 8601."""
    return format_time(at)[:10]


class Interval(msgspec.Struct, frozen=True):
    """A value between its bounds."""

    value: float
    low: float
    high: float


class Point(msgspec.Struct, frozen=True):
    """The lift as it stood at a time."""

    at: int
    lift: Interval


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The lift of a metric over time, per 1,000 customers. The last point is how it stands.

    ``earned``: the lift times all treated customers that are mature; the unit is the metric's.
    """

    metric: str
    currency: str
    points: tuple[Point, ...]
    earned: Interval
    relative: float | None
    standing: str
    sentence: str
    customers: int

    @property
    def now(self) -> Interval:
        """How it stands."""
        return self.points[-1].lift


class Change(msgspec.Struct, frozen=True):
    """Something that was changed, for the timeline."""

    at: int
    kind: Kind
    words: str


class PolicyValue(msgspec.Struct, frozen=True):
    """What a policy would earn per 1,000 decisions, by off-policy evaluation of the newest version."""

    policy: str
    value: Interval


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A content in the league table. ``results``: per 1,000, by metric, as they came in the period.

    ``expected``: the reward per 1,000 and its 95 % credible interval since the campaign began, days compared within
    themselves and customers within what the model predicts of them. ``best``: probability to be the best.
    """

    content_id: str
    copy: str
    approval: str
    shown: int
    share: float
    results: dict[str, float]
    expected: Interval | None
    best: float


class League(msgspec.Struct, frozen=True):
    """A campaign's contents, the likeliest best first. ``others``: contents that are not listed."""

    campaign_id: str
    brief: str
    lines: tuple[Line, ...]
    others: int


class Effect(msgspec.Struct, frozen=True):
    """What a factor or a phrase does to the reward, as a share of the campaign's level (0.04: 4 % more), 95 % interval.

    ``contents``: how many have it. ``segment``: customers it holds for; empty: all.
    """

    what: str
    kind: Literal["factor", "phrase"]
    segment: str
    effect: Interval
    contents: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.effect.low > 0.0 or self.effect.high < 0.0


class Age(msgspec.Struct, frozen=True):
    """Lift per 1,000 decisions of copy of an age."""

    words: str
    lift: Interval


class Check(msgspec.Struct, frozen=True):
    """A line of data health. ``state``: fine, look, refused or none."""

    name: str
    state: str
    sentence: str


class Weekly(msgspec.Struct, frozen=True, kw_only=True):
    """The report. ``metrics``: what is logged, by business name; every number of the sentences is one of them."""

    loop_id: str
    since: int
    until: int
    made_at: int
    as_of: int
    dataset_digest: str
    words: str
    """What one unit of reward is called, with its currency."""
    metrics: dict[str, float]
    told: dict[str, list[str]]
    """Sentences by question, in the order of reading."""
    courses: tuple[Course, ...]
    changes: tuple[Change, ...]
    values: tuple[PolicyValue, ...]
    leagues: tuple[League, ...]
    effects: tuple[Effect, ...]
    ages: tuple[Age, ...]
    fading: str
    promises: tuple[tuple[float, float, float], ...]
    """Calibration: (promised, arrived, decisions) per bin, per 1,000."""
    opinions: tuple[str, ...]
    """What is known of people's and judges' opinions, and whether they are listened to."""
    health: tuple[Check, ...]

    @property
    def period(self) -> Period:
        """What it covers."""
        return Period(self.since, self.until)
