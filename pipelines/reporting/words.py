"""The weekly report's sentences. Every number in them is a logged metric: it is looked up, never computed here.

Questions in the order of reading: what changed, what it earned, what is serving now, what needs a decision, what not to
trust yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.reporting.facts import Weekly
from reward_models.report import plain

QUESTIONS = (
    "What changed",
    "What it earned",
    "What is serving now",
    "What needs a decision",
    "What not to trust yet",
)
LIFT, EARNED = "lift vs holdout", "earned so far"
MOST_CHANGES = 5
"""Changes that are named."""


@dataclass(frozen=True)
class Standing:
    """What the sentences are made of beside the metrics. ``unit``: of the lift; ``standing``: how the lift stands."""

    loop_id: str
    unit: str
    standing: str
    no_lift: str
    seen: Sequence[str]
    """Names of the metrics seen per 1,000."""
    serving: str | None
    killed: bool
    waiting: Sequence[str]
    """Versions that passed and wait for a person."""
    changes: Sequence[str]
    winners: Sequence[str]
    """Campaigns of which one content is almost certainly the best."""
    warnings: Sequence[str]
    """Sentences of what is wrong: guardrails, clickbait, fading, data health."""
    fading: bool


def told(about: Standing, metrics: Mapping[str, float]) -> dict[str, list[str]]:
    """The sentences by question."""
    answers = (_changed(about, metrics), _earned(about, metrics), _serving(about), _decisions(about, metrics))
    return dict(zip(QUESTIONS, (*answers, _doubts(about, metrics)), strict=True))


def describe(report: Weekly) -> str:
    """The Markdown at the top of the run: the questions with their answers, copy and names as plain text. Without a
    heading: MLflow shows the first lines only, and the run's name stands above them."""
    parts = [f"**{question}.** {' '.join(plain(each) for each in said)}" for question, said in report.told.items()]
    end = "The whole report, with charts and copy, is under Artifacts: `report.html`."
    return "\n\n".join([*parts, end]) + "\n"


def number(value: float, signed: bool = False) -> str:
    """As people read it: whole from a hundred on, else three digits."""
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if abs(value) >= 100 or value == int(value) else f"{value:{sign},.3g}"


def interval(metrics: Mapping[str, float], name: str) -> str:
    """``+12 (+3 to +21)``."""
    value, low, high = (number(metrics[f"{name}{end}"], signed=True) for end in ("", " low", " high"))
    return f"{value} ({low} to {high})"


def _changed(about: Standing, metrics: Mapping[str, float]) -> list[str]:
    counts = [
        _count(metrics["new contents"], "new content"),
        _count(metrics["promotions"], "promotion"),
        _count(metrics["switched off"], "switch off or on", "switches off or on"),
    ]
    said = f"{', '.join(counts)}."
    named = about.changes[-MOST_CHANGES:]
    return [said[0].upper() + said[1:], *([f"The latest: {'; '.join(named)}."] if named else [])]


def _earned(about: Standing, metrics: Mapping[str, float]) -> list[str]:
    sends = f"{number(metrics['sends'])} messages were decided in the period"
    seen = [_seen(name, metrics[name]) for name in about.seen if name in metrics]
    first = f"{sends}; so far they made {', '.join(seen)}." if seen else f"{sends}."
    if LIFT not in metrics:
        return [f"There is no honest lift yet: {about.no_lift}.", first]
    return [
        f"Against the holdout the loop earns {interval(metrics, LIFT)} {about.unit} per 1,000 customers: {about.standing}.",
        f"Over the {number(metrics['customers'])} customers who are final that is {interval(metrics, EARNED)} "
        f"{about.unit} more than the baseline would have made.",
        first,
    ]


def _serving(about: Standing) -> list[str]:
    if about.killed:
        return ["The baseline: somebody switched the loop off (rewardloop unkill undoes that)."]
    return [f"{about.serving}." if about.serving else "The baseline: no model has been promoted yet."]


def _decisions(about: Standing, metrics: Mapping[str, float]) -> list[str]:
    found = [
        f"{version} passed its gate and waits for a yes: rewardloop approve {about.loop_id} {version}."
        for version in about.waiting
    ]
    if metrics["drafts"]:
        found.append(f"{_count(metrics['drafts'], 'content')} without approval: nobody is sent them.")
    found += [
        f"In {campaign} one content is almost certainly the best: end the comparison (rewardloop best {campaign})."
        for campaign in about.winners
    ]
    if about.fading:
        found.append("The lift fades as copy ages: write new copy.")
    return found or ["Nothing."]


def _doubts(about: Standing, metrics: Mapping[str, float]) -> list[str]:
    found = list(about.warnings)
    if LIFT in metrics and metrics[f"{LIFT} low"] <= 0.0 <= metrics[f"{LIFT} high"]:
        found.insert(0, "The lift: its interval holds zero, so it may be chance.")
    if metrics["not final"]:
        found.append(
            f"The results of the period: {number(metrics['not final'])} of its messages may still bring something."
        )
    return found or ["Nothing known."]


def _seen(name: str, value: float) -> str:
    """``319 clicks per 1,000``, ``4,171 EUR revenue per 1,000 sends``."""
    what, _, currency = name.replace("1000", "1,000").partition(" in ")
    return " ".join(filter(None, (number(value), currency, what)))


def _count(value: float, one: str, many: str = "") -> str:
    word = one if value == 1 else many or f"{one}s"
    return f"{'no' if not value else number(value)} {word}"
