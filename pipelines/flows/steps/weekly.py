"""The weekly report as a run tells it: what the page says in words, and every campaign's contents as a table."""

from typing import Any

from pipelines.flows.paper import Paper
from pipelines.learning import Bench
from pipelines.reporting.facts import Line, Weekly, period_until
from pipelines.reporting.making import Made, weekly
from pipelines.reporting.words import describe
from reward_models.report import plain


def make_report(bench: Bench, loop_id: str, days: int) -> Made:
    """Make the report of the last whole days: files below the data folder, and a run in MLflow."""
    return weekly(bench, loop_id, period_until(bench.clock(), days))


def paper_of(made: Made) -> Paper:
    """The report's own words, where its page is, and the league of every campaign."""
    report = made.report
    kept = "in MLflow and in" if made.run_id else "not in MLflow, which is away, but in"
    return Paper(
        subject=report.loop_id,
        state="reported",
        sentence=f"{report.period.name}: {_first(report)}",
        text=f"{describe(report)}\n\nThe page is {kept} `{plain(str(made.folder))}`.",
        rows=tuple(_row(league.campaign_id, line) for league in report.leagues for line in league.lines),
    )


def _first(report: Weekly) -> str:
    said = [sentence for sentences in report.told.values() for sentence in sentences]
    return said[0] if said else "nothing to tell."


def _row(campaign_id: str, line: Line) -> dict[str, Any]:
    return {
        "campaign": campaign_id,
        "copy": line.copy,
        "sends": line.shown,
        "share": f"{line.share:.0%}",
        **{name: round(value, 3) for name, value in line.results.items()},
        "probability to be best": f"{line.best:.0%}",
        "state": line.approval,
    }
