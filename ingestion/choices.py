"""What a team chose, and out of what: the rules a decision that was made elsewhere must keep. Pure.

    choice_of(message, definition, most) -> Choice

The candidates may be listed with or without their probabilities, or not at all; what was chosen is one content, or a
slate by position. Probabilities are either known, and then whole and consistent, or left out everywhere: then the
choice is joined and learned from, and no other policy is judged by it. :class:`BadInput` says what contradicts what.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from infra.errors import BadInput
from ingestion.events import NO_SEND, Candidate, Group, Placement
from ingestion.loops import LoopDefinition

CUSTOMER_MANAGED: Group = "customer_managed"

_TOLERANCE = 1e-3
"""How far the probabilities of all candidates may be from 1 together: teams round."""

Key = Annotated[str, Meta(min_length=1, max_length=256)]


class CandidateMessage(Struct, gc=False):
    """A content that could have been chosen."""

    content_id: Key
    propensity: float | None = None


class PlacementMessage(Struct, gc=False):
    """A content that was chosen. ``propensity``: given the positions above it."""

    content_id: Key
    position: Annotated[int, Meta(ge=1, le=500)] | None = None
    propensity: float | None = None


class ChoiceMessage(Struct, kw_only=True):
    """The part of a record that says what was chosen."""

    candidates: list[Key | CandidateMessage] | None = None
    chosen: list[PlacementMessage] | None = None
    content_id: Key | None = None
    propensity: float | None = None
    group: Group | None = None


class Choice(NamedTuple):
    """A choice that keeps the rules. ``known``: its probabilities are."""

    candidates: tuple[Candidate, ...]
    chosen: tuple[Placement, ...]
    group: Group
    known: bool


def choice_of(message: ChoiceMessage, definition: LoopDefinition, most: int) -> Choice:
    """The choice that the message says was made in this loop, out of at most so many candidates."""
    listed = _candidates(message, most)
    chosen = _chosen(message, listed)
    known = chosen[0].propensity is not None
    return Choice(_stored(listed, chosen, definition), chosen, _group(message, known), known)


def _candidates(message: ChoiceMessage, most: int) -> dict[str, float | None] | None:
    """Propensity by candidate; None when the message lists none."""
    if message.candidates is None:
        return None
    if not 0 < len(message.candidates) <= most:
        raise BadInput(f"{len(message.candidates)} candidates; list 1 to {most}, or leave the field out")
    pairs = [(one, None) if isinstance(one, str) else (one.content_id, one.propensity) for one in message.candidates]
    candidates = dict(pairs)
    if len(candidates) < len(pairs):
        raise BadInput("A content is listed twice among the candidates; list it once")
    given = [probability for probability in candidates.values() if probability is not None]
    if any(not 0 <= probability <= 1 for probability in given):
        raise BadInput("A candidate's propensity is a probability from 0 to 1; leave it out when it is not known")
    total = sum(given)
    if total > 1 + _TOLERANCE or (len(given) == len(pairs) and total < 1 - _TOLERANCE):
        raise BadInput(f"The candidates' propensities sum to {total:.6g}; together they are 1")
    return candidates


def _chosen(message: ChoiceMessage, candidates: Mapping[str, float | None] | None) -> tuple[Placement, ...]:
    first, *lower = _placed(message)
    for one in (first, *lower):
        _check_placement(one, candidates)
    first = _with_propensity(first, candidates or {})
    if first.propensity is None and any(one.propensity is not None for one in lower):
        raise BadInput("A lower position has a propensity and position 1 has none; add it, or leave all out")
    return (first, *lower)


def _check_placement(placed: Placement, candidates: Mapping[str, float | None] | None) -> None:
    if candidates is not None and placed.content_id not in candidates:
        raise BadInput(f"{placed.content_id!r} was chosen but is no candidate; list every content that could have been")
    if placed.propensity is not None and not 0 < placed.propensity <= 1:
        raise BadInput(
            f"{placed.content_id!r} was chosen with propensity {placed.propensity:g}: what was chosen had a probability "
            "above 0 and at most 1; leave it out when it is not known"
        )


def _with_propensity(first: Placement, candidates: Mapping[str, float | None]) -> Placement:
    """Position 1, whose propensity may stand among the candidates'."""
    listed = candidates.get(first.content_id)
    if listed is None:
        if first.propensity is None and any(other is not None for other in candidates.values()):
            raise BadInput(f"Candidates have a propensity, {first.content_id!r} has none; add it, or leave all out")
        return first
    if first.propensity is not None and abs(first.propensity - listed) > _TOLERANCE:
        raise BadInput(
            f"{first.content_id!r} was chosen with propensity {first.propensity:g}, as a candidate it has {listed:g}; "
            "send one of them"
        )
    if first.propensity is None and listed == 0:
        raise BadInput(f"{first.content_id!r} was chosen but its propensity is 0; correct it, or leave all out")
    return msgspec.structs.replace(first, propensity=first.propensity or listed)


def _placed(message: ChoiceMessage) -> list[Placement]:
    """The chosen contents by position: 1, 2, 3 …"""
    if (message.chosen is None) == (message.content_id is None):
        raise BadInput("A decision names what was chosen: 'chosen' for a slate, or 'content_id'; send one of them")
    chosen = message.chosen or [PlacementMessage(message.content_id or "", 1, message.propensity)]
    if message.chosen is not None and (not message.chosen or message.propensity is not None):
        raise BadInput("'chosen' lists at least one content, each with its own propensity; correct it")
    placed = [
        Placement(position=one.position or place, content_id=one.content_id, propensity=one.propensity)
        for place, one in enumerate(chosen, 1)
    ]
    placed.sort(key=lambda one: one.position)
    if [one.position for one in placed] != list(range(1, len(placed) + 1)):
        found = ", ".join(str(one.position) for one in placed)
        raise BadInput(f"The positions are {found[:80]}; each is there once, from 1 without gaps")
    if len({one.content_id for one in placed}) < len(placed):
        raise BadInput("A content was chosen for two positions; name it once")
    return placed


def _group(message: ChoiceMessage, known: bool) -> Group:
    if not known and message.group not in (None, CUSTOMER_MANAGED):
        raise BadInput(
            f"Group {message.group!r} needs the propensity of what was chosen; add it, or leave the group out"
        )
    if known and message.group == CUSTOMER_MANAGED:
        raise BadInput("Group 'customer_managed' is for choices without a propensity; leave the group out")
    return CUSTOMER_MANAGED if not known else message.group or "treatment"


def _stored(
    candidates: Mapping[str, float | None] | None, chosen: Sequence[Placement], definition: LoopDefinition
) -> tuple[Candidate, ...]:
    """The candidates, sorted; drawn from the team's own probabilities, so behaviour and policy are the same."""
    if candidates is None:
        candidates = dict.fromkeys(one.content_id for one in chosen)
    known = {**candidates, chosen[0].content_id: chosen[0].propensity}
    if NO_SEND in known and not definition.no_send:
        raise BadInput(f"{NO_SEND!r} is no candidate in loop {definition.loop!r}; set its no_send, or leave it out")
    return tuple(Candidate(content_id=id_, policy_p=p, behaviour_p=p) for id_, p in sorted(known.items()))
