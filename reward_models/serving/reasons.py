"""Why a decision's candidates have the scores they have: lines that add up to each score, computed anew, never stored.

    score = expected (``contributions.py``)  +  what was observed since:
            the campaign so far       (scale − 1)·expected + shift
            what people and judges think   where its own effect starts (``opinions.py``), as far as counts leave it
            this content so far       the rest of its own effect
            such contexts lately      what the newest decisions say of them

The model is the one the decision names. What was observed is told apart while the snapshot still says what it said then;
later it is one line, the difference between the stored score and the stored prediction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from infra.database import reading
from infra.errors import RewardloopError
from ingestion.events import NO_SEND, Candidate, Content, Decision
from reward_models.boosted import RewardModel
from reward_models.contributions import Line, contributions
from reward_models.serving.bodies import RankAnswer, Reason
from reward_models.serving.campaigns import Campaign
from reward_models.serving.snapshot import Loop, Snapshot, Snapshots, no_send

EXPLAINED = 50
"""Most candidates that are explained: what was chosen, then the best. The others cost as much, and nobody reads them."""

_SAME = 1e-12
"""Relative difference of a sum in another order."""

Reasons = Mapping[str, list[Line]]
"""By content."""


def reasons(
    decision: Decision,
    model: RewardModel | None,
    contents: Mapping[str, Content],
    snapshot: Snapshot,
    most: int = EXPLAINED,
) -> Reasons:
    """Lines of the first candidates of a decision, each adding up to its stored score; none for one without a score.

    model: the decision's; null: it had none, or its files are gone.
    """
    told = [candidate for candidate in _first(decision, most) if candidate.content_id in contents]
    if model is None and decision.model_version is not None:
        return {}
    by_model = (
        [[] for _ in told] if model is None else _by_model(model, decision, [contents[one.content_id] for one in told])
    )
    seen = _observed(decision, told, snapshot)
    return {one.content_id: [*lines, *more] for one, lines, more in zip(told, by_model, seen, strict=True)}


def _first(decision: Decision, most: int) -> list[Candidate]:
    """Candidates with a score: the chosen, then by score."""
    place = {placement.content_id: placement.position for placement in decision.chosen}
    scored = [(one, one.score) for one in decision.candidates if one.score is not None]
    scored.sort(key=lambda pair: (place.get(pair[0].content_id, len(place) + 1), -pair[1], pair[0].content_id))
    return [one for one, _ in scored[:most]]


def _by_model(model: RewardModel, decision: Decision, contents: Sequence[Content]) -> list[list[Line]]:
    return contributions(model, decision.context, contents) if contents else []


def _observed(decision: Decision, told: Sequence[Candidate], snapshot: Snapshot) -> list[list[Line]]:
    """What was observed by then, beyond the predictions."""
    apart = _apart(decision, told, snapshot)
    return [
        lines
        if lines is not None
        else [Line("what was seen by then", "observed", float(one.score or 0.0) - float(one.expected or 0.0))]
        for one, lines in zip(told, apart, strict=True)
    ]


def _apart(decision: Decision, told: Sequence[Candidate], snapshot: Snapshot) -> list[list[Line] | None]:
    """The parts of what was observed, of those candidates of which the snapshot says the same as when it was decided."""
    campaign = snapshot.campaigns.get(decision.campaign_id)
    loop = snapshot.loops.get(decision.loop_id)
    if campaign is None or loop is None or loop.model_version != (decision.model_version or ""):
        return [None for _ in told]
    return [
        lines if _is_whole(one, lines) else None
        for one, lines in zip(told, _parts(decision, told, snapshot, loop, campaign), strict=True)
    ]


def _parts(
    decision: Decision, told: Sequence[Candidate], snapshot: Snapshot, loop: Loop, campaign: Campaign
) -> list[list[Line]]:
    standing = snapshot.standing(loop, campaign)
    scale, shift = float(standing.effects.scale), float(standing.effects.shift)
    names = [one.content_id for one in told]
    added = [0.0] * len(names)
    if standing.contextual is not None and names:
        added = standing.contextual.at(decision.context, names)[0].tolist()
    found = []
    for one, lately in zip(told, added, strict=True):
        own, said = 0.0, 0.0
        if (at := standing.index.get(one.content_id)) is not None:
            own, said = float(standing.effects.effect[at]), float(standing.effects.said[at])
        lines = [
            Line("the campaign so far", "observed", (scale - 1.0) * float(one.expected or 0.0) + shift),
            Line("what people and judges think", "observed", said),
            Line("this content so far", "observed", own - said),
            Line("such customers lately", "observed", lately),
        ]
        found.append([line for line in lines if line.effect])
    return found


def _is_whole(candidate: Candidate, lines: Sequence[Line]) -> bool:
    total = float(candidate.expected or 0.0) + sum(line.effect for line in lines)
    score = float(candidate.score or 0.0)
    return abs(total - score) <= _SAME * max(1.0, abs(score))


def score_reasons(
    model: RewardModel, context: Mapping[str, Any], contents: Sequence[Content], expected: Sequence[float]
) -> list[list[Line] | None]:
    """Lines that add up to the prediction of each content, of the best ``EXPLAINED``; null for the others."""
    best = sorted(range(len(contents)), key=lambda place: (-expected[place], place))[:EXPLAINED]
    told = dict(zip(best, contributions(model, context, [contents[place] for place in best]), strict=True))
    return [told.get(place) for place in range(len(contents))]


def explained(decision: Decision, snapshots: Snapshots, snapshot: Snapshot, engine: Engine) -> Reasons:
    """:func:`reasons` with the decision's model, in memory or from disk, and the copy that the snapshot knows."""
    campaign, loop = snapshot.campaigns.get(decision.campaign_id), snapshot.loops.get(decision.loop_id)
    if campaign is None or loop is None or all(candidate.score is None for candidate in decision.candidates):
        return {}
    contents = {**campaign.contents, NO_SEND: no_send(campaign.campaign_id)}
    model = None
    if decision.model_version is not None:
        same = loop.served is not None and loop.served.version == decision.model_version
        model = loop.served.model if loop.served is not None and same else _stored(decision, snapshots, engine)
    return reasons(decision, model, contents, snapshot)


def told(lines: Sequence[Line] | None) -> list[Reason] | None:
    """Lines as they are answered."""
    return None if lines is None else [Reason(what=line.what, kind=line.kind, effect=line.effect) for line in lines]


def with_reasons(answer: RankAnswer, found: Reasons) -> RankAnswer:
    """The answer with the reasons of each candidate that has some."""
    candidates = [
        one.model_copy(update={"reasons": told(found.get(one.content_id))}) for one in answer.candidates or ()
    ]
    return answer.model_copy(update={"candidates": candidates})


def _stored(decision: Decision, snapshots: Snapshots, engine: Engine) -> RewardModel | None:
    try:
        with reading(engine) as connection:
            return snapshots.model(connection, decision.loop_id, decision.model_version or "")
    except RewardloopError:
        return None
