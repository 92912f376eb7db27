"""The report as one page that needs nothing else: style and pictures inside, no scripts, for screen (light and dark) and paper.

Copy is data: the template escapes every text, and the page's own policy forbids scripts, frames, forms and the network.
"""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.reporting.charts import Picture, told_first
from pipelines.reporting.facts import Effect, Interval, League, Weekly, day
from pipelines.reporting.words import number

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
STATES = {"fine": "fine", "look": "look at it", "refused": "refused", "none": "nothing to check"}

_pages = Environment(
    loader=PackageLoader("pipelines.reporting", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters["day"] = day


def render(report: Weekly, drawn: Mapping[str, Picture]) -> str:
    """The page's source."""
    segments = sorted({effect.segment for effect in report.effects if effect.segment})
    return _pages.get_template("report.html").render(
        report=report,
        policy=POLICY,
        made=day(report.made_at),
        pictures={name: _sources(picture) for name, picture in drawn.items()},
        headline=_headline(report),
        everybody=[_effect(each) for each in told_first([each for each in report.effects if not each.segment])],
        segments=[
            (name, [_effect(each) for each in report.effects if each.segment == name and each.sure])
            for name in segments
        ],
        figures=sorted(report.metrics.items()),
        states=STATES,
        columns=_columns,
        number=number,
        span=_span,
        percent=lambda share: f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}",
    )


def _sources(picture: Picture) -> dict[str, str]:
    coded = {name: base64.b64encode(getattr(picture, name)).decode() for name in ("light", "dark")}
    return {name: f"data:image/png;base64,{text}" for name, text in coded.items()} | {"words": picture.words}


def _headline(report: Weekly) -> list[tuple[str, str, str]]:
    """The three figures on top: name, value, what is below it."""
    metrics = report.metrics
    found = []
    if report.courses:
        main = report.courses[0]
        unit = main.currency or main.metric
        found = [
            (f"{unit} per 1,000 customers vs holdout", number(main.now.value, signed=True), _span(main.now)),
            (f"{unit} earned so far", number(main.earned.value, signed=True), _span(main.earned)),
        ]
    return [
        *found,
        ("messages in the period", number(metrics["sends"]), f"{number(metrics['not final'])} not final yet"),
    ]


def _columns(league: League) -> list[str]:
    """Names of the metrics that any line has."""
    return list(dict.fromkeys(name for line in league.lines for name in line.results))


def _effect(effect: Effect) -> dict[str, Any]:
    value = effect.effect
    return {
        "what": effect.what,
        "kind": effect.kind,
        "effect": f"{value.value:+.0%}",
        "span": f"{value.low:+.0%} to {value.high:+.0%}",
        "contents": f"{effect.contents:,}",
        "sure": effect.sure,
    }


def _span(interval: Interval) -> str:
    return f"{number(interval.low, signed=True)} to {number(interval.high, signed=True)}"
