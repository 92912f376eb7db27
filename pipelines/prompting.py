"""``prompts recommend`` and ``prompts evaluate``: what a log of prompts says, for people and as JSON.

recommend(log, queries, clear, as_json)        evaluate(log, clear, seed, as_json)
log_of_loop(connection, definition)            the loop's own log: briefs, the prompts that wrote copy, what the copy earned
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading
from infra.errors import BadInput
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import open_workspace, out, print_json, print_table, progress
from reward_models.preferences.business import load_deviations
from reward_models.prompts.choosing import Recommender, learn
from reward_models.prompts.evaluation import Ceiling, Gain, ceiling, gain_of, held_out
from reward_models.prompts.logs import Answer, Columns, PromptLog, log_of, read_log

_READ = 60
"""Characters of a query in a table."""


def open_log(path: Path | None, columns: Columns, loop_id: str | None) -> PromptLog:
    """The log in a file, or a loop's own. Raises :class:`BadInput` unless one of the two is named."""
    if (path is None) == (loop_id is None):
        raise BadInput("Say what to learn from: a file with one row per answer, or --loop for a loop's own copy")
    if path is not None:
        return read_log(path, columns)
    with reading(open_workspace().engine) as connection:
        definition, _ = load_loop(connection, loop_id or "")
        return log_of_loop(connection, definition)


def log_of_loop(connection: Connection, definition: LoopDefinition) -> PromptLog:
    """One answer per content that a prompt wrote and that was shown: the campaign's brief, prompt and version, and the reward relative to the
    campaign's mean, so that good seasons are no merit of a prompt. Raises :class:`BadInput` when there is none."""
    contents, campaigns = tables.contents.c, tables.campaigns.c
    query = (
        select(contents.content_id, contents.prompt_id, contents.parameters, campaigns.brief)
        .join(tables.campaigns, campaigns.campaign_id == contents.campaign_id)
        .where(campaigns.loop_id == definition.loop, contents.prompt_id.is_not(None), campaigns.brief.is_not(None))
        .order_by(contents.content_id)
    )
    earned = load_deviations(connection, definition)
    answers = [
        Answer(row.brief, _named(row.prompt_id, row.parameters), 1.0 + earned[row.content_id][0])
        for row in connection.execute(query)
        if row.content_id in earned and row.brief.strip()
    ]
    if not answers:
        raise BadInput(f"No copy of {definition.loop!r} that a prompt wrote was shown in a campaign with a brief yet")
    return log_of(answers)


def recommend(log: PromptLog, queries: Sequence[str], clear: float, as_json: bool) -> None:
    """The prompt for each query."""
    with progress() as bar:
        bar.add_task(f"learning from {len(log):,} answers", total=None)
        learned = learn(log, clear)
    found = learned.recommend(queries)
    if as_json:
        print_json(
            {"proven": learned.proven, "gain": _gain(learned.gain), "recommendations": msgspec.to_builtins(found)}
        )
        return
    rows = [
        (one.query[:_READ], one.prompt, f"{one.advantage:+.3g}", f"{one.low:+.3g} to {one.high:+.3g}", one.reason)
        for one in found
    ]
    print_table("Prompts", ["query", "prompt", "over the best fixed", "95 %", "why"], rows, numbers=(2,))
    out().print(_sentence(learned))


def evaluate(log: PromptLog, clear: float, seed: int, as_json: bool) -> None:
    """What choosing per query is worth on queries that were not learned from."""
    with progress() as bar:
        bar.add_task(f"learning from parts of {len(log):,} answers", total=None)
        gains = {name: gain_of(held_out(log, seed, level)) for name, level in _ways(clear).items()}
        limit = _ceiling(log)
    if as_json:
        document = {"answers": len(log), "queries": len(log.queries), "prompts": list(log.prompts)}
        print_json(document | {"gain": {name: _gain(gain) for name, gain in gains.items()}, "ceiling": _limit(limit)})
        return
    rows = [
        (
            name,
            f"{gain.measured.value:+.4g}",
            f"{gain.measured.low:+.4g} to {gain.measured.high:+.4g}",
            f"{gain.fixed:.4g}",
            f"{gain.acted:.1%}",
        )
        for name, gain in gains.items()
    ]
    print_table(
        f"{len(log.queries):,} queries in {len(set(log.group.tolist())):,} groups, {len(log.prompts)} prompts",
        ["chosen", "reward over the best fixed", "95 %", "best fixed", "acted on"],
        rows,
        numbers=(1, 3, 4),
    )
    if limit is not None:
        out().print(
            f"Knowing every query's own probabilities would gain {limit.knowing:+.4g}, having seen its other answers "
            f"{limit.seen:+.4g}; two answers to one query and prompt differ in {limit.disagree:.1%} of pairs.",
            highlight=False,
        )
    if gains[_CLEAR].measured.low <= 0:
        out().print("Not proven to gain: recommend answers with the best fixed prompt.")


def _named(prompt_id: str, parameters: dict[str, Any]) -> str:
    version = parameters.get("prompt_version")
    return f"{prompt_id}@{version}" if isinstance(version, int) else prompt_id


_CLEAR = "where it is clear"


def _ways(clear: float) -> dict[str, float]:
    return {_CLEAR: clear, "whatever seems better": 0.5}


def _ceiling(log: PromptLog) -> Ceiling | None:
    """Only of rewards of 0 and 1: of others the share of answers that differ says nothing."""
    return ceiling(log) if set(log.reward.tolist()) <= {0.0, 1.0} else None


def _sentence(learned: Recommender) -> str:
    found = learned.gain
    size = f"{found.measured.value:+.3g} [{found.measured.low:+.3g}, {found.measured.high:+.3g}]"
    where = f"on {found.queries:,} queries that were not learned from, over {found.fixed:.3g} of the best fixed prompt"
    return f"Choosing per query gains {size} {where}." + ("" if learned.proven else " That is not proven to be a gain.")


def _gain(gain: Gain) -> dict[str, Any]:
    return dict(msgspec.to_builtins(gain))


def _limit(limit: Ceiling | None) -> dict[str, Any] | None:
    return None if limit is None else dict(msgspec.to_builtins(limit))
