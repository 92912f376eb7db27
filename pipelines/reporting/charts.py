"""The report's charts, as PNG, each on light and on dark paper.

lift             the confidence sequence over time, with a timeline of what was changed
policy_values    what each policy would earn
what_works       effects of factors and phrases
fading           lift by age of the copy
calibration      what was promised against what came
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.dates import AutoDateLocator, DateFormatter

from infra.clock import DAY
from pipelines.reporting.facts import Change, Course, Effect, Interval, Weekly
from reward_models.report import DARK, LIGHT, Bar, Theme, bar_chart, canvas, png, reliability_diagram

MOST_EFFECTS, MOST_OPEN = 14, 5
"""Effects that are drawn and listed: sure ones, and others."""
BEFORE = 14 * DAY
"""Changes from so long before the first look on are on its timeline."""
_MARKS = {
    "copy": ("o", "new copy"),
    "model": ("^", "promotion"),
    "paused": ("X", "switched off or on"),
    "rules": ("s", "rules"),
}
"""Marker and name of each kind of change."""


@dataclass(frozen=True)
class Picture:
    """PNG bytes for both kinds of paper, and what it shows in words, for who cannot see it."""

    light: bytes
    dark: bytes
    words: str


def draw(report: Weekly) -> dict[str, Picture]:
    """The charts that there is data for, by name, in the order of the page."""
    made: dict[str, Picture] = {}
    if report.courses:
        course = report.courses[0]
        made["lift"] = _both(
            lambda theme: lift_chart(course, report.changes, theme), f"Lift over time: {course.sentence}"
        )
    if report.values:
        made["policy_values"] = _both(
            lambda theme: bar_chart(
                [_bar(each.policy, each.value) for each in report.values],
                f"{report.words} per 1,000 decisions",
                "What each policy would earn (95 % intervals)",
                theme,
            ),
            "Value of each policy",
        )
    effects = told_first([effect for effect in report.effects if not effect.segment])
    if effects:
        made["what_works"] = _both(lambda theme: effect_chart(effects, theme), "Effects of factors and phrases")
    if report.ages:
        made["fading"] = _both(
            lambda theme: bar_chart(
                [_bar(age.words, age.lift) for age in report.ages],
                f"lift in {report.words} per 1,000 decisions",
                "Does copy lose its lift as it ages?",
                theme,
            ),
            report.fading,
        )
    if report.promises:
        points = np.array(report.promises)
        made["calibration"] = _both(
            lambda theme: reliability_diagram(
                points[:, 0], points[:, 1], points[:, 2], report.words, theme, "1,000 decisions"
            ),
            "Promised against arrived",
        )
    return made


def told_first(effects: Sequence[Effect]) -> list[Effect]:
    """The sure ones, and a few that may become it."""
    sure = [effect for effect in effects if effect.sure]
    return [*sure[:MOST_EFFECTS], *[effect for effect in effects if not effect.sure][:MOST_OPEN]]


def lift_chart(course: Course, changes: tuple[Change, ...], theme: Theme = LIGHT) -> bytes:
    """The band of the confidence sequence, its middle, and below it when something was changed."""
    figure, axes = canvas(9.0, 4.2, theme)
    times = np.array([_date(point.at) for point in course.points])
    axes.xaxis_date()
    value, low, high = (
        np.array([getattr(point.lift, end) for point in course.points]) for end in ("value", "low", "high")
    )
    axes.axhline(0.0, color=theme.quiet, linewidth=1)
    axes.fill_between(times, low, high, color=theme.accent, alpha=0.22, linewidth=0)
    axes.plot(times, value, color=theme.accent, linewidth=2, marker="o", markersize=3)
    middle = float(np.median(high - low))
    top, bottom = (
        float(end) for end in (np.minimum(high, value + middle).max(), np.maximum(low, value - middle).min())
    )
    room = 0.18 * (max(top, 0.0) - min(bottom, 0.0) or 1.0)
    ground = min(bottom, 0.0) - room
    seen = set()
    for change in changes:
        if change.at >= course.points[0].at - BEFORE:
            mark, name = _MARKS[change.kind]
            label = None if change.kind in seen else name
            axes.plot([_date(change.at)], [ground + 0.35 * room], mark, color=theme.ink, label=label, markersize=7)
            axes.axvline(_date(change.at), color=theme.grid, linewidth=1, zorder=0)
            seen.add(change.kind)
    axes.set_ylim(ground, max(top, 0.0) + 0.5 * room)
    unit = course.currency or course.metric
    axes.set_ylabel(f"{unit} per 1,000 customers".replace("$", r"\$"))
    axes.set_title(f"Lift vs holdout: {course.metric} (the band holds over all looks together)".replace("$", r"\$"))
    if seen:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, labelcolor=theme.ink)
    axes.xaxis.set_major_locator(AutoDateLocator(maxticks=8))  # type: ignore[no-untyped-call]  # matplotlib's own
    axes.xaxis.set_major_formatter(DateFormatter("%d %b"))  # type: ignore[no-untyped-call]
    return png(figure)


def effect_chart(effects: list[Effect], theme: Theme = LIGHT) -> bytes:
    """Effects in percent of the campaign's level; dark: sure."""
    bars = []
    for effect in effects:
        value, low, high = (100.0 * each for each in _parts(effect.effect))
        bars.append(Bar(effect.what, value, low, high, marked=effect.sure))
    return bar_chart(bars, "% more reward than without", "What works (dark: sure, all looks together)", theme)


def _both(picture: Callable[[Theme], bytes], words: str) -> Picture:
    return Picture(picture(LIGHT), picture(DARK), words)


def _bar(label: str, interval: Interval) -> Bar:
    return Bar(label, *_parts(interval))


def _parts(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _date(at: int) -> float:
    """Days since 1970, which is what matplotlib counts."""
    return at / DAY
