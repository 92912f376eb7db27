"""What `lift` and `drill` do and print.

Apart from ``pipelines/commands/proving.py``, because LightGBM and what it brings take seconds to import.
"""

from typing import Any

import msgspec
import typer

from infra.database import reading, writing
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import GATE_REFUSED, Workspace, out, print_json, print_table, progress
from pipelines.guarding import fall_back
from reward_models import drill as drills
from reward_models.assignment import load_register
from reward_models.lift_report import LiftReport, Measured, measure


def lift(workspace: Workspace, loop: str, act: bool, as_json: bool) -> None:
    """Print the report; throw the kill switch if asked to and a guardrail says so."""
    now = workspace.clock()
    with reading(workspace.engine) as connection:
        definition, version = load_loop(connection, loop)
        report = measure(connection, definition, version, now)
    fallen = None
    if act:
        with writing(workspace.engine) as connection:
            fallen = fall_back(connection, definition, report.guardrails, now)
    if as_json:
        print_json(msgspec.to_builtins(report) | {"fell_back": fallen})
    else:
        _print_report(definition, report)
        if fallen:
            _say(f"Loop {loop} answers its baseline from now on. {fallen} Undo: rewardloop unkill {loop}")
    if report.breached:
        raise typer.Exit(GATE_REFUSED)


def drill(workspace: Workspace, loop: str, metric: str | None, runs: int, seed: int, as_json: bool) -> None:
    """Run the drill and print what came of it."""
    with reading(workspace.engine) as connection:
        definition, _ = load_loop(connection, loop)
        name = definition.metric(metric).name if metric else definition.metrics[0].name
        register = load_register(connection, definition, definition.lift.since or 0)
    units = register.matured(definition, definition.lift_window, workspace.clock()).by_chance()
    with progress() as bar:
        task = bar.add_task(f"dealing {len(units):,} customers anew", total=runs)
        found = drills.drill(
            units.dealt(units.uncapped[name]),
            definition.lift,
            runs,
            seed,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(msgspec.to_builtins(found) | {"metric": name, "passed": found.passed, "sentence": found.sentence})
    else:
        _say(f"{name}: {found.sentence}")
    if not found.passed:
        raise typer.Exit(GATE_REFUSED)


def _print_report(definition: LoopDefinition, report: LiftReport) -> None:
    rows = [_row(each) for each in report.lifts if each.lift is not None]
    columns = ["metric", "holdout", "treatment", "lift", "interval", "detectable", "to matter, days"]
    if rows:
        title = f"{report.loop}: lift per 1,000 customers, each from the first decision on"
        print_table(title, columns, rows, numbers=range(1, len(columns)))
    for sentence in sentences(report):
        _say(sentence)
    level = 1.0 - definition.lift.alpha
    _say(
        f"{report.customers:,} customers are mature, {report.waiting:,} not yet; {report.not_dealt:,} were not dealt by "
        f"chance and are left out; {report.per_day:,.0f} come per day. Intervals hold with {level:.0%} over all looks "
        "together. Detectable: the smallest lift that so many customers show four times in five. To matter: until a lift "
        f"of {definition.lift.worthwhile:.0%} would show."
    )


def sentences(report: LiftReport) -> list[str]:
    """Everything the report says in words: lifts, guardrails, fading, clickbait."""
    said = [each.sentence for each in report.lifts]
    said += [f"Guardrail {guard.sentence}" for guard in report.guardrails]
    said.append(report.fading_sentence)
    said += [each.sentence for each in report.clickbait]
    return said + ([report.whole_loop_clickbait] if report.whole_loop_clickbait else [])


def _row(measured: Measured) -> list[Any]:
    found = measured.lift
    if found is None:
        return []
    name = measured.metric if measured.capped is None else f"{measured.metric}, at most {measured.capped:,.4g}"
    days = measured.days_to_worthwhile
    return [
        name,
        *(f"{1000.0 * mean:,.4g}" for mean in (found.holdout_mean, found.treatment_mean)),
        f"{1000.0 * found.difference:+,.4g}",
        f"{1000.0 * found.low:+,.4g} to {1000.0 * found.high:+,.4g}",
        f"{1000.0 * found.mde:,.4g}",
        "not in sight" if days is None else f"{days:,.0f}",
    ]


def _say(sentence: str) -> None:
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
