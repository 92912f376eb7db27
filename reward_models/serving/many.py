"""Many decisions at once: those that ``rank`` makes one by one, bit for bit, in a fraction of the time.

1. requests that may choose among the same contents go together; the first of them is ranked alone, and says all that
   does not depend on unit, context and id
2. what depends on the context is computed once per different context: scores of all contents in all contexts, then all
   probabilities (``policies.pmfs``)
3. what depends on the decision is drawn from its own seed, as ever

    rank_many(snapshot, requests, secrets, limit) -> [Decision | Conflict]        in the order of the requests
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from infra.database import canonical_json
from infra.errors import Conflict
from infra.randomness import digest, uniform
from infra.secrets import Secrets
from ingestion.events import Candidate, Content, Decision, Placement
from reward_models import limits, policies
from reward_models.serving.campaigns import Campaign
from reward_models.serving.ranker import Request, Scores, baseline_of, draw, group_of, rank, settled
from reward_models.serving.snapshot import Loop, Snapshot, no_send

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_OWN = ("decision_id", "request_digest", "decided_at", "unit", "context")
"""What may differ between requests that are ranked together."""
_COMMON = tuple(field.name for field in fields(Request) if field.name not in _OWN)


def rank_many(
    snapshot: Snapshot, requests: Sequence[Request], secrets: Secrets, limit: int
) -> list[Decision | Conflict]:
    """What :func:`rank` says to each request, in their order; a conflict in place of a decision that this customer
    cannot have. Raises what it raises of the campaign."""
    alike: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(_kind(request), []).append(place)
    found: dict[int, Decision | Conflict] = {}
    for places in alike.values():
        some = [requests[place] for place in places]
        try:
            found.update(zip(places, _alike(snapshot, some, secrets, limit), strict=True))
        except Conflict as refused:
            found.update(dict.fromkeys(places, refused))
    return [found[place] for place in range(len(requests))]


def _kind(request: Request) -> Any:
    """Equal for requests that choose among the same contents under the same constraints."""
    return request.unit is None, *(getattr(request, name) for name in _COMMON)


def _alike(snapshot: Snapshot, requests: Sequence[Request], secrets: Secrets, limit: int) -> list[Decision]:
    first = rank(snapshot, requests[0], secrets, limit)
    loop, campaign = snapshot.loops[first.loop_id], snapshot.campaigns[first.campaign_id]
    ids = [candidate.content_id for candidate in first.candidates]
    contexts, of = _different([request.context for request in requests])
    scores = None if first.learning_mode == "fallback" else _scores(snapshot, loop, campaign, ids, contexts)
    bounds = limits.bounds(limits.read(first.constraints), ids)
    policy = None if scores is None else policies.pmfs(loop.policy, scores.mean, scores.sd, bounds)
    baseline = policies.baseline_pmf(baseline_of(campaign.baseline, first.constraints), ids)
    groups = [group_of(request, loop.definition, secrets) for request in requests]
    own = [policy is not None and group == "treatment" and first.learning_mode == "online" for group in groups]
    rows = np.where(own, of, len(contexts) if policy is not None else 0)
    behaviour = baseline[None, :] if policy is None else np.vstack([policy, baseline])
    table = _Table(ids, scores, policy, behaviour)
    seeds = [digest(secrets.loop(request.loop_id), "choice", request.decision_id) for request in requests]
    drawn = _drawn(requests, behaviour, rows, own, seeds, first.constraints, ids)
    return [
        msgspec.structs.replace(
            first,
            decision_id=request.decision_id,
            request_digest=request.request_digest,
            unit=None if request.unit is None else secrets.unit(request.unit),
            context=dict(request.context),
            group=group,
            candidates=table.candidates(context, row),
            chosen=tuple(
                Placement(position=place, content_id=ids[index], propensity=propensity)
                for place, (index, propensity) in enumerate(slate, 1)
            ),
            seed=seed.hex(),
            decided_at=request.decided_at,
        )
        for request, group, context, row, seed, slate in zip(
            requests, groups, of, rows.tolist(), seeds, drawn, strict=True
        )
    ]


def _scores(
    snapshot: Snapshot, loop: Loop, campaign: Campaign, ids: Sequence[str], contexts: Sequence[Mapping[str, Any]]
) -> Scores:
    """``ranker.score`` in each context, shape (n, k)."""
    contents = [campaign.contents.get(name) or no_send(campaign.campaign_id) for name in ids]
    standing = snapshot.standing(loop, campaign)
    effects, at = standing.effects, [standing.index[name] for name in ids]
    expected = _expected(loop, contents, contexts)
    mean = effects.scale * expected + effects.shift + effects.effect[at]
    sd = np.tile(effects.sd[at], (len(contexts), 1))
    if standing.contextual is not None:
        told = [standing.contextual.at(context, ids) for context in contexts]
        mean = mean + np.array([added for added, _ in told])
        sd = np.sqrt(sd**2 + np.array([variance for _, variance in told]))
    return Scores(expected, mean, sd)


def _expected(loop: Loop, contents: Sequence[Content], contexts: Sequence[Mapping[str, Any]]) -> Floats:
    if loop.served is None:
        return np.zeros((len(contexts), len(contents)))
    return loop.served.model.scores(contexts, loop.served.encode(contents))


def _different(contexts: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[int]]:
    """The different contexts, and the place of each one's own among them. True is not 1 here, as it is in JSON."""
    places: dict[bytes, int] = {}
    of = [places.setdefault(canonical_json(context), len(places)) for context in contexts]
    first = dict(zip(reversed(of), reversed(contexts), strict=True))
    return [first[place] for place in range(len(places))], of


def _drawn(
    requests: Sequence[Request],
    behaviour: Floats,
    rows: Ints,
    own: Sequence[bool],
    seeds: Sequence[bytes],
    constraints: Mapping[str, Any],
    ids: Sequence[str],
) -> list[list[tuple[int, float]]]:
    """``ranker.draw`` of each request from its row of ``behaviour``."""
    slots, bound = requests[0].slots, (settled(constraints, ids, False), settled(constraints, ids, True))
    if slots == 1 and bound == (([], []), ([], [])):
        return [[one] for one in _first(requests, behaviour, rows, seeds)]
    return [
        draw(behaviour[row], seed, request.decision_id, slots, *bound[mine])
        for request, row, mine, seed in zip(requests, rows, own, seeds, strict=True)
    ]


def _first(
    requests: Sequence[Request], behaviour: Floats, rows: Ints, seeds: Sequence[bytes]
) -> list[tuple[int, float]]:
    """Index and propensity of one slot, of all requests at once."""
    conditional = behaviour / behaviour.sum(axis=1, keepdims=True)
    reached = np.cumsum(conditional, axis=1)[rows]
    drawn = np.array([uniform(seed, "choice", one.decision_id) for one, seed in zip(requests, seeds, strict=True)])
    index = (reached <= (drawn * reached[:, -1])[:, None]).sum(axis=1)
    last = conditional.shape[1] - 1 - np.argmax(conditional[:, ::-1] > 0.0, axis=1)
    index = np.minimum(index, last[rows])
    return list(zip(index.tolist(), conditional[rows, index].tolist(), strict=True))


class _Table:
    """What decisions hold of their candidates, by context and by the row of ``behaviour`` drawn from: made once each."""

    def __init__(self, ids: Sequence[str], scores: Scores | None, policy: Floats | None, behaviour: Floats) -> None:
        self._ids, self._nothing = ids, [None] * len(ids)
        self._scores = None if scores is None else [part.tolist() for part in (scores.expected, scores.mean, scores.sd)]
        self._policy = None if policy is None else policy.tolist()
        self._behaviour = behaviour.tolist()
        self._made: dict[tuple[int, int], tuple[Candidate, ...]] = {}

    def candidates(self, context: int, row: int) -> tuple[Candidate, ...]:
        """The candidates of a decision in this context that was drawn from this row."""
        found = self._made.get((context, row))
        if found is None:
            found = self._made[context, row] = self._candidates(context, row)
        return found

    def _candidates(self, context: int, row: int) -> tuple[Candidate, ...]:
        expected, mean, sd = (self._nothing,) * 3 if self._scores is None else (of[context] for of in self._scores)
        policy = self._nothing if self._policy is None else self._policy[context]
        each = zip(self._ids, expected, mean, sd, policy, self._behaviour[row], strict=True)
        return tuple(
            Candidate(
                content_id=name,
                score=middle,
                expected=predicted,
                mean=middle,
                sd=width,
                policy_p=asked,
                behaviour_p=played,
            )
            for name, predicted, middle, width, asked, played in each
        )
