"""One decision: a request and a snapshot in, a decision out. Pure: no database, no clock, no library randomness.

1. candidates: named, of the campaign, or drafts; what is not eligible is excluded with its reason. A customer who may
   not be sent anything has one candidate, sending nothing, and the decision never starts
2. group: the unit's keyed hash says holdout or treatment; without a unit there is nobody to hold out
3. scores: model prediction at the campaign's level + the content's own effect, with a standard deviation
4. policy's pmf within the loop's limits on shares, baseline's pmf; what is drawn from is the policy's only for
   treatment in an online loop
5. draw the slate with uniforms made from the decision's own seed; what it must include is drawn in time

The seed is HMAC(loop secret, choice, decision id); draw i is uniform(seed, choice, decision id, i), so that a replay
needs the stored row and no secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput, Conflict
from infra.randomness import SAMPLER, digest, uniform
from infra.secrets import Secrets
from ingestion.events import NO_SEND, Candidate, Content, Decision, Exclusion, Group, Mode, Placement
from ingestion.loops import LoopDefinition
from reward_models import limits, policies
from reward_models.boosted import Encoded, RewardModel
from reward_models.contextual import Contextual
from reward_models.limits import Bounds
from reward_models.posterior import Effects
from reward_models.serving.campaigns import Campaign
from reward_models.serving.eligibility import OPEN, Capped, refusal
from reward_models.serving.snapshot import OPEN_BASELINE, Loop, Snapshot, no_send

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOTHING_SENT: Mapping[str, int] = {}

FALLBACK_POLICY = "baseline@1"
"""Policy version of a fallback answer: the policy was not asked."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, validated. ``candidates``: ids, or null for the campaign's own contents."""

    decision_id: str
    request_digest: str
    loop_id: str
    campaign_id: str
    decided_at: int
    unit: str | None = None
    """The customer's id in clear; the decision holds its hash."""
    context: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    must_include: tuple[str, ...] = ()
    """Contents that the slate has to hold."""
    control: tuple[str, ...] = ()
    """What the caller would show by position, in place of the campaign's baseline."""
    suppressed: str | None = None
    """Why the customer must not be sent anything."""
    capped: Capped = OPEN
    """What the customer was sent often enough."""
    slots: int = 1
    deferred: bool = False


@dataclass(frozen=True)
class Scores:
    """Per candidate, shape (k,): prediction without own effect, posterior mean and standard deviation."""

    expected: Floats
    mean: Floats
    sd: Floats


@dataclass(frozen=True)
class Prepared:
    """Candidates as they are scored, before the context is known; arrays of shape (k,)."""

    model: RewardModel | None
    encoded: Encoded | None
    effects: Effects
    effect: Floats
    """The candidates' own."""
    sd: Floats
    layer: Contextual | None
    places: Ints | None
    """Where the candidates are in the layer."""


@dataclass(frozen=True)
class Lineup:
    """Who may be chosen, and what of the decision does not depend on customer and context."""

    ids: Sequence[str]
    """The candidates, sorted."""
    excluded: tuple[Exclusion, ...]
    withheld: str | None
    """Why the customer is sent nothing."""
    shares: Mapping[str, Sequence[float]]
    bounds: Bounds | None
    baseline: Floats
    """The campaign's own."""
    prepared: Prepared | None
    """Null in a fallback."""


def rank(snapshot: Snapshot, request: Request, secrets: Secrets, limit: int, away: bool = False) -> Decision:
    """The decision; ``away``: it cannot be stored, so it is the baseline's.

    Raises :class:`BadInput` when there is nothing to choose from, or too much (``limit``), :class:`Conflict` when what the
    slate must include is not eligible, or everything is capped in a loop that does not allow sending nothing.
    """
    loop, campaign = _found(snapshot, request)
    group: Group = group_of(request, loop.definition, secrets)
    mode: Mode = "fallback" if away else mode_of(loop)
    lineup = lineup_of(snapshot, loop, campaign, request, limit, mode == "fallback")
    ids = lineup.ids
    constraints = _constraints(request, loop.definition, lineup.shares, lineup.withheld)
    baseline = lineup.baseline
    if request.control:
        baseline = policies.baseline_pmf(baseline_of(campaign.baseline, constraints), ids)
    scores = None if lineup.prepared is None else scores_of(lineup.prepared, request.context)
    policy = None if scores is None else policies.pmf(loop.policy, scores.mean, scores.sd, lineup.bounds)
    own = policy is not None and group == "treatment" and mode == "online"
    behaviour = policy if policy is not None and own else baseline
    seed = digest(secrets.loop(request.loop_id), "choice", request.decision_id)
    drawn = draw(behaviour, seed, request.decision_id, request.slots, *settled(constraints, ids, own))
    served = loop.served if mode != "fallback" else None
    return Decision(
        decision_id=request.decision_id,
        request_digest=request.request_digest,
        loop_id=request.loop_id,
        loop_version=loop.version,
        campaign_id=request.campaign_id,
        unit=secrets.unit(request.unit) if request.unit is not None else None,
        context=dict(request.context),
        group=group,
        learning_mode=mode,
        candidates=_candidates(ids, scores, policy, behaviour),
        excluded=lineup.excluded,
        chosen=tuple(
            Placement(position=place, content_id=ids[index], propensity=propensity)
            for place, (index, propensity) in enumerate(drawn, 1)
        ),
        policy_version=FALLBACK_POLICY if mode == "fallback" else loop.policy_version,
        model_version=served.version if served else None,
        stats_version=snapshot.stats_version,
        feature_schema=served.model.schema.hash if served else None,
        sampler=SAMPLER,
        floor=loop.policy.floor,
        constraints=constraints,
        seed=seed.hex(),
        deferred=request.deferred or lineup.withheld is not None,
        decided_at=request.decided_at,
    )


def lineup_of(
    snapshot: Snapshot, loop: Loop, campaign: Campaign, request: Request, limit: int, fallback: bool
) -> Lineup:
    """Who may be chosen. What requests without wishes of their own are offered is put together once per snapshot."""
    if request.candidates is not None or request.excluded or request.must_include:
        return _line_up(snapshot, loop, campaign, request, limit, fallback)
    if request.suppressed is not None or request.capped != OPEN:
        return _line_up(snapshot, loop, campaign, request, limit, fallback)
    key = (campaign.campaign_id, limit, fallback)
    found = snapshot.lineups.get(key)
    if found is None:
        found = snapshot.lineups[key] = _line_up(snapshot, loop, campaign, request, limit, fallback)
    return found


def _line_up(
    snapshot: Snapshot, loop: Loop, campaign: Campaign, request: Request, limit: int, fallback: bool
) -> Lineup:
    contents, excluded, withheld = offer(snapshot, loop, campaign, request, limit)
    ids = [content.content_id for content in contents]
    shares = limits.stored(loop.definition.limits, ids)
    return Lineup(
        ids=ids,
        excluded=tuple(excluded),
        withheld=withheld,
        shares=shares,
        bounds=limits.bounds(shares, ids),
        baseline=policies.baseline_pmf(campaign.baseline or OPEN_BASELINE, ids),
        prepared=None if fallback else prepare(snapshot, loop, campaign, contents),
    )


def offer(
    snapshot: Snapshot, loop: Loop, campaign: Campaign, request: Request, limit: int
) -> tuple[list[Content], list[Exclusion], str | None]:
    """Candidates and exclusions as of :func:`eligible`, and why the customer is sent nothing: then that is the only
    candidate. A suppressed customer is sent nothing in any loop; where caps leave nothing, the loop has to allow it."""
    nothing = [no_send(campaign.campaign_id)]
    if request.suppressed is not None:
        return nothing, [], f"suppressed: {request.suppressed}"
    definition, (everything, until, some) = loop.definition, request.capped
    sent = sends(snapshot, definition, campaign)
    if everything is None and not (some and _all_capped(definition, campaign, request, sent)):
        return *eligible(definition, campaign, request, limit, sent), None
    reason = everything or "every content is capped"
    if not definition.no_send:
        raise Conflict(refusal(reason, until), "/unit")
    return nothing, [Exclusion(content_id=name, reason=why) for name, why in some], reason


def eligible(
    definition: LoopDefinition, campaign: Campaign, request: Request, limit: int, sent: Mapping[str, int] = NOTHING_SENT
) -> tuple[list[Content], list[Exclusion]]:
    """The candidates sorted by content id, and what was left out, with reasons, sorted too.

    sent: how often contents with a budget were shown.
    """
    asked = sorted({*_asked(definition, campaign, request), *request.excluded})
    reasons = {name: _reason(name, definition, campaign, request, sent) for name in asked}
    if request.must_include:
        _check_included(request, reasons)
    chosen = [name for name in asked if reasons[name] is None]
    if len(chosen) > limit:
        raise BadInput(
            f"Campaign {campaign.campaign_id!r} has {len(chosen)} eligible contents; at most {limit} are ranked at once: "
            "name the candidates, or retire some",
            "/candidates",
        )
    if not chosen:
        raise BadInput(_empty(campaign, [(name, reason) for name, reason in reasons.items() if reason]), "/candidates")
    contents = [campaign.contents.get(name) or no_send(campaign.campaign_id) for name in chosen]
    return contents, [Exclusion(content_id=name, reason=reason) for name, reason in reasons.items() if reason]


def sends(snapshot: Snapshot, definition: LoopDefinition, campaign: Campaign) -> dict[str, int]:
    """How often each content of the campaign that has a budget was shown, as of the snapshot's statistics.

    Decisions of the last second are not counted yet, so a budget may be passed by as many.
    """
    budgeted = {name for name, one in definition.limits.items() if one.budget is not None and name in campaign.contents}
    if not budgeted:
        return {}
    by_metric: dict[tuple[str, str], int] = {}  # each metric repeats the exposures
    for rows in snapshot.statistics.get(campaign.campaign_id, {}).values():
        for row in rows:
            if row.content_id in budgeted:
                by_metric[row.content_id, row.metric] = by_metric.get((row.content_id, row.metric), 0) + row.exposures
    return {name: max((n for (of, _), n in by_metric.items() if of == name), default=0) for name in budgeted}


def held_out(request: Request, definition: LoopDefinition) -> float:
    """The probability with which this request's unit is in the holdout."""
    return 0.0 if request.unit is None else definition.holdout


def group_of(request: Request, definition: LoopDefinition, secrets: Secrets) -> Group:
    """Holdout by the unit, for ever the same; a request without a unit is treatment."""
    if request.unit is None:
        return "treatment"
    drawn = uniform(secrets.holdout(request.loop_id), "holdout", request.unit)
    return "holdout" if drawn < held_out(request, definition) else "treatment"


def mode_of(loop: Loop) -> Mode:
    """The loop's learning mode, or fallback: killed, or a champion without a usable model."""
    return "fallback" if loop.fallback else loop.definition.learning_mode


def score(
    snapshot: Snapshot, loop: Loop, campaign: Campaign, contents: Sequence[Content], context: Mapping[str, Any]
) -> Scores:
    """Scores of the candidates in this context: scale · model + shift + effect + what the newest decisions say of such
    contexts. Without a model the prediction is 0."""
    return scores_of(prepare(snapshot, loop, campaign, contents), context)


def prepare(snapshot: Snapshot, loop: Loop, campaign: Campaign, contents: Sequence[Content]) -> Prepared:
    """What of the candidates' scores does not depend on the context."""
    standing, served = snapshot.standing(loop, campaign), loop.served
    names = [content.content_id for content in contents]
    at = [standing.index[name] for name in names]
    layer = standing.contextual
    return Prepared(
        model=None if served is None else served.model,
        encoded=None if served is None else served.encode(contents),
        effects=standing.effects,
        effect=standing.effects.effect[at],
        sd=standing.effects.sd[at],
        layer=layer,
        places=None if layer is None else layer.places(names),
    )


def scores_of(prepared: Prepared, context: Mapping[str, Any]) -> Scores:
    """:func:`score` of candidates that are prepared."""
    model, encoded, effects = prepared.model, prepared.encoded, prepared.effects
    expected = np.zeros(len(prepared.sd))
    if model is not None and encoded is not None:
        expected = model.score(context, encoded)
    mean, sd = effects.scale * expected + effects.shift + prepared.effect, prepared.sd
    if prepared.layer is not None and prepared.places is not None:
        added, variance = prepared.layer.at_places(context, prepared.places)
        mean, sd = mean + added, np.sqrt(sd**2 + variance)
    return Scores(expected, mean, sd)


def baseline_of(frozen: Mapping[str, Any], constraints: Mapping[str, Any]) -> Mapping[str, Any]:
    """The baseline of a decision: the caller's control, else the campaign's own, else uniform."""
    if "control" in constraints:
        return {"content_ids": constraints["control"][:1], "weights": [1.0]}
    return frozen or OPEN_BASELINE


def settled(constraints: Mapping[str, Any], ids: Sequence[str], own: bool) -> tuple[list[int], list[int | None]]:
    """What a slate has to hold, and what stands at each position for certain (null: it is drawn): indices. ``own``: the
    policy draws."""
    if "must_include" not in constraints and "control" not in constraints:
        return [], []
    at = {name: index for index, name in enumerate(ids)}
    order = [] if own else [at.get(name) for name in constraints.get("control", ())]
    return [at[name] for name in constraints.get("must_include", ()) if name in at], order


def draw(
    behaviour: Floats,
    seed: bytes,
    decision_id: str,
    slots: int,
    must: Sequence[int] = (),
    order: Sequence[int | None] = (),
) -> list[tuple[int, float]]:
    """The slate: index and propensity per position, from the decision's own seed (``policies.draw_slate``)."""
    uniforms = [uniform(seed, "choice", decision_id, place) for place in range(min(slots, len(behaviour)))]
    return policies.draw_slate(behaviour, uniforms, slots, must, order)


def _found(snapshot: Snapshot, request: Request) -> tuple[Loop, Campaign]:
    loop, campaign = snapshot.loops[request.loop_id], snapshot.campaigns[request.campaign_id]
    if campaign.loop_id != request.loop_id:
        raise BadInput(
            f"Campaign {request.campaign_id!r} belongs to loop {campaign.loop_id!r}, not {request.loop_id!r}; "
            "name the campaign's own loop",
            "/loop",
        )
    if campaign.state != "running":
        todo = "register a new one" if campaign.state == "ended" else "start it with POST /v1/campaigns, state running"
        raise BadInput(f"Campaign {request.campaign_id!r} is {_STATES[campaign.state]}; {todo}", "/campaign")
    return loop, campaign


_STATES = {"draft": "not started", "ended": "over"}


def _asked(definition: LoopDefinition, campaign: Campaign, request: Request) -> list[str]:
    """The candidates before anything is left out: those named, else the campaign's approved ones. What must be included is
    one, too; where that fills the slate, there are no others."""
    if len(request.must_include) == request.slots:
        return list(request.must_include)
    if request.candidates is not None:
        return [*request.candidates, *request.must_include]
    approved = [name for name, content in campaign.contents.items() if content.approval == "approved"]
    return [*approved, *request.must_include, *((NO_SEND,) if approved and definition.no_send else ())]


def _check_included(request: Request, reasons: Mapping[str, str | None]) -> None:
    must = request.must_include
    if len(set(must)) < len(must) or len(must) > request.slots:
        raise BadInput(
            f"must_include names {len(must)} contents for {request.slots} slots; name each once, and no more than slots",
            "/must_include",
        )
    for name in must:
        if (reason := reasons[name]) is not None:
            kind = BadInput if name in request.excluded else Conflict
            raise kind(
                f"Content {name!r} must be included but is not eligible ({reason}); take it out", "/must_include"
            )


def _all_capped(definition: LoopDefinition, campaign: Campaign, request: Request, sent: Mapping[str, int]) -> bool:
    """Whether caps leave nothing that could be sent."""
    capped = {name for name, _ in request.capped.contents}
    asked = [name for name in _asked(definition, campaign, request) if name != NO_SEND]
    left = [name for name in asked if _reason(name, definition, campaign, request, sent) is None]
    return not left and not capped.isdisjoint(asked)


def _constraints(
    request: Request, definition: LoopDefinition, shares: Mapping[str, Any], withheld: str | None
) -> dict[str, Any]:
    """What was in force, as stored: a replay reads it."""
    known = {"limits": shares, "must_include": list(request.must_include), "control": list(request.control)}
    if withheld is not None:
        known = {"withheld": withheld}
    return {"slots": request.slots, "holdout": held_out(request, definition)} | {
        name: value for name, value in known.items() if value
    }


def _reason(
    name: str, definition: LoopDefinition, campaign: Campaign, request: Request, sent: Mapping[str, int]
) -> str | None:
    if name in request.excluded:
        return "excluded by the request"
    if name == NO_SEND:
        return None if definition.no_send else "the loop does not allow sending nothing"
    content = campaign.contents.get(name)
    if content is None:
        return f"no content of campaign {campaign.campaign_id}"
    if content.approval != "approved":
        return f"not approved: {content.approval}"
    for capped, reason in request.capped.contents:
        if capped == name:
            return reason
    limit = definition.limits.get(name)
    used = limit is not None and limit.budget is not None and sent.get(name, 0) >= limit.budget
    return "its budget of sends is used up" if used else None


def _empty(campaign: Campaign, reasons: Sequence[tuple[str, str]]) -> str:
    if not campaign.contents:
        return (
            f"Campaign {campaign.campaign_id!r} has no contents; register some with POST /v1/contents and approve them"
        )
    seen = "; ".join(f"{name}: {reason}" for name, reason in reasons[:5])
    return (
        f"Campaign {campaign.campaign_id!r} has no eligible content{f' ({seen})' if seen else ''}; "
        "approve one with POST /v1/contents/{id}/approval, or exclude fewer"
    )


def _candidates(
    ids: Sequence[str], scores: Scores | None, policy: Floats | None, behaviour: Floats
) -> tuple[Candidate, ...]:
    if scores is None or policy is None:
        return tuple(Candidate(content_id=name, behaviour_p=p) for name, p in zip(ids, behaviour.tolist(), strict=True))
    columns = (scores.expected, scores.mean, scores.sd, policy, behaviour)
    return tuple(
        Candidate(content_id=name, score=mean, expected=expected, mean=mean, sd=sd, policy_p=own, behaviour_p=drawn)
        for name, expected, mean, sd, own, drawn in zip(ids, *(column.tolist() for column in columns), strict=True)
    )
