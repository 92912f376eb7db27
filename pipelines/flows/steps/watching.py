"""What is looked at while a loop runs, and what was found: plain findings with a severity.

    log_health    probabilities, holdout and contents as dealt, activations, joins, bots   (reward_models/health.py)
    earnings      guardrails, a lift below zero, fading copy, clickbait                     (reward_models/lift_report.py)
    promises      does what the champion promised arrive, on decisions it has not seen      (reward_models/drift.py)
    contexts      are the customers still those it learned from                             (reward_models/drift.py)
    freshness     is the silence since the last decision or event longer than any before
    ledger        is every record in exactly one state; how many could not be used

    fine   as it should be      look   for the next morning      act   now: the run ends as failed

A finding is also kept as ``<home>/watch/<loop>.json``, so that whoever has no Prefect reads the latest one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, select

from infra import tables
from infra.clock import DAY, HOUR, format_time
from infra.database import reading
from infra.errors import ModelRefused
from ingestion.ledger import conservation, newest_batch
from ingestion.loops import LoopDefinition, load_loop
from pipelines.flows.paper import Paper
from pipelines.learning import Bench
from reward_models import drift, registry
from reward_models.contexts import Contexts
from reward_models.dataset import TrainingSet
from reward_models.health import LEAST_P, State, examine
from reward_models.lift_report import measure
from reward_models.loading import load_training_set
from reward_models.report import plain
from reward_models.trial import clusters_of

Severity = Literal["fine", "look", "act"]

SEVERITIES: tuple[Severity, ...] = ("fine", "look", "act")
OFF = 0.1
"""A promise off by less than this, relative, is not worth a word however sure it is."""
MANY_HELD = 0.01
"""Share of the records that could not be used; above it: look."""
_OF_CHECK: dict[State, Severity] = {"fine": "fine", "look": "look", "refused": "act", "none": "fine"}
_THOUSAND = 1_000.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``what``: `health: holdout`, `lift: revenue` …"""

    what: str
    severity: Severity
    sentence: str


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """All findings about a loop at one time, the worst first."""

    loop_id: str
    at: str
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """The worst of them."""
        return max((each.severity for each in self.findings), key=SEVERITIES.index, default="fine")


@dataclass(frozen=True)
class Seen:
    """What the looks work with. ``recent``: matured decisions of the period."""

    bench: Bench
    definition: LoopDefinition
    version: int
    now: int
    since: int
    champion: registry.Version | None
    whole: TrainingSet
    recent: TrainingSet


Look = Callable[[Seen], list[Finding]]


def gather(bench: Bench, loop_id: str, days: int) -> Seen:
    """The loop, its champion and its matured decisions."""
    now = bench.clock()
    since = now - days * DAY
    with reading(bench.engine) as connection:
        definition, version = load_loop(connection, loop_id)
        serving = registry.champion(connection, loop_id)
        champion = registry.version_of(connection, loop_id, serving.version) if serving else None
        as_of = newest_batch(connection)
        whole = load_training_set(connection, definition, version, as_of=as_of, now=now, choices_since=since)
    return Seen(bench, definition, version, now, since, champion, whole, whole.subset(whole.decided_at >= since))


def log_health(seen: Seen) -> list[Finding]:
    """Whether the log of the period can be believed."""
    with reading(seen.bench.engine) as connection:
        as_of = newest_batch(connection)
        found = examine(connection, seen.definition, as_of=as_of, now=seen.now, since=seen.since)
    return [
        Finding(what=f"health: {check.name}", severity=_OF_CHECK[check.state], sentence=check.sentence)
        for check in found.checks
        if check.state != "none"
    ]


def earnings(seen: Seen) -> list[Finding]:
    """What the holdout says of the loop."""
    with reading(seen.bench.engine) as connection:
        found = measure(connection, seen.definition, seen.version, seen.now)
    worse = [each.lift is not None and each.lift.standing == "worse" for each in found.lifts]
    said = [
        Finding(
            what=f"lift: {each.metric}",
            severity="act" if bad else "fine",
            sentence=each.sentence.removeprefix(f"{each.metric}: "),
        )
        for each, bad in zip(found.lifts, worse, strict=True)
    ]
    said += [
        Finding(
            what=f"guardrail: {guard.metric}",
            severity="act" if guard.state == "breached" else "fine",
            sentence=guard.sentence,
        )
        for guard in found.guardrails
    ]
    fades = found.fading is not None and found.fading.alarm
    said.append(Finding(what="novelty", severity="look" if fades else "fine", sentence=found.fading_sentence))
    said += [Finding(what="clickbait", severity="look", sentence=each.sentence) for each in found.clickbait]
    if found.whole_loop_clickbait:
        said.append(Finding(what="clickbait", severity="look", sentence=found.whole_loop_clickbait))
    return said


def promises(seen: Seen) -> list[Finding]:
    """Whether what the champion promised arrives."""
    if seen.champion is None:
        return [Finding(what="promises", severity="fine", sentence="No model serves yet: the baseline does.")]
    unseen = seen.recent.subset(seen.recent.decided_at >= seen.champion.cutoff)
    if len(unseen) < drift.LEAST_ROWS:
        said = f"{len(unseen):,} matured decisions that {seen.champion.version} has not seen; {drift.LEAST_ROWS} are needed."
        return [Finding(what="promises", severity="fine", sentence=said)]
    folder = registry.path_of(seen.bench.settings.bundles, seen.definition.loop, seen.champion.version)
    try:
        model = registry.load_verified(folder, seen.champion.digest)
    except ModelRefused as error:
        return [Finding(what="promises", severity="act", sentence=f"The champion cannot be loaded: {error}.")]
    with reading(seen.bench.engine) as connection:
        model = registry.with_vectors(connection, model, seen.definition.loop, seen.champion.version)
    promised = model.rows(unseen.contexts, [unseen.contents[index] for index in unseen.content])
    found = drift.kept(promised, unseen.reward, clusters_of(unseen))
    return [] if found is None else [_of_promises(seen.champion.version, found)]


def contexts(seen: Seen) -> list[Finding]:
    """Whether the customers of the period are those the champion learned from."""
    if seen.champion is None:
        return []
    every = Contexts.of(seen.whole.contexts)
    learned = seen.whole.decided_at < seen.champion.cutoff
    found = drift.shifts(every.take(learned.nonzero()[0]), Contexts.of(seen.recent.contexts))
    if not found:
        said = f"Fewer than {drift.LEAST_ROWS} decisions to compare, or no features."
        return [Finding(what="customers", severity="fine", sentence=said)]
    moved = [shift for shift in found if shift.index > drift.LOOK]
    if not moved:
        furthest = f"furthest off is {found[0].feature} (index {found[0].index:.2f})"
        said = f"Customers are like those {seen.champion.version} learned from; {furthest}."
        return [Finding(what="customers", severity="fine", sentence=said)]
    return [
        Finding(
            what="customers",
            severity="look",
            sentence=f"{shift.feature} is {'another population than' if shift.index > drift.SHIFTED else 'not quite as'} "
            f"{seen.champion.version} learned from (index {shift.index:.2f}).",
        )
        for shift in moved
    ]


def freshness(seen: Seen) -> list[Finding]:
    """Whether decisions and events still come: a silence twice as long as the longest of the period is odd."""
    with reading(seen.bench.engine) as connection:
        decided = _silence(connection, _decision_times(seen), seen.now)
        arrived = _silence(connection, _event_times(seen), seen.now)
    quiet = decided is not None and decided.odd
    return [
        _of_silence("decisions", decided, "look"),
        _of_silence("events", arrived, "look" if quiet else "act"),
    ]


def ledger(seen: Seen) -> list[Finding]:
    """Whether the ledger of the installation adds up, and how much could not be used lately."""
    off = conservation(seen.bench.engine)
    with reading(seen.bench.engine) as connection:
        line = tables.batches.c
        query = select(func.sum(line.read), func.sum(line.quarantined)).where(line.at >= seen.since)
        read, held = (int(value or 0) for value in connection.execute(query).one())
    adds_up = "Every record is in exactly one state." if off == 0 else f"{off} records are in no state, or in two."
    said = f"{held:,} of {read:,} records read in the period could not be used."
    return [
        Finding(what="ledger", severity="fine" if off == 0 else "act", sentence=adds_up),
        Finding(what="quarantine", severity="look" if held > MANY_HELD * read else "fine", sentence=said),
    ]


LOOKS: tuple[Look, ...] = (log_health, earnings, promises, contexts, freshness, ledger)


def keep(bench: Bench, watched: Watched) -> None:
    """Write it where it is found without Prefect; a reader finds the old one or the new one."""
    folder = bench.settings.home / "watch"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{watched.loop_id}.{uuid4().hex}"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(watched)))
    os.replace(draft, folder / f"{watched.loop_id}.json")


def report(seen: Seen, findings: list[Finding]) -> Watched:
    """The worst first, otherwise as they were looked at."""
    ordered = sorted(findings, key=lambda each: -SEVERITIES.index(each.severity))
    return Watched(loop_id=seen.definition.loop, at=format_time(seen.now), findings=tuple(ordered))


def paper_of(watched: Watched) -> Paper:
    """One line per finding."""
    odd = [each for each in watched.findings if each.severity != "fine"]
    lines = [f"- **{each.severity}** · {plain(each.what)}: {plain(each.sentence)}" for each in watched.findings]
    return Paper(
        subject=watched.loop_id,
        state=watched.severity,
        sentence=" ".join(each.sentence for each in odd) or "Everything is as it should be.",
        text="\n".join(lines),
        rows=tuple(
            {"severity": each.severity, "what": each.what, "finding": each.sentence} for each in watched.findings
        ),
        alarm=watched.severity == "act",
    )


@dataclass(frozen=True)
class _Silence:
    newest: int
    now: int
    longest: int

    @property
    def odd(self) -> bool:
        return self.now > max(2 * self.longest, HOUR)


def _of_promises(version: str, found: drift.Kept) -> Finding:
    said = (
        f"{version} promised {_THOUSAND * found.promised:,.4g} per 1,000 decisions and {_THOUSAND * found.arrived:,.4g} "
        f"arrived, on {found.rows:,} that it has not seen (p = {found.p:.2g})."
    )
    off = abs(found.arrived - found.promised) > OFF * abs(found.promised)
    return Finding(what="promises", severity="look" if off and found.p < LEAST_P else "fine", sentence=said)


def _of_silence(what: str, silence: _Silence | None, severity: Severity) -> Finding:
    if silence is None:
        return Finding(what=f"freshness: {what}", severity="fine", sentence=f"No {what} in the period.")
    said = (
        f"The newest of the {what} is {silence.now / HOUR:,.1f} h old; in the period the longest silence was "
        f"{silence.longest / HOUR:,.1f} h."
    )
    return Finding(what=f"freshness: {what}", severity=severity if silence.odd else "fine", sentence=said)


def _silence(connection: Connection, times: Select[Any], now: int) -> _Silence | None:
    """The newest time, and the longest pause between two."""
    at = times.subquery().c.at
    before: ColumnElement[Any] = func.lag(at).over(order_by=at)
    pauses = select(at.label("at"), (at - before).label("pause")).subquery()
    newest, longest = connection.execute(select(func.max(pauses.c.at), func.max(pauses.c.pause))).one()
    return None if longest is None else _Silence(int(newest), now - int(newest), int(longest))


def _decision_times(seen: Seen) -> Select[Any]:
    d = tables.decisions.c
    query = select(d.decided_at.label("at")).where(d.loop_id == seen.definition.loop)
    return query.where(d.decided_at >= seen.since, d.decided_at <= seen.now)


def _event_times(seen: Seen) -> Select[Any]:
    """When the loop's events came in."""
    events, attributions = tables.events, tables.attributions
    of_loop = (attributions.c.event_no == events.c.event_no) & (attributions.c.loop_id == seen.definition.loop)
    query = select(events.c.received_at.label("at")).select_from(events.join(attributions, of_loop))
    return query.where(events.c.received_at >= seen.since, events.c.received_at <= seen.now)
