"""What `credit` does and prints: credit of copy by the serving model, credit of sends by six models side by side.

Apart from ``pipelines/commands/credit.py``, because LightGBM and what it brings take seconds to import.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from infra.database import reading
from infra.drafts import replacing
from infra.errors import BadInput, NotFound
from ingestion.copy.stored import copy_of
from ingestion.events import Content
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import Workspace, out, print_json, print_table, printable, progress
from pipelines.copybook import contexts_of, sends_of, serving_model
from reward_models.credit.copy import CopyCredit, Earned, credit_copy, earned
from reward_models.credit.drawing import cut, largest_of, number, others, page, strength
from reward_models.credit.paths import Key, load_journeys
from reward_models.credit.sends import SendCredit, SendSettings, credit_sends

DRAWN = 20
"""Contents on a page where none is named: those that were sent most."""
LISTED = 25
"""Most lines of what earned how much."""


def print_copy(workspace: Workspace, loop: str, names: Sequence[str], html: Path | None, as_json: bool) -> None:
    """Credit of the named contents, drawn over their text; of all contents together where none is named."""
    with reading(workspace.engine) as connection:
        definition, _ = load_loop(connection, loop)
        contents, sends = copy_of(connection, loop), sends_of(connection, definition)
        contexts = contexts_of(connection, loop)
    model = serving_model(workspace, loop)
    if model is None:
        raise NotFound(f"Loop {loop!r} has no model yet; train one with: rewardloop train {loop}")
    chosen = _chosen(contents, names, sends)
    with progress() as bar:
        bar.add_task(f"crediting {len(chosen):,} contents", total=None)
        credited = credit_copy(model, chosen, contexts) if chosen else []
    if html is not None:
        most = credited if names else sorted(credited, key=lambda one: -sends.get(one.content.content_id, 0))[:DRAWN]
        with replacing(html) as file:
            file.write(page(most, unit_of(definition)).encode())
    found = earned(credited, [float(sends.get(one.content.content_id, 0)) for one in credited])
    if as_json:
        print_json(_copy_document(loop, credited if names else [], found))
    elif names:
        for one in credited:
            _draw(one, largest_of(credited), definition)
    else:
        _print_earned(loop, found, definition)
    if html is not None and not as_json:
        _say(f"Drawn into {html}.")


def print_sends(
    workspace: Workspace, loop: str, metric: str | None, by: Key, lookback: int, half_life: int, as_json: bool
) -> None:
    """Credit of sends by each model."""
    with progress() as bar, reading(workspace.engine) as connection:
        bar.add_task("reading journeys", total=None)
        definition, _ = load_loop(connection, loop)
        name = definition.metric(metric).name if metric else _money(definition)
        journeys = load_journeys(connection, definition, name, by)
        found = credit_sends(journeys, SendSettings(lookback, half_life))
    if as_json:
        print_json(msgspec.to_builtins(_send_document(loop, name, by, found)))
    else:
        _print_sends(loop, name, by, found)


def unit_of(definition: LoopDefinition) -> str:
    """What the reward is counted in, in words."""
    names = [f"{weight:g} · {name}" if weight != 1.0 else name for name, weight in definition.reward.items()]
    return " + ".join(names)


def _chosen(contents: Mapping[str, Content], names: Sequence[str], sends: Mapping[str, int]) -> list[Content]:
    if unknown := [name for name in names if name not in contents]:
        raise NotFound(f"The loop has no content {unknown[0]!r}")
    if names:
        return [contents[name] for name in names]
    return [content for name, content in contents.items() if sends.get(name)]


def _money(definition: LoopDefinition) -> str:
    for metric in definition.metrics:
        if metric.aggregate in ("sum", "max", "first"):
            return metric.name
    return definition.metrics[0].name


def _draw(credit: CopyCredit, largest: float, definition: LoopDefinition) -> None:
    """The copy in colours; where there are none, what each phrase adds stands behind it."""
    console = out()
    title = f"{credit.content.content_id}: {number(credit.expected)} {unit_of(definition)} per 1,000 sends"
    console.print(Text(printable(title), style="bold"))
    for slot, effect in credit.by_slot().items():
        line = Text(f"{printable(slot)} {number(effect)}  ", style="dim")
        for piece, part in cut(credit, slot):
            line.append(printable(piece), style="" if part is None else _style(part.effect, largest))
        console.print(line, soft_wrap=True)
        phrases = [phrase for phrase in credit.phrases(slot) if phrase.effect]
        told = "; ".join(f"“{printable(phrase.what)}” {number(phrase.effect)}" for phrase in phrases)
        console.print(Text(f"  {told}"), soft_wrap=True)
    rows = [(part.what, part.slot or "", part.kind, number(part.effect)) for part in others(credit)]
    print_table("Beyond the words", ["what", "slot", "kind", "per 1,000"], rows, numbers=[3])


def _style(effect: float, largest: float) -> str:
    """Green earned, red cost, on a ground as strong as the effect; the letters stay readable on it."""
    share = abs(strength(effect, largest))
    if share < 0.05:
        return ""
    low = round(40 + 90 * share)
    return f"white on rgb(20,{low},40)" if effect >= 0 else f"white on rgb({low + 40},20,20)"


def _print_earned(loop: str, found: Sequence[Earned], definition: LoopDefinition) -> None:
    rows = [
        (
            *(one.what, one.kind, one.slot or "", f"{one.contents:,}", f"{one.sends:,.0f}"),
            *(number(one.per_send), f"{one.total:+,.4g}"),
        )
        for one in found[:LISTED]
    ]
    title = f"What earned it in {loop}: {unit_of(definition)}"
    columns = ["what", "kind", "slot", "contents", "sends", "per 1,000", "in all"]
    print_table(title, columns, rows, numbers=range(3, len(columns)))
    _say(
        "What the serving model makes of each, in the contexts of the newest decisions; not what would happen without it. "
        "One content: --content, a page: --html, sends: --sends."
    )


def _copy_document(loop: str, credited: Sequence[CopyCredit], found: Sequence[Earned]) -> dict[str, Any]:
    contents = [
        {
            "content_id": one.content.content_id,
            "expected": one.expected,
            "slots": one.by_slot(),
            "phrases": [part._asdict() for slot in one.content.slots for part in one.phrases(slot)],
            "parts": [part._asdict() for part in one.parts],
        }
        for one in credited
    ]
    return {"loop": loop, "contents": contents, "earned": [one._asdict() for one in found]}


def _send_document(loop: str, metric: str, by: Key, found: SendCredit) -> dict[str, Any]:
    rows = [{by: row.key, "sends": row.sends, "paths": row.paths, "value": row.value} for row in found.rows]
    return {
        "loop": loop,
        "metric": metric,
        "customers": found.customers,
        "purchases": found.purchases,
        "total": found.total,
        "without_sends": found.without_sends,
        "nobody": found.nobody,
        "removal_effect": found.removal,
        "rows": rows,
    }


def _print_sends(loop: str, metric: str, by: Key, found: SendCredit) -> None:
    if not found.rows:
        raise BadInput(f"Loop {loop!r} has sent nothing yet")
    names = list(found.nobody)
    rows = [
        (row.key, f"{row.sends:,}", *(f"{row.value[name]:,.4g}" for name in names))
        for row in sorted(found.rows, key=lambda row: -row.value["linear"])
    ]
    rows.append(("nobody", "", *(f"{found.nobody[name]:,.4g}" for name in names)))
    columns = [by, "sends", *names]
    print_table(f"Which send earned {metric} in {loop}", columns, rows, numbers=range(1, len(columns)))
    _say(
        f"{found.purchases:,} purchases of {found.customers:,} customers, {found.total:,.6g} in all, of which "
        f"{found.without_sends:,.6g} without a send before. Each column sums to the total. None of the models knows what a "
        f"send caused; the holdout does: rewardloop lift {loop}"
    )


def _say(sentence: str) -> None:
    out().print(sentence, markup=False, highlight=False, soft_wrap=True)
