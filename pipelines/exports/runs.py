"""One export: its rows, its file or folder, and beside it a card that says what is in it.

    export_examples(workspace, loop, kind, out, …) -> card        export_tables(workspace, loop, out, units) -> card

The card is written last: an export without one did not end. Both hold the moment (``as_of``), the rule by which rows were
chosen, and the digests of the files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from infra.clock import format_time
from infra.database import reading
from infra.errors import BadInput, NotFound
from ingestion.contents import content_of
from ingestion.ledger import newest_batch
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import Workspace
from pipelines.copybook import contexts_of, serving_model
from pipelines.exports.evidence import Campaign, campaigns_of
from pipelines.exports.examples import Choice, Dense, Example, dpo, kto, sft
from pipelines.exports.warehouse import (
    CONTENTS,
    OUTCOMES,
    content_rows,
    decision_rows,
    decision_schema,
    outcome_rows,
)
from pipelines.exports.writing import Written, write_card, write_lines, write_table
from reward_models.credit.copy import credit_copy

KINDS: Mapping[str, Callable[[Iterable[Campaign], Choice], Iterator[Example]]] = {"sft": sft, "dpo": dpo, "kto": kto}
RULES = {
    "sft": "copy that earns more than its campaign's mean",
    "dpo": "two contents of one campaign and prompt, of which the chosen one earns more",
    "kto": "copy that earns more (label true) or less (false) than its campaign's mean",
}
Told = Callable[[int], None]
"""Told how many rows are written."""


def export_examples(
    workspace: Workspace,
    loop: str,
    kind: str,
    out: Path,
    *,
    confidence: float = 0.95,
    campaigns: Sequence[str] = (),
    phrases: bool = False,
    told: Told = lambda _: None,
) -> dict[str, Any]:
    """Examples for fine-tuning as JSON lines. Raises :class:`BadInput` for another ending, :class:`NotFound` for phrases
    without a model."""
    if out.suffix not in (".jsonl", ".ndjson"):
        raise BadInput(f"{out.name} must end in .jsonl: examples are JSON, one per line")
    now = workspace.clock()
    with reading(workspace.engine) as connection:
        definition, version = load_loop(connection, loop)
        as_of = newest_batch(connection)
        choice = Choice(loop, confidence, _dense(workspace, connection, loop) if phrases else None)
        found = campaigns_of(connection, definition, now, campaigns)
        written = write_lines(out, _counted(KINDS[kind](found, choice), told))
    rule = f"{RULES[kind]}, with probability at least {confidence:g} under the posterior of its outcomes"
    card = _card(definition, version, as_of, now) | {
        "kind": kind,
        "format": "TRL conversational, JSON lines",
        "rule": rule,
        "reward": dict(definition.reward),
        "customers": "no data of single customers is in it",
        "files": [written._asdict()],
    }
    write_card(card_of(out), card)
    return card


def export_tables(
    workspace: Workspace, loop: str, folder: Path, units: bool, told: Told = lambda _: None
) -> dict[str, Any]:
    """Decisions, outcomes and contents as Parquet in a folder, which is made if it is not there."""
    now = workspace.clock()
    _made(folder)
    files: list[Written] = []
    with reading(workspace.engine) as connection:
        definition, version = load_loop(connection, loop)
        as_of = newest_batch(connection)
        for name, schema, rows in (
            ("decisions", decision_schema(units), decision_rows(connection, loop, as_of, units)),
            ("outcomes", OUTCOMES, outcome_rows(connection, loop, as_of)),
            ("contents", CONTENTS, content_rows(connection, loop)),
        ):
            files.append(write_table(folder / f"{name}.parquet", schema, _counted(rows, told)))
    card = _card(definition, version, as_of, now) | {
        "kind": "parquet",
        "customers": "keyed hashes" if units else "not named",
        "files": [each._asdict() for each in files],
    }
    write_card(folder / "card.json", card)
    return card


def card_of(out: Path) -> Path:
    """Where the card of a file of examples is: beside it."""
    return out.with_name(f"{out.name}.card.json")


def _card(definition: LoopDefinition, version: int, as_of: int, now: int) -> dict[str, Any]:
    return {"loop": definition.loop, "loop_version": version, "as_of": as_of, "exported_at": format_time(now)}


def _dense(workspace: Workspace, connection: Connection, loop: str) -> Callable[[Campaign], Dense]:
    """What the serving model makes of the phrases of a campaign's contents."""
    model = serving_model(workspace, loop)
    if model is None:
        raise NotFound(f"Loop {loop!r} has no model to credit phrases with; train one with: rewardloop train {loop}")
    contexts = contexts_of(connection, loop)

    def credited(campaign: Campaign) -> Dense:
        contents = [content_of(one.row) for one in campaign.contents]
        return {
            credit.content.content_id: [
                {"slot": slot, "text": part.what, "start": part.start, "end": part.end, "reward": part.effect}
                for slot in sorted(credit.content.slots)
                for part in credit.phrases(slot)
            ]
            for credit in credit_copy(model, contents, contexts)
        }

    return credited


def _counted(rows: Iterable[Any], told: Told) -> Iterator[Any]:
    for number, row in enumerate(rows, start=1):
        yield row
        told(number)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}; name a folder") from None
