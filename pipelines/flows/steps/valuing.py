"""What a policy would have earned in a period, from the decisions made then (invariants 9 and 15).

1. gather   the version's model, the settings of the policy, and the matured decisions of the period that chance made; those
            that the version learned from are left out, and said so
2. value    every estimator for the policy, what ran, the baseline and the best single content; the policy's gain over
            what ran and over the baseline, clustered by unit
3. paper    sentences and a table

Refused, with the reason, is a log that is not healthy and an overlap below the loop's floor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import select

from infra import tables
from infra.clock import format_time
from infra.database import reading
from infra.errors import BadInput, EstimateRefused
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition, PolicySettings, load_loop, load_version
from pipelines.flows.paper import Paper
from pipelines.learning import Bench, floor_of
from pipelines.papers import TITLES
from reward_models import registry
from reward_models.automatic import CHOSEN
from reward_models.boosted import RewardModel
from reward_models.dataset import TrainingSet
from reward_models.health import examine
from reward_models.loading import load_training_set
from reward_models.offpolicy import Estimate, difference
from reward_models.policies import in_force, policy_version
from reward_models.report import plain, reward_words
from reward_models.trial import GATE_FOLDS, Policy, dealt_by_chance, hold, nuisance, unit_folds

THOUSAND = 1_000.0


@dataclass(frozen=True)
class Question:
    """What is asked: a policy over a model, and a period of ``decided_at``, since ≤ t < until; None: open."""

    loop_id: str
    version: str | None = None
    policy: PolicySettings | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Material:
    """What step 2 works with. ``unhealthy``: why the log cannot be believed."""

    definition: LoopDefinition
    version: str
    policy: PolicySettings
    model: RewardModel
    earlier: TrainingSet
    judged: TrainingSet
    baselines: Mapping[str, Mapping[str, Any]]
    since: int
    until: int
    left_out: int
    unhealthy: str | None


class Valuation(msgspec.Struct, frozen=True, kw_only=True):
    """The report. ``refused``: why there is no gain; estimates are per decision."""

    loop_id: str
    version: str
    policy: str
    words: str
    since: int
    until: int
    decisions: int
    left_out: int
    values: dict[Policy, tuple[Estimate, ...]] = {}
    over_running: Estimate | None = None
    over_baseline: Estimate | None = None
    refused: str = ""


def gather(bench: Bench, question: Question) -> Material:
    """Step 1. Raises :class:`BadInput` where the loop has no model, or the period is empty."""
    now = bench.clock()
    with reading(bench.engine) as connection:
        definition, loop_version = load_loop(connection, question.loop_id)
        stored, policy = _chosen(connection, definition, question)
        folder = registry.path_of(bench.settings.bundles, question.loop_id, stored.version)
        by_unit = definition.gate.split == "unit"
        learned_until = 0 if by_unit else stored.cutoff
        asked_from = learned_until if question.since is None else question.since
        until = now if question.until is None else question.until
        if asked_from >= until:
            raise BadInput(_empty(stored.version, asked_from, until, question.since is None))
        as_of = newest_batch(connection)
        whole = load_training_set(
            connection, definition, loop_version, as_of=as_of, now=now, before=until, choices_since=asked_from
        )
        health = examine(connection, definition, as_of=as_of, now=now, since=asked_from, before=until)
        baselines = _baselines(connection, question.loop_id)
    model = registry.load_verified(folder, stored.digest)
    with reading(bench.engine) as connection:
        model = registry.with_vectors(connection, model, question.loop_id, stored.version)
    asked = whole.decided_at >= asked_from
    unseen = unit_folds(whole, GATE_FOLDS) == 0 if by_unit else whole.decided_at >= learned_until
    return Material(
        definition=definition,
        version=stored.version,
        policy=policy,
        model=model,
        earlier=whole.subset(whole.decided_at < max(asked_from, learned_until)),
        judged=dealt_by_chance(whole.subset(asked & unseen)),
        baselines=baselines,
        since=asked_from,
        until=until,
        left_out=int((asked & ~unseen).sum()),
        unhealthy=health.refused,
    )


def value(material: Material) -> Valuation:
    """Step 2."""
    definition, judged = material.definition, material.judged
    said = Valuation(
        loop_id=definition.loop,
        version=material.version,
        policy=policy_version(material.policy),
        words=reward_words(definition),
        since=material.since,
        until=material.until,
        decisions=len(judged),
        left_out=material.left_out,
    )
    if material.unhealthy:
        return msgspec.structs.replace(said, refused=material.unhealthy)
    if not len(judged):
        return msgspec.structs.replace(said, refused="No matured decision of the period was made by chance.")
    q_models = (
        [(np.ones(len(judged), dtype=np.bool_), material.model)]
        if definition.gate.split == "unit"
        else nuisance(material.earlier, judged, definition)
    )
    trial = hold(judged, material.baselines, material.model, material.policy, q_models, limits=definition.limits)
    gains: dict[Policy, Estimate] = {}
    refused = ""
    for reference in ("running", "baseline"):
        try:
            gains[reference] = difference(trial.logged("challenger", reference), floor=floor_of(definition))
        except EstimateRefused as error:
            refused = f"{error}."
    return msgspec.structs.replace(
        said,
        values={policy: tuple(estimates) for policy, estimates in trial.values().items()},
        over_running=gains.get("running"),
        over_baseline=gains.get("baseline"),
        refused=refused,
    )


def paper_of(found: Valuation) -> Paper:
    """Step 3."""
    return Paper(
        subject=found.loop_id,
        state="refused" if found.over_running is None else "valued",
        sentence=_sentence(found),
        text="\n\n".join(_notes(found)),
        rows=tuple(_rows(found)),
    )


def _chosen(connection: Any, definition: LoopDefinition, question: Question) -> tuple[registry.Version, PolicySettings]:
    """The version, and the policy: as asked, else as the version would serve with."""
    champion = registry.champion(connection, definition.loop)
    if question.version is not None:
        stored = registry.version_of(connection, definition.loop, question.version)
    elif champion is not None:
        stored = registry.version_of(connection, definition.loop, champion.version)
    elif newest := registry.versions(connection, definition.loop):
        stored = newest[0]
    else:
        raise BadInput(f"Loop {definition.loop!r} has no model yet; make one: rewardloop retrain {definition.loop}")
    judged_under = load_version(connection, definition.loop, stored.loop_version)
    return stored, question.policy or in_force(judged_under.policy, definition.policy)


def _baselines(connection: Any, loop_id: str) -> dict[str, dict[str, Any]]:
    c = tables.campaigns.c
    rows = connection.execute(select(c.campaign_id, c.baseline).where(c.loop_id == loop_id))
    return {row.campaign_id: row.baseline for row in rows}


def _empty(version: str, since: int, until: int, implied: bool) -> str:
    begins = (
        f"{version} learned from everything before {format_time(since)}"
        if implied
        else f"it begins at {format_time(since)}"
    )
    return f"The period is empty: it ends at {format_time(until)}, and {begins}"


def _sentence(found: Valuation) -> str:
    who = f"{found.policy} over {found.version}"
    if found.over_running is None:
        return f"{who}: no value. {found.refused}"
    return f"{who}, against what ran: {_interval(found.over_running, found.words)}."


def _interval(gain: Estimate, words: str) -> str:
    ends = " to ".join(f"{THOUSAND * end:+,.4g}" for end in (gain.low, gain.high))
    return f"{THOUSAND * gain.value:+,.4g} {words} per 1,000 decisions ({gain.level:.0%} interval {ends})"


def _notes(found: Valuation) -> list[str]:
    period = f"{format_time(found.since)} to {format_time(found.until)}"
    notes = [f"**Period.** {period}: {found.decisions:,} matured decisions that chance made."]
    if found.over_baseline is not None:
        notes.append(f"**Against the baseline.** {plain(_interval(found.over_baseline, found.words))}.")
    if found.left_out:
        notes.append(
            f"**Left out.** {found.left_out:,} decisions of the period: {plain(found.version)} learned from them."
        )
    if found.refused:
        notes.append(f"**Refused.** {plain(found.refused)}")
    notes.append(f"**To believe.** {CHOSEN}; values marked DM are the model's own opinion.")
    return notes


def _rows(found: Valuation) -> list[dict[str, Any]]:
    titles = {**TITLES, "challenger": "this policy"}
    gains = {"gain over what ran": found.over_running, "gain over the baseline": found.over_baseline}
    rows = [_row(title, each, found.words) for title, each in gains.items() if each is not None]
    return rows + [_row(titles[policy], each, found.words) for policy, all_ in found.values.items() for each in all_]


def _row(policy: str, estimate: Estimate, words: str) -> dict[str, Any]:
    return {
        "policy": policy,
        "estimator": estimate.name,
        f"{words} per 1,000": round(THOUSAND * estimate.value, 4),
        "low": round(THOUSAND * estimate.low, 4),
        "high": round(THOUSAND * estimate.high, 4),
        "effective units": round(estimate.ess),
        "note": estimate.note,
    }
