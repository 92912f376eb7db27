"""What figures are called where marketers read them: ``clicks per 1000``, ``revenue per 1000 sends in EUR``.

MLflow allows letters, digits, spaces and ``_ - . : /`` in a metric's name, so 1,000 is written without its comma.
"""

from collections.abc import Iterable, Mapping

from ingestion.metrics import Metric

ENDS = ("", " low", " high")
"""A value and its interval."""

_GAIN = "expected gain per 1000"
WORDS = {
    **{f"expected_gain_per_1000{end.replace(' ', '_')}": f"{_GAIN}{end}" for end in ENDS},
    "units_judged": "customers judged",
    "units_needed": "customers needed",
    "smallest_detectable_per_1000": "smallest detectable gain per 1000",
    "calibration_error_per_1000": "calibration error per 1000",
    "gate_passed": "gate passed",
}


def per_thousand(metric: Metric) -> str:
    """The name of a metric's mean per 1,000 decisions."""
    if metric.currency:
        return f"{metric.name} per 1000 sends in {metric.currency}"
    counted = (
        metric.name if metric.aggregate not in ("any", "count") or metric.name.endswith("s") else f"{metric.name}s"
    )
    return f"{counted} per 1000"


def columns(metrics: Iterable[Metric]) -> dict[str, str]:
    """The few figures of a model version that are columns in MLflow: what they are called here, and there."""
    return {f"{metric.name}_per_1000": per_thousand(metric) for metric in metrics} | WORDS


def business(figures: Mapping[str, float], named: Mapping[str, str]) -> dict[str, float]:
    """Those of the figures that are columns, by their business names."""
    return {name: figures[figure] for figure, name in named.items() if figure in figures}
