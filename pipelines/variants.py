"""Two contents side by side: what differs, word by word, and what each change was worth where it was tested.

variants_of(connection, first, second) -> Variants        ``rewardloop diff`` and the page ``/campaigns/<id>/diff``
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading
from infra.errors import BadInput, NotFound
from ingestion.copy.slots import in_reading_order
from ingestion.loops import load_loop
from pipelines.commands.workspace import Workspace, out, print_json, print_table, printable
from reward_models.changes import Effect, Tested, Variant
from reward_models.distances import Change, Piece, changes, places, similarity
from reward_models.preferences.business import load_deviations
from reward_models.vectors import load_vectors, newest_model

_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_STYLES = {"same": "", "removed": "red strike", "added": "green bold"}


@dataclass(frozen=True)
class Judged:
    """A change, and what it was worth relative to the campaign; None where it was never tested alone."""

    change: Change
    effect: Effect | None


@dataclass(frozen=True)
class Slot:
    """One slot of both contents. ``near``: similarity, None with an empty text."""

    name: str
    pieces: tuple[Piece, ...]
    changes: tuple[Judged, ...]
    near: float | None


@dataclass(frozen=True)
class Variants:
    """Two contents of one loop. ``ahead``: the second's reward over the first's, relative to their campaign, where both were shown there."""

    loop: str
    first: str
    second: str
    slots: tuple[Slot, ...]
    ahead: Effect | None


def variants_of(connection: Connection, first: str, second: str) -> Variants:
    """Raises :class:`NotFound` for an unknown content, :class:`BadInput` for contents of two loops."""
    one, other = (_content(connection, name) for name in (first, second))
    if one.loop_id != other.loop_id:
        raise BadInput(
            f"{first!r} is of loop {one.loop_id!r}, {second!r} of {other.loop_id!r}; compare contents of one loop"
        )
    definition, _ = load_loop(connection, one.loop_id)
    earned = load_deviations(connection, definition)
    tested = Tested.of(_variants(connection, one.loop_id, earned))
    vectors = load_vectors(connection, one.loop_id, newest_model(connection))
    slots = []
    for name in in_reading_order({*one.slots, *other.slots}):
        before, after = (str(content.slots.get(name, "")) for content in (one, other))
        pieces = changes(before, after)
        near = float(similarity([before], [after], vectors)[0])
        judged = tuple(Judged(change, tested.effect(change)) for change in places(pieces))
        slots.append(Slot(name, tuple(pieces), judged, near if near == near else None))
    return Variants(one.loop_id, first, second, tuple(slots), _ahead(one, other, earned))


def diff(workspace: Workspace, first: str, second: str, as_json: bool) -> None:
    """Print them."""
    with reading(workspace.engine) as connection:
        found = variants_of(connection, first, second)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    for slot in found.slots:
        console = out()
        console.print(f"{printable(slot.name)}:", style="bold", markup=False, end=" ")
        for piece in slot.pieces:
            before, after = ("", "") if console.is_terminal else _MARKS[piece.kind]
            text = f"{before}{printable(piece.text)}{after}"
            console.print(text, style=_STYLES[piece.kind], markup=False, highlight=False, soft_wrap=True, end="")
        console.print()
    rows = [
        (slot.name, one.change.removed, one.change.added, *told(one.effect))
        for slot in found.slots
        for one in slot.changes
    ]
    print_table(
        "Changes, relative to the campaign", ["slot", "out", "in", "effect", "95 %", "tests"], rows, numbers=(3, 5)
    )
    if found.ahead is not None:
        size, span, _ = told(found.ahead)
        out().print(
            f"{second} earned {size} ({span}) against {first}, as they were shown.", markup=False, highlight=False
        )


def told(effect: Effect | None) -> tuple[str, str, str]:
    """Size, interval and number of tests, in words."""
    if effect is None:
        return "not tested alone", "", ""
    return f"{effect.value:+.1%}", f"{effect.low:+.1%} to {effect.high:+.1%}", str(effect.tests)


def _ahead(one: Any, other: Any, earned: dict[str, tuple[float, float]]) -> Effect | None:
    if one.campaign_id != other.campaign_id or not {one.content_id, other.content_id} <= earned.keys():
        return None
    (before, noise), (after, more) = earned[one.content_id], earned[other.content_id]
    value, reach = after - before, 1.96 * (noise + more) ** 0.5
    return Effect(value, value - reach, value + reach, 1)


def _content(connection: Connection, content_id: str) -> Any:
    contents, campaigns = tables.contents, tables.campaigns
    query = (
        select(contents.c.content_id, contents.c.campaign_id, contents.c.slots, campaigns.c.loop_id)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(contents.c.content_id == content_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"No content {content_id[:256]!r}")
    return row


def _variants(connection: Connection, loop_id: str, earned: dict[str, tuple[float, float]]) -> list[Variant]:
    contents, campaigns = tables.contents, tables.campaigns
    query = (
        select(contents.c.campaign_id, contents.c.content_id, contents.c.slots)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(campaigns.c.loop_id == loop_id)
    )
    return [
        Variant(campaign, content, tuple(sorted((name, str(text)) for name, text in slots.items())), *earned[content])
        for campaign, content, slots in connection.execute(query)
        if content in earned
    ]
