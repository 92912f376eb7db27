"""What people and judges think of contents, as the start of what is believed of their effects.

    r_k / level = slope · z_k + rest_k      r: what content k earned beyond its prediction; z: the opinion of it, centred in
                                            its campaign and scaled (``judging/agreement.py``, which weighs both)
    said_k = slope · z_k                    where the effect of k starts, relative to the level (``posterior.py``)

An opinion is the strength that people's preferences give a content, or a judge's rating. The slope of a campaign is
learned from the loop's *other* campaigns, so that no outcome is used twice (of more than ``GROUPS``, from those of other
groups: what it costs grows no faster than the copy). While its 95 % interval is not above 0 the
opinion is not listened to, and said_k is 0: taste is never taken for what customers do. Where outcomes are many they
overrule what was said, as they overrule the prediction. Of several opinions the one that tells most is heard first, and the
next for what that leaves, so that what two of them have in common counts once.

Order: 1 what was said 2 what was earned beyond predictions 3 whom to hear, campaign by campaign 4 what that says of contents

    load_said(connection, loop_id) -> Said                              load_opinions(connection, definition, campaigns, said) -> Opinions
    hear(said, earned, campaigns) -> Opinions                           steps 3 and 4, from values
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from ingestion.copy.stored import campaigns_of
from ingestion.loops import LoopDefinition
from reward_models.folds import codes_of
from reward_models.judging.agreement import Agreement, agreement_of
from reward_models.judging.ratings import Rating, load_ratings
from reward_models.judging.realised import Realised
from reward_models.posterior import ArmCounts
from reward_models.preferences.judgements import load_judgements
from reward_models.preferences.strengths import fit_strengths
from reward_models.statistics import load_beyond

Floats = npt.NDArray[np.float64]

PEOPLE = "people"
"""The opinion of all people together."""
LEAST_SHOWN = 100.0
"""Fewer decisions than this in a campaign say nothing of its contents."""
GROUPS = 20
"""Most groups of campaigns that are left out one after the other."""
_LEAST_VARIANCE = 0.01
"""Least variance of one decision's reward, relative to level²."""

Said = Mapping[str, Mapping[str, Rating]]
"""By opinion, then by content."""


@dataclass(frozen=True)
class Earned:
    """Contents that were shown, and what they earned beyond their predictions; ``found.reward`` includes the level."""

    names: tuple[str, ...]
    campaigns: tuple[str, ...]
    """Of each content."""
    found: Realised


@dataclass(frozen=True)
class Opinions:
    """What is known of opinions in a loop."""

    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    """Of each opinion alone with what was earned, over all campaigns: for readers."""
    said: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By campaign, then content: where its effect starts, relative to the level. What is 0 is left out."""

    def of(self, campaign_id: str, content_ids: Collection[str]) -> Floats:
        """Starts of these contents, shape (k,)."""
        known = self.said.get(campaign_id, {})
        return np.array([known.get(name, 0.0) for name in content_ids], dtype=np.float64)


SILENCE = Opinions()


def in_words(name: str, agreement: Agreement) -> str:
    """What is known of an opinion, and what follows."""
    if not agreement.contents:
        return f"{name}: no content it was about was shown yet, so it moves nothing."
    low, high = agreement.interval
    known = f"{name}: correlates {agreement.correlation:+.2f} ({low:+.2f} to {high:+.2f}) with what "
    known += f"{agreement.contents:,} contents earned beyond their predictions"
    if agreement.state == "trusted":
        return f"{known}; one standard deviation of it is worth {agreement.slope:+.1%} where outcomes are few."
    return f"{known}; it moves nothing, because that is {agreement.state}."


def load_said(connection: Connection, loop_id: str) -> Said:
    """Step 1: ratings of judges, and strengths by people's preferences, which are as old as their contents."""
    said: dict[str, Mapping[str, Rating]] = {**load_ratings(connection, loop_id)}
    comparisons = load_judgements(connection, loop_id).comparisons
    if comparisons:
        ages = _ages(connection, loop_id)
        strength = fit_strengths(comparisons).strength
        said[PEOPLE] = {name: Rating(value, ages[name]) for name, value in strength.items()}
    return said


def load_opinions(
    connection: Connection, definition: LoopDefinition, campaigns: Collection[str], said: Said
) -> Opinions:
    """Steps 2 to 4 for these campaigns of a loop."""
    if not said:
        return SILENCE
    earned = earned_of(load_beyond(connection, definition.loop, definition.reward))
    of_campaign: dict[str, list[str]] = {name: [] for name in campaigns}
    for content_id, campaign_id in sorted(campaigns_of(connection, definition.loop).items()):
        if campaign_id in of_campaign:
            of_campaign[campaign_id].append(content_id)
    return hear(said, earned, of_campaign)


def earned_of(counts: Mapping[str, tuple[list[str], ArmCounts]]) -> Earned:
    """What contents earned, from the counts of their campaigns, whose predictions are in proportion
    (``statistics.load_beyond``)."""
    names, campaigns, columns = [], [], []
    for campaign_id, (contents, seen) in counts.items():
        shown = float(seen.exposures.sum())
        level = float(seen.sums.sum()) / shown if shown >= LEAST_SHOWN else 0.0
        if level <= 0.0:
            continue
        kept = seen.exposures > 0.0
        n = seen.exposures[kept]
        within = float((seen.sum_squares[kept] - seen.sums[kept] ** 2 / n).sum()) / shown
        variance = max(within, _LEAST_VARIANCE * level**2) / n
        columns.append(np.array([level + (seen.sums - seen.expected)[kept] / n, variance, n]))
        names += [name for name, known in zip(contents, kept.tolist(), strict=True) if known]
        campaigns += [campaign_id] * len(n)
    reward, variance, exposures = np.concatenate(columns, axis=1) if columns else np.zeros((3, 0))
    found = Realised(np.arange(len(names)), codes_of(campaigns), reward, variance, exposures)
    return Earned(tuple(names), tuple(campaigns), found)


def hear(said: Said, earned: Earned, campaigns: Mapping[str, Collection[str]]) -> Opinions:
    """Steps 3 and 4. ``campaigns``: the contents of those that opinions are wanted for."""
    rating, order = _aligned(said, earned)
    agreements = {name: agreement_of(rating[name], order[name], earned.found) for name in said}
    group = {name: place % GROUPS for place, name in enumerate(sorted(set(earned.campaigns)))}
    whose = np.array([group[name] for name in earned.campaigns])
    heard: dict[int | None, list[tuple[str, Agreement]]] = {}
    found = {}
    for campaign_id, contents in campaigns.items():
        about = {name: [one for one in contents if one in said[name]] for name in said}
        if all(len(names) < 2 for names in about.values()):
            continue
        own = group.get(campaign_id)
        if own not in heard:
            others = {name: np.where(whose == own, np.nan, values) for name, values in rating.items()}
            heard[own] = _listened(others, order, earned.found)
        starts: dict[str, float] = {}
        for name, agreement in heard[own]:
            values = np.array([said[name][one].rating for one in about[name]])
            foretold = agreement.foretell(values, np.zeros(len(values), dtype=np.int64))[0] if len(values) else values
            for one, start in zip(about[name], foretold.tolist(), strict=True):
                starts[one] = starts.get(one, 0.0) + start
        if starts:
            found[campaign_id] = starts
    return Opinions(agreements, found)


def _listened(
    rating: Mapping[str, Floats], order: Mapping[str, Floats], found: Realised
) -> list[tuple[str, Agreement]]:
    """Opinions that are surely right about what is left by those before them, the one that tells most first."""
    heard: list[tuple[str, Agreement]] = []
    left = dict(rating)
    while left:
        judged = {name: agreement_of(values, order[name], found) for name, values in left.items()}
        trusted = {name: one for name, one in judged.items() if one.state == "trusted"}
        if not trusted:
            break
        name = max(trusted, key=lambda one: (trusted[one].weight, one))
        heard.append((name, trusted[name]))
        found = _less(found, left.pop(name), trusted[name])
    return heard


def _less(found: Realised, rating: Floats, agreement: Agreement) -> Realised:
    """What was earned beyond what this opinion foretold."""
    rows = np.flatnonzero(np.isfinite(rating))
    total = np.bincount(found.campaign, found.exposures * found.reward)
    level = (total / np.bincount(found.campaign, found.exposures))[found.campaign[rows]]
    reward = found.reward.copy()
    reward[rows] -= level * agreement.foretell(rating[rows], found.campaign[rows])[0]
    return replace(found, reward=reward)


def _aligned(said: Said, earned: Earned) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Ratings and their times of the contents that were shown, shape (k,) each; nan where nothing was said."""
    unsaid = Rating(float("nan"), 0)
    rows = {name: [opinion.get(one, unsaid) for one in earned.names] for name, opinion in said.items()}
    return (
        {name: np.array([row.rating for row in own], dtype=np.float64) for name, own in rows.items()},
        {name: np.array([row.at for row in own], dtype=np.float64) for name, own in rows.items()},
    )


def _ages(connection: Connection, loop_id: str) -> dict[str, int]:
    """When each content of the loop was registered."""
    contents, campaigns = tables.contents.c, tables.campaigns.c
    query = (
        select(contents.content_id, contents.created_at)
        .join(tables.campaigns, campaigns.campaign_id == contents.campaign_id)
        .where(campaigns.loop_id == loop_id)
    )
    return dict(connection.execute(query).tuples().all())
