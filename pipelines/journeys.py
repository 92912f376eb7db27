"""What `episodes value` and `episodes surrogate` do and print.

Apart from ``pipelines/commands/episodes.py``, because LightGBM and what it brings take seconds to import.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import typer
from sqlalchemy import Connection, select

from infra import tables
from infra.clock import DAY
from infra.database import reading
from infra.errors import EstimateRefused
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import GATE_REFUSED, Workspace, out, print_json, print_table, progress
from reward_models.assignment import load_register
from reward_models.episodes.early import Spans, samples
from reward_models.episodes.steps import Episodes, EpisodeSettings, episodes_of
from reward_models.episodes.stepwise import Scores, Valued, compare, judged, value
from reward_models.episodes.surrogates import Surrogate
from reward_models.episodes.surrogates import surrogate as foretold
from reward_models.loading import load_training_set
from reward_models.offpolicy import Estimate

RUNNING = "as it was"
POLICIES: Mapping[str, str] = {
    RUNNING: "what drew these decisions",
    "policy": "the policy, where something else was drawn from",
    "baseline": "each campaign's baseline",
    "uniform": "every candidate as often",
    "no repeats": "what drew, but nothing twice in one episode",
}


def print_values(workspace: Workspace, loop: str, horizon: int, discount: float, longest: int, as_json: bool) -> None:
    """Every policy by every estimator, and its difference to what ran."""
    episodes = _episodes(workspace, loop, EpisodeSettings(horizon, discount, longest))
    found: dict[str, Valued] = {}
    differences: dict[str, Estimate | str] = {}
    tables_of = {RUNNING: episodes.behaviour, **episodes.policies}
    said: dict[str, Scores] = {}
    with progress() as bar:
        task = bar.add_task("valuing journeys", total=len(POLICIES))
        for name in POLICIES:
            said[name] = judged(episodes, tables_of[name])
            found[name] = value(episodes, said[name])
            if name != RUNNING:
                differences[name] = _difference(episodes, said[name], said[RUNNING])
            bar.advance(task)
    if as_json:
        print_json(_document(loop, episodes, found, differences))
    else:
        _print(loop, episodes, found, differences, horizon)


def print_surrogate(workspace: Workspace, loop: str, metric: str | None, spans: tuple[int, int], as_json: bool) -> None:
    """The effect on the index, and every flag."""
    now = workspace.clock()
    with progress() as bar, reading(workspace.engine) as connection:
        bar.add_task("reading customers", total=None)
        definition, _ = load_loop(connection, loop)
        name = definition.metric(metric).name if metric else _money(definition)
        register = load_register(connection, definition, definition.lift.since or 0)
        found = foretold(*samples(register, definition, name, Spans(*spans), now))
    if as_json:
        print_json(msgspec.to_builtins(found) | {"loop": loop, "metric": name, "trusted": found.trusted})
    else:
        _print_surrogate(loop, name, spans, found)
    if not found.trusted:
        raise typer.Exit(GATE_REFUSED)


def _episodes(workspace: Workspace, loop: str, settings: EpisodeSettings) -> Episodes:
    now = workspace.clock()
    with progress() as bar, reading(workspace.engine) as connection:
        bar.add_task("reading decisions", total=None)
        definition, version = load_loop(connection, loop)
        training = load_training_set(connection, definition, version, as_of=newest_batch(connection), now=now)
        return episodes_of(training, _baselines(connection, loop), settings, now - definition.maturity)


def _baselines(connection: Connection, loop_id: str) -> dict[str, Mapping[str, Any]]:
    c = tables.campaigns.c
    rows = connection.execute(select(c.campaign_id, c.baseline).where(c.loop_id == loop_id))
    return {row.campaign_id: row.baseline for row in rows}


def _difference(episodes: Episodes, policy: Scores, running: Scores) -> Estimate | str:
    try:
        return compare(episodes, policy, running)
    except EstimateRefused as error:
        return str(error)


def _money(definition: LoopDefinition) -> str:
    for metric in definition.metrics:
        if metric.aggregate in ("sum", "max", "first"):
            return metric.name
    return definition.metrics[0].name


def _document(
    loop: str, episodes: Episodes, found: Mapping[str, Valued], differences: Mapping[str, Estimate | str]
) -> dict[str, Any]:
    return {
        "loop": loop,
        "episodes": len(episodes.units),
        "decisions": len(episodes),
        "units": len(set(episodes.units)),
        "policies": {
            name: {
                "what": POLICIES[name],
                "estimates": msgspec.to_builtins(valued.estimates),
                "refused": valued.refused,
                "difference": msgspec.to_builtins(differences.get(name)),
            }
            for name, valued in found.items()
        },
    }


def _print(
    loop: str,
    episodes: Episodes,
    found: Mapping[str, Valued],
    differences: Mapping[str, Estimate | str],
    horizon: int,
) -> None:
    rows = [
        (name, each.name, f"{each.value:,.4g}", f"{each.low:,.4g} to {each.high:,.4g}", f"{each.ess:,.0f}", each.note)
        for name, valued in found.items()
        for each in valued.estimates
    ]
    columns = ["policy", "by", "per episode", "interval", "effective", ""]
    print_table(f"{loop}: reward per episode of {horizon / DAY:g} days", columns, rows, numbers=[2, 3, 4])
    for name, apart in differences.items():
        if isinstance(apart, str):
            _say(f"{name} against what ran: refused. {apart}")
        else:
            _say(
                f"{name} against what ran: {apart.value:+,.4g} per episode ({apart.low:+,.4g} to {apart.high:+,.4g}), "
                f"{POLICIES[name]}."
            )
    _say(
        f"{len(episodes.units):,} episodes of {len(set(episodes.units)):,} customers, {len(episodes):,} decisions. PDIS and DR "
        "weigh what was seen; FQE is a model's opinion and gates nothing."
    )


def _print_surrogate(loop: str, metric: str, spans: tuple[int, int], found: Surrogate) -> None:
    early, late = (span / DAY for span in spans)
    _say(
        f"{loop}: {metric} within {late:g} days, foretold from the first {early:g}: {found.effect.value:+,.4g} per customer "
        f"against the holdout ({found.effect.low:+,.4g} to {found.effect.high:+,.4g}), from {found.customers:,} customers; "
        f"the index was learned from {found.known:,} whose {late:g} days are over."
    )
    _say(f"Early outcomes explain {found.explained:.1%} of the late one beyond what was known before. Model-dependent.")
    for flag in found.flags:
        _say(f"Do not trust it: {flag}")


def _say(sentence: str) -> None:
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
