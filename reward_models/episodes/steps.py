"""Episodes: the decisions that one customer got within a horizon, one after the other.

A customer's first decision opens an episode, those within the horizon belong to it, the next one after it opens another.
A decision's reward is its own, matured as everywhere, and counts γ^days after the episode's first. Columns of a step:

    context                                  as in ``features.py``
    step, days since the last, since the first, how many earlier ones were answered by then
    content of the candidate, and how often the episode has shown it before

All of it was known when deciding (invariant 14). Only whole episodes count: the horizon has passed and all is mature, every
decision was drawn by the policy with a known probability (treatment, online, first position).

    episodes_of(training, baselines, settings, until) -> Episodes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from infra.clock import DAY
from infra.errors import EstimateRefused
from reward_models.dataset import TrainingSet
from reward_models.features import build_schema, content_rows, context_rows
from reward_models.logged import Clustered
from reward_models.policies import baseline_pmf
from reward_models.trial import OPEN_BASELINE, decided_by_chance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LONGEST = 12
"""Most decisions of an episode; later ones are cut off, and their rewards with them."""
CODED = 50
"""With more contents than this they are told apart by their features only."""


class EpisodeSettings(NamedTuple):
    """``horizon``: microseconds; ``discount``: what a reward is worth a day later; ``longest``: most decisions."""

    horizon: int = 28 * DAY
    discount: float = 1.0
    longest: int = LONGEST


@dataclass(frozen=True)
class Episodes:
    """n decisions with up to k candidates, sorted by episode and step; past a row's candidates tables are 0."""

    episode: Ints
    """0, 1, 2 …, shape (n,)."""
    step: Ints
    """0, 1, 2 … within the episode, shape (n,)."""
    units: tuple[str, ...]
    """Of each episode."""
    reward: Floats
    weight: Floats
    """γ^days since the episode's first decision, shape (n,)."""
    chosen: Ints
    """Column of what was shown, shape (n,)."""
    behaviour: Floats
    """What was drawn from, (n, k)."""
    state: Floats
    """What is known of the step, (n, s)."""
    action: Floats
    """What is known of each content, (contents, c)."""
    candidate: Ints
    """Content of each candidate, (n, k); −1 past a row's candidates."""
    repeats: Floats
    """How often the episode has shown each candidate before, (n, k)."""
    policies: Mapping[str, Floats]
    """Policies to value, (n, k) each."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def first(self) -> Ints:
        """Row of each episode's first step."""
        return np.flatnonzero(self.step == 0)

    @property
    def last(self) -> Mask:
        """Rows with no step after them, shape (n,)."""
        return np.append(self.step[1:] == 0, True) if len(self) else np.zeros(0, dtype=np.bool_)

    def columns(self, rows: Ints, candidate: int | None = None) -> Floats:
        """What Q reads of these rows with what was shown, or with the candidate of that column."""
        at = self.chosen[rows] if candidate is None else np.full(len(rows), candidate)
        content = self.candidate[rows, at]
        return np.hstack([self.state[rows], self.action[content], self.repeats[rows, at][:, None]])


class PerEpisode(Clustered):
    """Episodes as rows that belong to units."""

    def __init__(self, units: Sequence[str]) -> None:
        self.clusters = units

    def __len__(self) -> int:
        return len(self.clusters)


def episodes_of(
    training: TrainingSet,
    baselines: Mapping[str, Mapping[str, Any]],
    settings: EpisodeSettings,
    until: int,
) -> Episodes:
    """Whole episodes of customers all of whose decisions were drawn by chance, ended by ``until`` (microseconds).

    Raises :class:`EstimateRefused` when there are none.
    """
    chance = decided_by_chance(training.subset(training.position == 1))
    drawn = set(chance.decision_id)
    mixed = {unit for unit, name in zip(training.unit, training.decision_id, strict=True) if name not in drawn}
    known = np.array([unit is not None and unit not in mixed for unit in chance.unit], dtype=np.bool_)
    rows = chance.subset(known)
    order, episode, step = _cut(rows, settings, until)
    if not len(order):
        raise EstimateRefused(
            f"No episode of {settings.horizon / DAY:g} days is over whose decisions were all drawn by chance; wait for "
            "their outcomes, or take a shorter --horizon"
        )
    return _assembled(rows.subset(order), episode, step, baselines, settings)


def _cut(rows: TrainingSet, settings: EpisodeSettings, until: int) -> tuple[Ints, Ints, Ints]:
    """Rows in order of unit and time that are in whole episodes, with the number of the episode and the step."""
    order = sorted(
        range(len(rows)), key=lambda row: (rows.unit[row] or "", rows.decided_at[row], rows.decision_id[row])
    )
    kept: list[tuple[int, int, int]] = []
    opened, unit, number, step = 0, "", -1, 0
    for row in order:
        at, whose = int(rows.decided_at[row]), rows.unit[row] or ""
        if whose != unit or at >= opened + settings.horizon:
            opened, unit, step = at, whose, 0
            number += opened + settings.horizon <= until
        if opened + settings.horizon <= until and step < settings.longest:
            kept.append((row, number, step))
        step += 1
    found = np.array(kept, dtype=np.int64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def _assembled(
    rows: TrainingSet,
    episode: Ints,
    step: Ints,
    baselines: Mapping[str, Mapping[str, Any]],
    settings: EpisodeSettings,
) -> Episodes:
    n, widest = len(rows), max(len(candidates) for candidates in rows.candidates)
    behaviour, candidate = np.zeros((n, widest)), np.full((n, widest), -1, dtype=np.int64)
    policies = {name: np.zeros((n, widest)) for name in ("policy", "baseline", "uniform")}
    chosen = np.zeros(n, dtype=np.int64)
    for row in range(n):
        contents = rows.candidate_contents(row)
        k, ids = len(contents), [content.content_id for content in contents]
        campaign = rows.contents[rows.content[row]].campaign_id
        behaviour[row, :k] = [one.behaviour_p or 0.0 for one in rows.candidates[row]]
        policies["policy"][row, :k] = [one.policy_p or 0.0 for one in rows.candidates[row]]
        policies["baseline"][row, :k] = baseline_pmf(baselines.get(campaign) or OPEN_BASELINE, ids)
        policies["uniform"][row, :k] = 1.0 / k
        candidate[row, :k] = [rows.index[campaign, name] for name in ids]
        chosen[row] = ids.index(rows.contents[rows.content[row]].content_id)
    first = np.flatnonzero(step == 0)[episode]
    days = (rows.decided_at - rows.decided_at[first]) / DAY
    repeats = repeats_of(step, candidate, chosen)
    return Episodes(
        episode=episode,
        step=step,
        units=tuple(rows.unit[row] or "" for row in np.flatnonzero(step == 0)),
        reward=rows.reward,
        weight=settings.discount**days,
        chosen=chosen,
        behaviour=behaviour,
        state=_state(rows, step, first, days),
        action=_action(rows),
        candidate=candidate,
        repeats=repeats,
        policies={**policies, "no repeats": rested(behaviour, repeats)},
    )


def repeats_of(step: Ints, candidate: Ints, chosen: Ints) -> Floats:
    """How often each candidate was shown at earlier steps of its episode, (n, k)."""
    found = np.zeros(candidate.shape)
    begin = 0
    for row in range(len(step)):
        begin = row if step[row] == 0 else begin
        shown = candidate[np.arange(begin, row), chosen[begin:row]]
        found[row] = (candidate[row][:, None] == shown[None, :]).sum(axis=1)
    return found


def rested(behaviour: Floats, repeats: Floats) -> Floats:
    """The policy that draws as it did, but shows nothing twice in one episode while there is something else, (n, k)."""
    fresh = np.where(repeats > 0.0, 0.0, behaviour)
    total = fresh.sum(axis=1, keepdims=True)
    return np.where(total > 0.0, fresh / np.where(total > 0.0, total, 1.0), behaviour)


def _state(rows: TrainingSet, step: Ints, first: Ints, days: Floats) -> Floats:
    schema = build_schema(rows.contexts, rows.contents)
    since_last = np.where(step > 0, days - np.roll(days, 1), np.nan)
    journey = np.column_stack([step, since_last, days, _answered(rows, first)])
    return np.hstack([context_rows(schema, rows.contexts, [1] * len(rows)), journey])


def _answered(rows: TrainingSet, first: Ints) -> Floats:
    """How many earlier decisions of the episode had an outcome by the time of each, shape (n,)."""
    answer = np.full(len(rows), np.inf)
    for came in rows.timing.arrivals.values() if rows.timing is not None else ():
        np.minimum.at(answer, came.row, rows.decided_at[came.row] + came.delay)
    return np.array(
        [float((answer[begin:row] <= rows.decided_at[row]).sum()) for row, begin in enumerate(first.tolist())]
    )


def _action(rows: TrainingSet) -> Floats:
    schema = build_schema(rows.contexts, rows.contents)
    known = content_rows(schema, rows.contents, np.full(len(rows.contents), np.nan))
    codes = np.eye(len(rows.contents)) if len(rows.contents) <= CODED else np.zeros((len(rows.contents), 0))
    return np.hstack([known, codes])
