"""``prompts recommend`` and ``prompts evaluate``: what a log of prompts says, for people and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipelines.commands.workspace import out, print_json, print_table, progress
from reward_models.prompts.choosing import Recommender, learn
from reward_models.prompts.evaluation import Ceiling, Gain, ceiling, gain_of, held_out
from reward_models.prompts.logs import Columns, PromptLog, read_log

_READ = 60
"""Characters of a query in a table."""


def recommend(path: Path, columns: Columns, queries: Sequence[str], clear: float, as_json: bool) -> None:
    """The prompt for each query."""
    log = read_log(path, columns)
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


def evaluate(path: Path, columns: Columns, clear: float, seed: int, as_json: bool) -> None:
    """What choosing per query is worth on queries that were not learned from."""
    log = read_log(path, columns)
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
