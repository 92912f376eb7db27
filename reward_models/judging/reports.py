"""One judge against what copy earned, whole: agreement, curve, segments of customers, and groups of copy.

judged(training, ratings, by) -> Report         ratings: {content id: Rating}; by: the group of each content
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.events import Content
from reward_models.dataset import TrainingSet
from reward_models.folds import codes_of
from reward_models.judging.agreement import Agreement, Point, agreement_of, curve
from reward_models.judging.prediction_powered import Powered, powered_mean
from reward_models.judging.ratings import Rating
from reward_models.judging.realised import Realised, realised

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """What is known of a judge."""

    agreement: Agreement
    curve: tuple[Point, ...]
    segments: Mapping[str, Agreement]
    """By value of the context that was asked for."""
    groups: Mapping[str, Powered]
    """Mean reward of each group's copy, relative to its campaigns (0 is usual)."""


def judged(
    training: TrainingSet,
    ratings: Mapping[str, Rating],
    *,
    segment: str | None = None,
    contents: Mapping[str, Content] | None = None,
    group_of: Callable[[Content], str | None] | None = None,
    across: bool = True,
) -> Report:
    """A judge by its ratings of the training set's contents.

    segment: name of a context feature. contents: rated contents by id, those that nobody was shown among them, of which
    ``group_of`` names the group. across: groups lie across campaigns, and contents of one campaign count as one
    observation; False where each group is a campaign. Groups need five observations with outcomes, and that which of a group's
    copy was shown was no matter of taste.
    """
    found = realised(training)
    rating, order = _aligned(training, found, ratings)
    groups = {} if group_of is None else _groups(training, found, ratings, contents or {}, group_of, across)
    return Report(
        agreement_of(rating, order, found),
        curve(rating, order, found),
        {} if segment is None else _segments(training, ratings, segment),
        groups,
    )


def _aligned(training: TrainingSet, found: Realised, ratings: Mapping[str, Rating]) -> tuple[Floats, Floats]:
    """Rating and time of each realised content, shape (k,); nan where there is none."""
    names = [training.contents[index].content_id for index in found.content.tolist()]
    missing = Rating(float("nan"), 0)
    rows = [ratings.get(name, missing) for name in names]
    return np.array([row.rating for row in rows]), np.array([row.at for row in rows], dtype=np.float64)


def _segments(training: TrainingSet, ratings: Mapping[str, Rating], name: str) -> dict[str, Agreement]:
    values = [context.get(name) for context in training.contexts]
    known = sorted({str(value) for value in values if value is not None})
    if len(known) > _MOST:
        raise BadInput(f"{name!r} has {len(known)} values; name a feature of the context with at most {_MOST}")
    said = np.array([str(value) for value in values])
    result = {}
    for value in known:
        found = realised(training, said == value)
        result[value] = agreement_of(*_aligned(training, found, ratings), found)
    return result


_MOST = 20


def _groups(
    training: TrainingSet,
    found: Realised,
    ratings: Mapping[str, Rating],
    contents: Mapping[str, Content],
    group_of: Callable[[Content], str | None],
    across: bool,
) -> dict[str, Powered]:
    """Relative reward of each group, from those with outcomes and those that were only rated."""
    level = np.bincount(found.campaign, found.exposures * found.reward) / np.bincount(found.campaign, found.exposures)
    relative = np.divide(found.reward, level[found.campaign], out=np.ones(len(found)), where=level[found.campaign] > 0)
    earned = {
        training.contents[index].content_id: value - 1.0
        for index, value in zip(found.content.tolist(), relative.tolist(), strict=True)
    }
    rated = [content for name, content in contents.items() if name in ratings]
    own = np.array([ratings[content.content_id].rating for content in rated])
    campaign = codes_of([content.campaign_id for content in rated])
    own = own - (np.bincount(campaign, own) / np.maximum(np.bincount(campaign), 1))[campaign] if len(rated) else own
    result = {}
    for group in sorted({name for content in rated if (name := group_of(content)) is not None}):
        of = np.array([group_of(content) == group for content in rated])
        shown = np.array([content.content_id in earned for content in rated])
        reward = np.array([earned[content.content_id] for content, yes in zip(rated, of & shown, strict=True) if yes])
        cluster, others = (campaign[of & shown], campaign[of & ~shown]) if across else (None, None)
        try:
            result[group] = powered_mean(
                reward, own[of & shown], own[of & ~shown], cluster=cluster, others_cluster=others
            )
        except BadInput:
            continue
    return result
