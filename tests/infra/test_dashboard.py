"""The dashboard and the alert rules, as files. What Prometheus answers them is in ``tests/stack/test_dashboard.py``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy.grafana.dashboard import FILE, HOME, SOURCE, WIDTH, dashboard
from tests.infra.queries import (
    ALERTS,
    OUTSIDE,
    OWN,
    PROMETHEUS,
    QUERIES,
    labels,
    named_labels,
    named_series,
    ours,
    series,
)

DOCS = Path(__file__).parents[2] / "docs"
BOUNDED = {
    *("state", "left", "to", "method", "group", "learning_mode", "durable", "reason", "outcome", "on"),
    *("type", "label", "applies", "click", "kind"),  # words of ours; what clients invent is `other`
    *("loop", "version", "topic", "partition", "connection"),  # as many as somebody has set up
}
"""Labels with few values. An id of a customer, decision or event must never be one."""

drawn: list[dict[str, Any]] = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_the_file_is_what_the_code_says() -> None:
    """Grafana reads what the table of panels says."""
    assert json.loads(FILE.read_text()) == dashboard(), "run: python -m infra.deploy.grafana.dashboard"


@pytest.mark.parametrize(("where", "expr"), QUERIES)
def test_queries_name_what_there_is(where: str, expr: str) -> None:
    """Every metric and every label in a query is one that telemetry defines, or Prometheus itself."""
    assert named_series(expr) - series() - OWN == set()
    assert named_labels(expr) - labels() - OUTSIDE == set()


def test_names_are_read_out_of_queries() -> None:
    """Functions, words, windows and label values are no metrics."""
    expr = 'max by (on, job) (a_total{x="b",y=~"c|d"}[5m]) > 0 and sum(rate(e[$__rate_interval])) / clamp_min(f, 1)'

    assert named_series(expr) == {"a_total", "e", "f"}
    assert named_labels(expr) == {"on", "job", "x", "y"}


def test_every_metric_says_what_it_is_and_counts_few_things() -> None:
    """Each has a sentence of help; no label could hold the id of a customer, a decision or an event."""
    assert [metric.name for metric in ours() if len(metric.documentation.split()) < 4] == []
    assert labels() <= BOUNDED


def test_panels_stand_beside_each_other() -> None:
    """No two panels or headings share a place, none sticks out, and the ids are different."""
    panels = dashboard()["panels"]
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < WIDTH
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("panel", drawn, ids=lambda panel: str(panel["title"]))
def test_a_panel_can_be_read(panel: dict[str, Any]) -> None:
    """It has a title and the question it answers, asks the chosen Prometheus, and names more than one series apart."""
    targets = panel["targets"]

    assert panel["title"]
    assert panel["description"].endswith((".", "?"))
    assert [panel["datasource"], *(target["datasource"] for target in targets)] == [SOURCE] * (len(targets) + 1)
    assert len({target["refId"] for target in targets}) == len(targets)
    assert panel["type"] != "timeseries" or all(target["legendFormat"] for target in targets)


def test_the_chosen_prometheus_is_a_variable() -> None:
    """The dashboard works with any Prometheus that Grafana has; the provisioned one is there from the start."""
    (variable,) = dashboard()["templating"]["list"]
    provisioned = yaml.safe_load((HOME / "provisioning" / "datasources" / "prometheus.yml").read_text())

    assert SOURCE["uid"] == f"${{{variable['name']}}}"
    assert variable["query"] == provisioned["datasources"][0]["type"] == "prometheus"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """It is critical or a warning, says what is wrong, and its runbook is a heading of that page with something below."""
    name = rule["alert"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    text = (DOCS.parent / page).read_text()

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert anchor == name.lower()
    assert re.search(rf"^### {name}\n\n\S.{{80,}}?^#", f"{text}\n#", re.MULTILINE | re.DOTALL)


def test_every_alert_is_tried_both_ways() -> None:
    """For each there is a moment at which it speaks and one at which it does not."""
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    tried = {(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]}

    assert tried == {(rule["alert"], speaks) for rule in ALERTS for speaks in (True, False)}
