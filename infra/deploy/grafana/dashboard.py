"""The dashboard: rows of panels, each with the question it answers, as a table; Grafana's JSON is made from it.

    python -m infra.deploy.grafana.dashboard        writes rewardloop.json beside this file

The order is that of looking: is it healthy, what comes in, is it on time, what is joined, what is decided, what could
not be used. Gauges about the ledger are the same in every process, hence ``max``; counters are added up.

Source: the dashboard JSON model, grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

HOME = Path(__file__).parent
FILE = HOME / "rewardloop.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24
"""Columns of Grafana's grid."""
RATE = "$__rate_interval"
"""Grafana's window for ``rate``: four scrapes, or the step where that is longer."""

Kind = Literal["stat", "timeseries", "table"]
Unit = Literal["short", "s", "percentunit", "bytes", "ops"]
Steps = tuple[tuple[str, float | None], ...]
"""Colours, each from its value on."""

PLAIN: Steps = (("text", None),)
NONE_IS_GOOD: Steps = (("green", None), ("red", 1))
ONE_IS_GOOD: Steps = (("red", None), ("green", 1))


class Query(NamedTuple):
    """An expression, and what each of its series is called."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One picture. ``asks``: the question it answers. ``whole``: the series are parts of one thing, stacked."""

    title: str
    asks: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    unit: Unit = "short"
    width: int = 8
    steps: Steps = PLAIN
    whole: bool = False


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


def rate(metric: str, by: str = "") -> str:
    """Increase per second of a counter, over all processes."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{RATE}]))"


def quantile(of: float, histogram: str) -> str:
    """A quantile of a histogram, over all processes."""
    return f"histogram_quantile({of}, {rate(f'{histogram}_bucket', 'le')})"


def durable(window: str) -> str:
    """The share of decisions that were stored before they were answered; nothing without decisions."""
    stored, all_ = (f"sum(rate(rewardloop_ranks_total{which}[{window}]))" for which in ('{durable="true"}', ""))
    return f"{stored} / ({all_} > 0)"


def said_of_bots(applies: str) -> str:
    """Clicks of the last hour that somebody called a machine's, or took that back."""
    return f'(sum(increase(rewardloop_event_labels_total{{label="bot",applies="{applies}"}}[1h])) or vector(0))'


ROWS = (
    Row(
        "Is it healthy?",
        (
            Panel(
                "Alerts",
                "Does anything need a person now? The runbook is docs/how-to/watch-it-run.md.",
                (Query('count(ALERTS{alertstate="firing"}) or vector(0)'),),
                "stat",
                width=4,
                steps=NONE_IS_GOOD,
            ),
            Panel(
                "Conservation error",
                "Is every record that was read in exactly one state? Anything but 0 is a mistake in the code.",
                (Query("max(abs(rewardloop_conservation_error))"),),
                "stat",
                width=4,
                steps=NONE_IS_GOOD,
            ),
            Panel(
                "Database",
                "Does it answer every process? 1: yes.",
                (Query("min(rewardloop_database_up)"),),
                "stat",
                width=4,
                steps=ONE_IS_GOOD,
            ),
            Panel(
                "Records behind",
                "How many records wait on the topics?",
                (Query("sum(rewardloop_lag_records) or vector(0)"),),
                "stat",
                width=4,
                steps=(("green", None), ("orange", 10_000), ("red", 100_000)),
            ),
            Panel(
                "Oldest waiting event",
                "How long has an event waited whose decision nobody has seen?",
                (Query("max(rewardloop_pending_oldest_seconds)"),),
                "stat",
                "s",
                width=4,
                steps=(("green", None), ("orange", 600), ("red", 3_600)),
            ),
            Panel(
                "In quarantine",
                "How many records wait for somebody to mend them?",
                (Query("max(rewardloop_quarantine_held_records)"),),
                "stat",
                width=4,
                steps=(("green", None), ("orange", 1)),
            ),
        ),
        height=4,
    ),
    Row(
        "What comes in",
        (
            Panel(
                "Records by state",
                "How many records per second came in, and what became of them? The line on top is what was read.",
                (
                    Query(rate("rewardloop_records_total", "state"), "{{state}}"),
                    Query(rate("rewardloop_read_records_total"), "read"),
                ),
                unit="ops",
                width=12,
            ),
            Panel(
                "New events by type",
                "Which events came in for the first time?",
                (Query(rate("rewardloop_events_total", "type"), "{{type}}"),),
                unit="ops",
                width=6,
                whole=True,
            ),
            Panel(
                "Conservation",
                "Records read less records in a state, over the whole ledger: a flat line at 0.",
                (Query("max(abs(rewardloop_conservation_error))", "difference"),),
                width=6,
            ),
        ),
    ),
    Row(
        "Is it on time?",
        (
            Panel(
                "Lag",
                "How many records of each topic are not read yet?",
                (Query("sum by (topic) (rewardloop_lag_records)", "{{topic}}"),),
            ),
            Panel(
                "From topic to ledger",
                "How old was the oldest record of a batch when it was committed?",
                (
                    Query(quantile(0.5, "rewardloop_worker_delay_seconds"), "half of the batches"),
                    Query(quantile(0.95, "rewardloop_worker_delay_seconds"), "95 %"),
                ),
                unit="s",
            ),
            Panel(
                "Batches",
                "How long does one transaction take, and how long the decoding before it?",
                (
                    Query(quantile(0.5, "rewardloop_batch_seconds"), "apply, half"),
                    Query(quantile(0.95, "rewardloop_batch_seconds"), "apply, 95 %"),
                    Query(quantile(0.95, "rewardloop_worker_decode_seconds"), "decode, 95 %"),
                ),
                unit="s",
            ),
            Panel(
                "What the scorer knows",
                "How long ago did each API process last look for new models, copy and statistics?",
                (Query("time() - (rewardloop_refreshed_timestamp_seconds > 0)", "{{instance}}"),),
                unit="s",
            ),
            Panel(
                "Workers",
                "How many partitions does each read, and does one wait for something that is away?",
                (
                    Query(
                        'rewardloop_worker_partitions{job="rewardloop-worker"}',
                        "{{instance}} reads",
                    ),
                    Query("sum by (on) (rewardloop_worker_waiting)", "waiting for {{on}}"),
                ),
            ),
            Panel(
                "Batches by outcome",
                "Were batches applied, left to another worker, or dropped? Gaps stop a worker.",
                (
                    Query(rate("rewardloop_worker_batches_total", "outcome"), "{{outcome}}"),
                    Query("sum(rewardloop_offset_gap_records_total)", "records gone from a topic"),
                ),
            ),
        ),
    ),
    Row(
        "What is joined",
        (
            Panel(
                "How events find their decisions",
                "Of the events that came: named by id, by token, by the customer's last contact, as a reversal, or not yet?",
                (
                    Query(
                        f"{rate('rewardloop_joined_events_total', 'method')} "
                        f"/ on () group_left () ({rate('rewardloop_joined_events_total')} > 0)",
                        "{{method}}",
                    ),
                ),
                unit="percentunit",
                whole=True,
            ),
            Panel(
                "Pending",
                "How many events belong to no decision, and how many find or lose theirs?",
                (
                    Query("max(rewardloop_pending_records)", "pending"),
                    Query(rate("rewardloop_transitions_total", "left, to"), "{{left}} → {{to}}, per second"),
                ),
            ),
            Panel(
                "Machines' clicks",
                "Which share of the clicks and opens of the last hour is labelled a machine's?",
                (
                    Query(
                        f"({said_of_bots('true')} - {said_of_bots('false')}) "
                        '/ (sum(increase(rewardloop_events_total{type=~"click|open"}[1h])) > 0)',
                        "bots",
                    ),
                ),
                unit="percentunit",
                width=4,
            ),
            Panel(
                "Redirects",
                "Where did the clicks on redirect links go?",
                (Query(rate("rewardloop_redirects_total", "click"), "{{click}}"),),
                unit="ops",
                width=4,
            ),
        ),
    ),
    Row(
        "What is decided",
        (
            Panel(
                "Decisions by group and mode",
                "Who chooses? `fallback` is the baseline because no usable model exists, or a killed loop.",
                (Query(rate("rewardloop_ranks_total", "group, learning_mode"), "{{group}}, {{learning_mode}}"),),
                unit="ops",
                whole=True,
            ),
            Panel(
                "Stored before answered",
                "Which share of the decisions is durable? The others were the baseline, unstored.",
                (Query(durable(RATE), "durable"),),
                unit="percentunit",
            ),
            Panel(
                "Time to decide",
                "How long does /v1/rank take, from the body to the answer?",
                (
                    Query(quantile(0.5, "rewardloop_rank_seconds"), "half"),
                    Query(quantile(0.99, "rewardloop_rank_seconds"), "99 %"),
                ),
                unit="s",
            ),
            Panel(
                "Decisions made and counted",
                "Does every stored decision become an exposure?",
                (
                    Query(rate('rewardloop_ranks_total{durable="true"}'), "made"),
                    Query(rate("rewardloop_counted_decisions_total"), "counted"),
                ),
                unit="ops",
            ),
            Panel(
                "Decisions waiting to be stored",
                "Is the database fast enough for the decisions?",
                (Query("sum(rewardloop_decision_log_depth)", "waiting"),),
            ),
            Panel(
                "Model of each loop",
                "Which version serves? Two of one loop: the processes differ.",
                (Query("max by (loop, version) (rewardloop_model_info)"),),
                "table",
            ),
        ),
    ),
    Row(
        "What could not be used",
        (
            Panel(
                "Into quarantine",
                "Why: not usable as it came, or in conflict with a stored fact? `rewardloop quarantine list` has the words.",
                (Query(rate("rewardloop_quarantined_total", "reason"), "{{reason}}"),),
                unit="ops",
                whole=True,
            ),
            Panel(
                "Held",
                "How many records are in quarantine?",
                (Query("max(rewardloop_quarantine_held_records)", "held"),),
            ),
            Panel(
                "Refused at the door",
                "Which webhooks had a wrong signature, and which models did not pass?",
                (
                    Query(rate("rewardloop_webhooks_refused_total", "connection"), "webhook {{connection}}"),
                    Query(rate("rewardloop_model_load_failures_total", "reason"), "model: {{reason}}"),
                ),
                unit="ops",
                width=4,
            ),
            Panel(
                "Clicks on disk",
                "How many bytes of clicks wait for their log?",
                (Query("sum(rewardloop_spool_bytes)", "waiting"),),
                unit="bytes",
                width=4,
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The whole of it, as Grafana reads it."""
    return {
        "uid": "rewardloop",
        "title": "Rewardloop",
        "tags": ["rewardloop"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_placed()),
    }


def _placed() -> Iterator[dict[str, Any]]:
    """Every heading and panel with its place, left to right, and on the next line where the width is used up."""
    id_, y = 1, 0
    for row in ROWS:
        yield {"id": id_, "type": "row", "title": row.title, "collapsed": False, "panels": []} | _at(0, y, WIDTH, 1)
        id_, x, y = id_ + 1, 0, y + 1
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + row.height
            yield {"id": id_} | _drawn(panel) | _at(x, y, panel.width, row.height)
            id_, x = id_ + 1, x + panel.width
        y += row.height


def _at(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _drawn(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.asks,
        "datasource": SOURCE,
        "targets": [_target(panel, number, query) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
    } | _options(panel)


def _target(panel: Panel, number: int, query: Query) -> dict[str, Any]:
    now = panel.kind != "timeseries"
    return {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": now,
        "range": not now,
    } | ({"format": "table"} if panel.kind == "table" else {})


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": colour, "value": value} for colour, value in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.whole else "none", "group": "A"}
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 30 if panel.whole else 8, "stacking": stacking}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        newest = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"options": {"reduceOptions": newest, "colorMode": "background", "graphMode": "none"}}
    if panel.kind == "table":
        hidden = {"excludeByName": {"Time": True, "Value": True}}
        return {"transformations": [{"id": "organize", "options": hidden}]}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return {"options": {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}}


def write() -> None:
    """Write the file that Grafana reads."""
    FILE.write_text(json.dumps(dashboard(), indent=2) + "\n")


if __name__ == "__main__":
    write()
