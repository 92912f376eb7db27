"""The weekly report of a loop, made: read, put into words, drawn, written, and logged to MLflow.

    weekly(bench, loop_id, period=None) -> Made

Order: 0 what was asked for in MLflow is answered, 1 facts from the database, 2 sentences, 3 charts, 4 the page, and as PDF where there is a browser, 5 files under
``<home>/reports/<loop>/weekly/<period>/``, 6 a run in the loop's experiment; with MLflow away the files stay, and the next
report of the period logs them. Repeating it replaces what was there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Connection, func, select

from infra import tables
from infra.database import reading
from infra.drafts import replacing
from infra.errors import EstimateRefused, Unavailable
from infra.logs import log
from infra.tracking import Record
from ingestion.events import Content
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition, load_loop
from ingestion.switches import killed_loops
from pipelines.approvals import try_requests
from pipelines.learning import Bench
from pipelines.mirror import load_report
from pipelines.names import per_thousand
from pipelines.papers import TITLES
from pipelines.reporting import charts, page, pdf
from pipelines.reporting import reading as facts_of
from pipelines.reporting.courses import courses
from pipelines.reporting.facts import (
    Age,
    Course,
    Interval,
    League,
    Line,
    Period,
    PolicyValue,
    Weekly,
    day,
    period_until,
)
from pipelines.reporting.league import standing
from pipelines.reporting.reading import Shown
from pipelines.reporting.segments import effects_of
from pipelines.reporting.words import EARNED, LIFT, Standing, describe, told
from reward_models import registry
from reward_models.assignment import load_register
from reward_models.clickbait import find_clickbait
from reward_models.dataset import TrainingSet
from reward_models.features import text_of
from reward_models.lift_report import guard_all
from reward_models.loading import load_training_set
from reward_models.novelty import Fading, fading
from reward_models.opinions import in_words, load_opinions, load_said
from reward_models.report import reward_words

THOUSAND = 1_000.0
MOST_LINES = 20
"""Contents of a campaign in the league table."""
CERTAIN = 0.99
"""Probability from which a content is told to be the best."""
_SENDS = 500
"""Decisions that a content needs for that."""
_PAGE, _PRINT, _DATA = "report.html", "report.pdf", "report.json"

Step = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """A report that was made: its data, where its files are, and its run; None with MLflow away."""

    report: Weekly
    folder: Path
    run_id: str | None

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.folder / _PAGE


def weekly(bench: Bench, loop_id: str, period: Period | None = None, step: Step = lambda _: None) -> Made:
    """Make the report of a period, without one the last seven whole days. ``step`` is told what is being done.

    Raises :class:`NotFound` for an unknown loop.
    """
    chosen = period or period_until(bench.clock())
    try_requests(bench, loop_id)
    step("reading")
    with reading(bench.engine) as connection:
        report = gather(bench, connection, loop_id, chosen)
    step("drawing")
    drawn = charts.draw(report)
    files = {f"{name}.png": picture.light for name, picture in drawn.items()}
    files[_DATA] = msgspec.json.encode(report)
    files[_PAGE] = page.render(report, drawn).encode()
    step("printing")
    printed = pdf.printed(files[_PAGE])
    if printed is not None:
        files[_PRINT] = printed
    folder = _write(bench.settings.home / "reports" / loop_id / "weekly" / chosen.key, files)
    step("logging")
    return Made(report, folder, _log(bench, report, files))


def gather(bench: Bench, connection: Connection, loop_id: str, period: Period) -> Weekly:
    """The report as data, as of now, with the lift as it stood at the end of the period."""
    now = bench.clock()
    definition, version = load_loop(connection, loop_id)
    as_of, at = newest_batch(connection), min(now, period.until)
    training = load_training_set(connection, definition, version, as_of=as_of, now=now)
    register = load_register(connection, definition, definition.lift.since or 0)
    found, no_lift = courses(register, definition, at)
    shown = facts_of.campaigns_shown(connection, definition, period)
    leagues = tuple(league_of(each, definition) for each in shown)
    effects = effects_of(training)
    fade = _fading(training, definition)
    promised = facts_of.promises(connection, training, period)
    health = facts_of.health(connection, definition, period, as_of, now)
    began = min((course.points[0].at for course in found), default=period.since)
    changes = facts_of.changes(connection, loop_id, min(began, period.since), period.until)
    guards = guard_all(register, definition, at)
    warned = [f"Guardrail {guard.sentence}" for guard in guards if guard.state == "breached"]
    warned += [each.sentence for each in find_clickbait(training, definition, definition.lift)]
    warned += [f"Data health: {check.sentence}" for check in health if check.state in ("look", "refused")]
    metrics = _metrics(connection, definition, period, training, found)
    within = [change for change in changes if change.at >= period.since]
    metrics |= {
        "promotions": float(sum(change.kind == "model" for change in within)),
        "switched off": float(sum(change.kind == "paused" for change in within)),
        "health warnings": float(sum(check.state in ("look", "refused") for check in health)),
    }
    if promised is not None:
        metrics["calibration error per 1000"] = THOUSAND * promised[0]
    champion = registry.champion(connection, loop_id)
    about = Standing(
        loop_id=loop_id,
        unit=_unit(found, definition),
        standing=found[0].sentence.partition(": ")[2] if found else "",
        no_lift=no_lift,
        seen=[per_thousand(metric) for metric in definition.metrics],
        serving=champion.version if champion else None,
        killed=loop_id in killed_loops(connection),
        waiting=_waiting(connection, loop_id, champion),
        changes=[f"{day(change.at)} {change.words}" for change in within],
        winners=[league.campaign_id for league in leagues if _is_won(league)],
        warnings=warned,
        fading=fade is not None and fade.alarm,
    )
    return Weekly(
        loop_id=loop_id,
        since=period.since,
        until=period.until,
        made_at=now,
        as_of=as_of,
        dataset_digest=training.digest,
        words=reward_words(definition),
        metrics=metrics,
        told=told(about, metrics),
        courses=found,
        changes=tuple(changes),
        values=_values(bench, connection, definition),
        leagues=leagues,
        effects=effects,
        ages=_ages(fade),
        fading=fade.sentence if fade else "It is too early to say whether the lift fades as copy ages.",
        promises=_per_thousand(promised),
        health=tuple(health),
        opinions=_opinions(connection, definition),
    )


def league_of(shown: Shown, definition: LoopDefinition) -> League:
    """A campaign's table: the likeliest best, those that were shown most behind them."""
    found = standing(shown.days)
    total = max(1, sum(shown.exposures.values()))
    lines = []
    for place, row in enumerate(shown.contents):
        times = shown.exposures.get(row.content_id, 0)
        expected = None
        if found is not None and found.shown[place]:
            mean, sd = THOUSAND * float(found.mean[place]), THOUSAND * float(found.sd[place])
            expected = Interval(mean, mean - 1.96 * sd, mean + 1.96 * sd)
        results = {
            per_thousand(metric): THOUSAND * shown.totals.get(metric.name, {}).get(row.content_id, 0.0) / times
            for metric in definition.metrics
            if times
        }
        copy = text_of(Content(content_id=row.content_id, campaign_id=shown.campaign_id, slots=row.slots))
        lines.append(
            Line(
                content_id=row.content_id,
                copy=copy.replace("\n", " / ") or row.content_id,
                approval=row.approval,
                shown=times,
                share=times / total,
                results=results,
                expected=expected,
                best=float(found.best[place]) if found is not None else 0.0,
            )
        )
    lines.sort(key=lambda line: (line.expected is None, -line.best, -line.shown, line.content_id))
    return League(shown.campaign_id, shown.brief, tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))


def record_of(report: Weekly, files: Mapping[str, bytes]) -> Record:
    """What MLflow holds of a report. Its page first: that is what people open."""
    return Record(
        version=report.period.key,
        name=f"week to {day(report.until - 1)}" if report.period.key.endswith("-7d") else report.period.name,
        digest=f"{report.as_of} {report.made_at}",
        description=describe(report),
        at=report.made_at,
        dataset_digest=report.dataset_digest,
        as_of=report.as_of,
        metrics=report.metrics,
        tags={
            "rewardloop.loop": report.loop_id,
            "rewardloop.kind": "weekly report",
            "rewardloop.as_of": str(report.as_of),
            "rewardloop.dataset_digest": report.dataset_digest,
        },
        files={name if name.startswith("report.") else f"plots/{name}": content for name, content in files.items()},
    )


def _metrics(
    connection: Connection,
    definition: LoopDefinition,
    period: Period,
    training: TrainingSet,
    found: Sequence[Course],
) -> dict[str, float]:
    sends, sums = facts_of.totals(connection, definition, period)
    seen = {
        per_thousand(metric): THOUSAND * sums.get(metric.name, 0.0) / max(1, sends) for metric in definition.metrics
    }
    c, campaigns = tables.contents.c, tables.campaigns.c
    count = select(func.count()).join(tables.campaigns, campaigns.campaign_id == c.campaign_id)
    count = count.where(campaigns.loop_id == definition.loop)
    new = count.where(c.created_at >= period.since, c.created_at < period.until)
    decided = training.decided_at
    final = int(((decided >= period.since) & (decided < period.until) & (training.position == 1)).sum())
    metrics = (seen if sends else {}) | {
        "sends": float(sends),
        "not final": float(max(0, sends - final)),
        "new contents": float(connection.scalar(new) or 0),
        "drafts": float(connection.scalar(count.where(c.approval == "draft")) or 0),
    }
    if not found:
        return metrics
    main = found[0]
    parts = {LIFT: main.now, EARNED: main.earned}
    metrics |= {f"{name}{end}": getattr(each, field) for name, each in parts.items() for end, field in _ENDS}
    metrics["customers"] = float(main.customers)
    return metrics | ({f"{LIFT} percent": 100.0 * main.relative} if main.relative is not None else {})


_ENDS = (("", "value"), (" low", "low"), (" high", "high"))


def _unit(found: Sequence[Course], definition: LoopDefinition) -> str:
    if not found:
        return reward_words(definition)
    metric = definition.metric(found[0].metric)
    return metric.currency or per_thousand(metric).removesuffix(" per 1000")


def _waiting(connection: Connection, loop_id: str, champion: registry.Champion | None) -> list[str]:
    serving = champion.version if champion else None
    return [
        each.version
        for each in registry.versions(connection, loop_id)
        if each.state == "passed" and (each.gate or {}).get("champion") == serving and not each.approved
    ]


def _is_won(league: League) -> bool:
    first = league.lines[0] if league.lines else None
    open_ = [line for line in league.lines if line.approval == "approved"]
    return first is not None and len(open_) > 1 and first.best >= CERTAIN and first.shown >= _SENDS


def _values(bench: Bench, connection: Connection, definition: LoopDefinition) -> tuple[PolicyValue, ...]:
    """Of the newest version that has papers: its figures, as they were judged."""
    word = reward_words(definition).split(" ")[0]
    for version in registry.versions(connection, definition.loop):
        report = load_report(bench.settings, definition.loop, version.digest)
        if report is None:
            continue
        titles = {str(policy): title for policy, title in TITLES.items()} | {"challenger": version.version}
        names = {policy: f"{word}_per_1000_{policy}" for policy in titles}
        return tuple(
            PolicyValue(title, Interval(*(report.metrics[f"{names[policy]}{end}"] for end in ("", "_low", "_high"))))
            for policy, title in titles.items()
            if f"{names[policy]}_low" in report.metrics
        )
    return ()


def _fading(training: TrainingSet, definition: LoopDefinition) -> Fading | None:
    try:
        return fading(training, definition.lift)
    except EstimateRefused:
        return None


def _ages(fade: Fading | None) -> tuple[Age, ...]:
    if fade is None:
        return ()
    return tuple(
        Age(
            f"day {age.from_day:g} to {age.to_day:g}" if age.to_day is not None else f"from day {age.from_day:g}",
            Interval(*(THOUSAND * each for each in (age.lift, age.low, age.high))),
        )
        for age in fade.ages
    )


def _opinions(connection: Connection, definition: LoopDefinition) -> tuple[str, ...]:
    found = load_opinions(connection, definition, (), load_said(connection, definition.loop))
    return tuple(in_words(name, agreement) for name, agreement in found.agreements.items())


def _per_thousand(
    promised: tuple[float, tuple[tuple[float, float, float], ...]] | None,
) -> tuple[tuple[float, float, float], ...]:
    if promised is None:
        return ()
    return tuple((THOUSAND * said, THOUSAND * came, weight) for said, came, weight in promised[1])


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)
    return folder


def _log(bench: Bench, report: Weekly, files: Mapping[str, bytes]) -> str | None:
    try:
        return bench.tracking.log_report(report.loop_id, record_of(report, files))
    except Unavailable as error:
        log.warning("the report is not in MLflow; its files are kept", loop=report.loop_id, reason=str(error))
        return None
