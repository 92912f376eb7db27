"""Every query people look at, the dashboard's and the alert rules', and what they may name."""

import re
from typing import Any

import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import infra.telemetry  # noqa: F401 (registers the metrics)
from infra.deploy.grafana import dashboard
from infra.deploy.grafana.dashboard import ROWS

PROMETHEUS = dashboard.HOME.parent / "prometheus"
ALERTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [panel for row in ROWS for panel in row.panels]
QUERIES = [(panel.title, query.expr) for panel in PANELS for query in panel.queries]
QUERIES += [(rule["alert"], rule["expr"]) for rule in ALERTS]
OWN = {"up", "ALERTS"}
"""Metrics that Prometheus makes itself."""
OUTSIDE = {"job", "instance", "alertstate", "le"}
"""Labels that Prometheus or the format puts there."""
_PARTS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def ours() -> list[Any]:
    """Our metrics, as they are registered."""
    return [metric for metric in REGISTRY.collect() if metric.name.startswith("rewardloop_")]


def series() -> set[str]:
    """Names of the series that ``/metrics`` has, by what telemetry defines."""
    return {f"{metric.name}{part}" for metric in ours() for part in _PARTS[metric.type]}


def labels() -> set[str]:
    """Names of the labels that our metrics have."""
    collectors = [found for found in REGISTRY._names_to_collectors.values() if isinstance(found, MetricWrapperBase)]
    return {name for one in collectors if one._name.startswith("rewardloop_") for name in one._labelnames}


def named_series(expr: str) -> set[str]:
    """Names of metrics in an expression."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\bby \([^)]*\)|\{[^}]*\}', " ", expr)
    words = set(re.findall(r"\b[a-zA-Z_:][\w:]*(?!\s*\(|\w)", bare))
    return {word for word in words if word not in {"and", "or", "unless", "by", "offset"}}


def named_labels(expr: str) -> set[str]:
    """Names of labels in an expression."""
    grouped = [name.strip() for group in re.findall(r"\bby \(([^)]*)\)", expr) for name in group.split(",")]
    return {*grouped, *re.findall(r"[{,]\s*(\w+)\s*(?:=~?|!=|!~)", expr)}
