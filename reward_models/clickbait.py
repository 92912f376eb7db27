"""Clickbait: copy that wins clicks and loses purchases.

Every content of a campaign against the mean of the others, on decisions made by chance, weighted by 1/propensity:

    μ_c = Σ 1[shown = c]·y/p / Σ 1[shown = c]/p          contrast_c = μ_c − mean of μ over the other contents

for y the click (early), the purchase (late), and what is missing, late − ρ·early with ρ = Σ late/Σ early: less comes of
these clicks than of others. Variances add influences by unit, at least the pooled variance times Σ (1/p)²/(Σ 1/p)²; reaches
are those of a one-sided confidence sequence at α over (contents · 2), so that one may look daily and at every content.

    clickbait   clicks up, purchases down, both clear
    suspect     clicks up, and clearly less comes of them than of other clicks
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingestion.fields import DOCUMENTED
from ingestion.loops import LiftSettings, LoopDefinition
from reward_models.dataset import TrainingSet
from reward_models.sequences import reaches
from reward_models.trial import clusters_of, decided_by_chance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Suspicion = Literal["clickbait", "suspect"]

EARLY = ("click", "open")
LATE = "purchase"
LEAST_UNITS = 100
"""Rows of a content before it is judged."""


@dataclass(frozen=True)
class Clickbait:
    """One content that draws clicks without what they are for. Differences per decision, to the other contents."""

    __pydantic_config__ = DOCUMENTED

    campaign_id: str
    """The campaign."""
    content_id: str
    """The content."""
    suspicion: Suspicion
    """How sure it is."""
    early: float
    """Difference of the clicks."""
    late: float
    """Difference of what they are for."""
    sentence: str
    """The finding in words."""


def metric_pair(definition: LoopDefinition) -> tuple[str, str] | None:
    """Names of the early and the late metric: click (or open) and purchase, money before counts; None without both."""
    early = [each.name for event in EARLY for each in definition.metrics if each.event == event]
    late = sorted((each.aggregate != "sum", each.name) for each in definition.metrics if each.event == LATE)
    return (early[0], late[0][1]) if early and late else None


def find_clickbait(training: TrainingSet, definition: LoopDefinition, settings: LiftSettings) -> tuple[Clickbait, ...]:
    """Contents under suspicion, by campaign and id. Nothing where the loop does not measure both metrics."""
    pair = metric_pair(definition)
    if pair is None:
        return ()
    rows = decided_by_chance(training)
    found: list[Clickbait] = []
    campaigns = np.array(rows.campaign_id)
    for campaign in np.unique(campaigns):
        found += _in_campaign(rows.subset(campaigns == campaign), str(campaign), pair, settings)
    return tuple(found)


def _in_campaign(rows: TrainingSet, campaign: str, pair: tuple[str, str], settings: LiftSettings) -> list[Clickbait]:
    early, late = (rows.metrics[name] for name in pair)
    kept, arm, counts = np.unique(rows.content, return_inverse=True, return_counts=True)
    if len(kept) < 2 or not early.any():
        return []
    codes = np.unique(np.array(clusters_of(rows)), return_inverse=True)[1].reshape(-1)
    reach = float(reaches(codes.max() + 1, settings.alpha / (2 * len(kept)), settings.tuned_units, sides=1))
    missing = late - float(late.sum() / early.sum()) * early
    contrasts = [_contrasts(values, arm, 1.0 / rows.propensity, codes) for values in (early, late, missing)]
    (clicks, clicks_error), (bought, bought_error), (less, less_error) = contrasts
    found = []
    for index in np.flatnonzero((counts >= LEAST_UNITS) & (clicks - reach * clicks_error > 0.0)):
        if less[index] + reach * less_error[index] >= 0.0:
            continue
        clear = bought[index] + reach * bought_error[index] < 0.0
        content_id = rows.contents[kept[index]].content_id
        found.append(_flag(campaign, content_id, pair, float(clicks[index]), float(bought[index]), bool(clear)))
    return found


def _contrasts(values: Floats, arm: Ints, weight: Floats, codes: Ints) -> tuple[Floats, Floats]:
    """Each content minus the mean of the others, and standard errors, shape (k,) each."""
    k = int(arm.max()) + 1
    total = np.bincount(arm, weight, k)
    mean = np.bincount(arm, weight * values, k) / total
    residual = values - mean[arm]
    pair, place = np.unique(codes * k + arm, return_inverse=True)
    influence = np.bincount(place.reshape(-1), weight * residual / total[arm])
    least = float((residual**2).mean()) * np.bincount(arm, weight**2, k) / total**2
    own = np.maximum(np.bincount(pair % k, influence**2, k), least)
    others = (own.sum() - own) / (k - 1) ** 2
    return mean - (mean.sum() - mean) / (k - 1), np.sqrt(own + others)


def _flag(campaign: str, content_id: str, pair: tuple[str, str], early: float, late: float, clear: bool) -> Clickbait:
    changes = f"{1000.0 * early:+,.3g} {pair[0]} and {1000.0 * late:+,.3g} {pair[1]} per 1,000 decisions"
    verdict = "Clickbait" if clear else "Looks like clickbait"
    sentence = f"{verdict}: {content_id} brings {changes} against the other copy of {campaign}."
    return Clickbait(campaign, content_id, "clickbait" if clear else "suspect", early, late, sentence)
