"""A reward model from what is known, its proof, and its use: what `train`, `evaluate` and `score` do and print.

Apart from ``pipelines/commands/learning.py``, because LightGBM and what it brings take seconds to import.
"""

import csv
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, Text, exists, select, type_coerce

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, EstimateRefused, NotFound
from ingestion.events import Content
from ingestion.files.tables import open_table
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.health import document as health_document
from pipelines.commands.health import print_health
from pipelines.commands.workspace import Workspace, out, print_json, print_table, progress
from pipelines.learning import config_digest, kind_of
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.aging import Aging
from reward_models.boosted import RewardModel, fit
from reward_models.dataset import TrainingSet
from reward_models.delays import fit_delays
from reward_models.embeddings import embed_if_asked, embedder_of
from reward_models.evaluation import Evaluation, MetricReport, evaluate
from reward_models.features import text_of
from reward_models.health import Health, examine
from reward_models.hurdle import foresee
from reward_models.lists import ListEvaluation, ListReport, evaluate_lists, has_lists
from reward_models.loading import load_training_set
from reward_models.ranking import Measured, Ranking, rank_held_out
from reward_models.scoring import (
    ADDED,
    WHY,
    harmless,
    read_candidates,
    scored_rows,
    scored_texts,
    slot_for,
    text_contents,
)
from reward_models.slates import READERS, Reader
from reward_models.trial import decided_by_chance
from reward_models.verification import Verifier

INVENTED = "Event times were invented by the import (the file has none); all splits are by unit, none by time."


def train(workspace: Workspace, loop: str, as_json: bool) -> None:
    """Train on everything known, with outcomes that are still to come made up for, and register the version."""
    begun = time.perf_counter()
    with progress() as bar:
        bar.add_task(f"training {loop}", total=None)
        embed_if_asked(workspace.settings, workspace.engine, loop, workspace.clock())
        definition, training = training_set(workspace, loop, learned_only=True)
        delays = fit_delays(training, definition)
        model = replace(fit(foresee(training, delays, definition), definition.model), aging=Aging(delays=delays))
        version = register_version(workspace, definition, training, model)
    report = _train_report(loop, version, training, model, time.perf_counter() - begun)
    if as_json:
        print_json(report)
    else:
        print_table(f"Trained {version}", ["", ""], [(name, _figure(value)) for name, value in report.items()])


LISTS = (
    "Some decisions were lists of several contents, of which only the first position is valued here; name how they are "
    f"read to value them whole: --reader {', '.join(READERS)}."
)


def evaluate_loop(
    workspace: Workspace, loop: str, only: Sequence[str], as_json: bool, reader: Reader | None = None
) -> None:
    """Evaluate decisions, past results, or both, and lists if a reader is named.

    Raises :class:`EstimateRefused` when there are neither, or when the log of the decisions cannot be believed.
    """
    definition, training = training_set(workspace, loop)
    metrics = [definition.metric(name).name for name in only or [each.name for each in definition.metrics]]
    health = _health(workspace, definition, training)
    if not as_json and training.decision_id:
        print_health(health)
    decisions, ranking = _evaluate(loop, definition, training, metrics, health)
    lists = None if reader is None else evaluate_lists(training, definition, metrics, reader)
    with reading(workspace.engine) as connection:
        invented = _times_invented(connection, loop)
    if as_json:
        document = _evaluation_document(loop, decisions, ranking, invented)
        document |= {} if lists is None else {"lists": msgspec.to_builtins(lists)}
        print_json(document | {"health": health_document(health)})
        return
    if decisions is not None:
        _print_decisions(definition, decisions, invented)
    if lists is not None:
        _print_lists(lists)
    elif has_lists(training):
        out().print(LISTS, highlight=False, soft_wrap=True)
    if ranking is not None:
        _print_ranking(ranking)


def score(
    workspace: Workspace,
    verifier: Verifier,
    loop: str,
    file: Path,
    destination: Path,
    version: str | None,
    as_json: bool,
    why: bool = False,
) -> None:
    """Score a file of candidate texts into another; ``why`` adds the reasons."""
    chosen = _version(workspace, loop, version)
    with open_table(file) as table:
        columns, rows = table.columns, list(table.rows)
    with progress() as bar:
        bar.add_task(f"scoring {len(rows):,} rows", total=None)
        folder = registry.path_of(workspace.settings.bundles, loop, chosen.version)
        model = registry.load_verified(folder, chosen.digest, verifier)
        contents = read_candidates(model, columns, rows, workspace.settings.text_limit_bytes)
        model = _with_embeddings(workspace, model, contents)
        scored = scored_rows(model, contents, rows, why)
    _write(destination, [[*map(harmless, columns), *ADDED, *([WHY] if why else [])], *scored])
    campaigns = len({content.campaign_id for content in contents})
    if as_json:
        print_json({"version": chosen.version, "rows": len(scored), "campaigns": campaigns, "out": str(destination)})
    else:
        sentence = f"{len(scored):,} texts of {campaigns:,} campaigns scored by {chosen.version}: {destination}"
        out().print(sentence, markup=False, highlight=False, soft_wrap=True)


def score_texts(
    workspace: Workspace,
    verifier: Verifier,
    loop: str,
    texts: Sequence[str],
    slot: str | None,
    version: str | None,
    as_json: bool,
    why: bool = False,
) -> None:
    """Compare lines, the best first; ``why`` adds the reasons."""
    chosen = _version(workspace, loop, version)
    folder = registry.path_of(workspace.settings.bundles, loop, chosen.version)
    model = registry.load_verified(folder, chosen.digest, verifier)
    contents = text_contents(texts, slot_for(model, slot), workspace.settings.text_limit_bytes)
    model = _with_embeddings(workspace, model, contents)
    scored = scored_texts(model, contents, why)
    if as_json:
        print_json({"version": chosen.version, "loop_mean": model.levels.mean, "scores": scored})
        return
    columns = ["rank", "line", "expected", "95 % interval", *(["why"] if why else [])]
    rows = [
        (
            one.rank,
            texts[one.index],
            f"{one.expected:.4g}",
            f"{one.low:.4g} to {one.high:.4g}",
            *([one.why] if why else []),
        )
        for one in sorted(scored, key=lambda one: (one.rank, one.index))
    ]
    print_table(
        f"{len(rows)} lines by {chosen.version}; the loop's mean is {model.levels.mean:.4g}", columns, rows, [0, 2]
    )


def _evaluate(
    loop: str, definition: LoopDefinition, training: TrainingSet, metrics: list[str], health: Health
) -> tuple[Evaluation | None, Ranking | None]:
    by_chance, past = len(decided_by_chance(training)), len(training.history)
    if by_chance:
        health.insist()
    if not by_chance and not past:
        raise EstimateRefused(
            f"Loop {loop!r} has neither mature decisions with known propensities nor past results; import some, or wait"
        )
    with progress() as bar:
        task = bar.add_task(f"evaluating {loop}", total=None)

        def step(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return (
            evaluate(training, definition, metrics, step) if by_chance else None,
            rank_held_out(training, definition, step) if past else None,
        )


def _health(workspace: Workspace, definition: LoopDefinition, training: TrainingSet) -> Health:
    with reading(workspace.engine) as connection:
        return examine(connection, definition, as_of=training.as_of, now=workspace.clock())


def training_set(workspace: Workspace, loop: str, *, learned_only: bool = False) -> tuple[LoopDefinition, TrainingSet]:
    """``learned_only``: nothing is valued, so outcomes may be on their way and candidates are left out."""
    with reading(workspace.engine) as connection:
        definition, loop_version = load_loop(connection, loop)
        as_of, now = newest_batch(connection), workspace.clock()
        return definition, load_training_set(
            connection,
            definition,
            loop_version,
            as_of=as_of,
            now=now,
            censored=learned_only,
            choices_since=now + 1 if learned_only else None,
        )


def register_version(
    workspace: Workspace, definition: LoopDefinition, training: TrainingSet, model: RewardModel
) -> str:
    """Row first, files second, as `retrain` does; the same bundle again is the same version."""
    cutoff = int(training.decided_at.max()) + 1 if len(training) else 0
    config = config_digest(definition)
    bundle = bundles.pack(model, cutoff=cutoff, configuration=config)
    digest = bundles.digest(bundle)
    with writing(workspace.engine) as connection:
        versions = registry.versions(connection, definition.loop)
        known = {version.digest: version.version for version in versions}
        version = known.get(digest) or registry.next_version(connection, definition.loop)
        registry.register(
            connection,
            definition.loop,
            version,
            digest=digest,
            config_digest=config,
            loop_version=training.loop_version,
            as_of=training.as_of,
            cutoff=cutoff,
            kind=kind_of(config, registry.champion(connection, definition.loop), versions),
            now=workspace.clock(),
        )
    bundles.write(bundle, registry.path_of(workspace.settings.bundles, definition.loop, version))
    return version


def _train_report(loop: str, version: str, training: TrainingSet, model: RewardModel, seconds: float) -> dict[str, Any]:
    return {
        "loop": loop,
        "version": version,
        "decisions": int(training.mature.sum()),
        "decisions not mature yet": training.immature,
        "past results": len(training.history),
        "exposures": int(model.report["exposures"]),
        "campaigns": int(model.report["campaigns"]),
        "contents": int(model.report["contents"]),
        "mean reward": model.levels.mean,
        "calibration error": model.calibration.error_after,
        "seconds": round(seconds, 1),
    }


def _with_embeddings(workspace: Workspace, model: RewardModel, contents: Sequence[Content]) -> RewardModel:
    """The model with embeddings of these texts, if it learned from such and their server is configured."""
    embedder = embedder_of(workspace.settings)
    if model.text is None or embedder is None or model.text.embedder != embedder.model:
        return model
    return replace(model, vectors=embedder.vectors([text_of(content) for content in contents]))


def _version(workspace: Workspace, loop: str, named: str | None) -> registry.Version:
    with reading(workspace.engine) as connection:
        load_loop(connection, loop)
        if named is not None:
            return registry.version_of(connection, loop, named)
        if (champion := registry.champion(connection, loop)) is not None:
            return registry.version_of(connection, loop, champion.version)
        versions = registry.versions(connection, loop)
    if not versions:
        raise NotFound(f"Loop {loop!r} has no model yet; train one with: rewardloop train {loop}")
    return versions[0]


def _write(path: Path, rows: list[list[str]]) -> None:
    """All or nothing: a draft beside the file, then a rename."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        os.replace(draft, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def _times_invented(connection: Connection, loop: str) -> bool:
    c = tables.decisions.c
    said = type_coerce(c.constraints, Text).like('%"times":"invented"%')
    return bool(connection.scalar(select(exists().where(c.loop_id == loop, said))))


def _print_decisions(definition: LoopDefinition, found: Evaluation, invented: bool) -> None:
    names = [metric.name for metric in definition.metrics]
    rows = [
        [arm.content_id, f"{arm.n:,}", *(_mean(definition, name, arm.means[name]) for name in names)]
        for arm in found.arms
    ]
    print_table("Every single arm, plain means", ["content", "n", *names], rows, numbers=range(1, 2 + len(names)))
    for report in found.metrics:
        _print_metric(definition, report)
    out().print("The gate:")
    for report in found.metrics:
        out().print(f"  {report.sentence}", markup=False, highlight=False, soft_wrap=True)
    if not any(report.verdict.state == "passed" for report in found.metrics):
        out().print("On this data nothing beats the best single arm.")
    left = f", {found.left_out:,} left out (no known propensity, or other candidates)" if found.left_out else ""
    out().print(f"{found.rows:,} decisions of {found.units:,} units{left}.", highlight=False, soft_wrap=True)
    if invented:
        out().print(INVENTED, highlight=False, soft_wrap=True)


def _print_metric(definition: LoopDefinition, report: MetricReport) -> None:
    name = report.metric
    rows = [
        [
            f"{value.name} (chosen)" if value.name == report.chosen else value.name,
            _mean(definition, name, value.value),
            f"{_mean(definition, name, value.low)} to {_mean(definition, name, value.high)}",
            f"{value.ess:,.0f}",
            value.note,
        ]
        for value in report.values
    ]
    rows += [[estimator, "refused", "", "", reason] for estimator, reason in report.refused.items()]
    title = f"Learned policy for {name}, cross-fitted"
    print_table(title, ["estimate", name, "95 % interval", "effective sample", "note"], rows, numbers=(1, 2, 3))


def _print_lists(found: ListEvaluation) -> None:
    title = f"Lists of {found.positions}, per list; {READERS[found.reader]}"
    rows = [row for report in found.metrics for row in _list_rows(report)]
    columns = ["metric", "policy", "value", "95 % interval", "effective sample", "note"]
    print_table(title, columns, rows, numbers=(2, 3, 4))
    left = f", {found.left_out:,} left out (no known propensity, other candidates or length)" if found.left_out else ""
    out().print(f"{found.lists:,} lists{left}.", highlight=False, soft_wrap=True)


def _list_rows(report: ListReport) -> list[list[str]]:
    rows = [
        [report.metric, name, f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}", f"{each.ess:,.0f}", ""]
        for name, each in report.values.items()
    ]
    return rows + [[report.metric, name, "refused", "", "", reason] for name, reason in report.refused.items()]


def _print_ranking(found: Ranking) -> None:
    rows = [
        ["best content picked", f"{found.pick_best.value:.1%}", _percent(found.pick_best), f"{found.chance:.1%}"],
        ["pairs ordered rightly", f"{found.pairs.value:.1%}", _percent(found.pairs), "50.0%"],
        ["reward of the picks, against picking at random", f"{found.gain.value:+.1%}", _percent(found.gain), "0.0%"],
    ]
    print_table(
        "Held-out campaigns, ranked by text", ["", "measured", "95 % interval", "chance"], rows, numbers=(1, 2, 3)
    )
    out().print(found.sentence, highlight=False, soft_wrap=True)
    out().print(
        f"{found.rows:,} rows, {found.untrusted:,} of them not trusted and left out; {found.contents:,} contents after "
        f"pooling equal texts, in {found.components:,} components that share no campaign and no text.",
        highlight=False,
        soft_wrap=True,
    )


def _evaluation_document(
    loop: str, decisions: Evaluation | None, ranking: Ranking | None, invented: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {"loop": loop, "times": "invented" if invented else "given"}
    if decisions is not None:
        document["decisions"] = msgspec.to_builtins(decisions)
    if ranking is not None:
        document["ranking"] = msgspec.to_builtins(ranking) | {
            "better_than_chance": ranking.better_than_chance,
            "sentence": ranking.sentence,
        }
    return document


def _mean(definition: LoopDefinition, metric: str, value: float) -> str:
    """A share in percent with three digits, an amount with four."""
    return f"{100 * value:.3f} %" if definition.metric(metric).aggregate == "any" else f"{value:.4f}"


def _percent(measured: Measured) -> str:
    return f"{measured.low:.1%} to {measured.high:.1%}"


def _figure(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
