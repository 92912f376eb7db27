"""What a change of wording was worth, where it was tested: two contents of one campaign that differ in just that.

    Tested.of(variants) -> Tested                   every pair of a campaign with a single change between them
    tested.effect(change) -> Effect or None         the later wording over the earlier, relative to the campaign's level

Effects of the same change in several campaigns are pooled with random effects (DerSimonian and Laird 1986), and weigh as the inverse of their
variance; pairs that share a content are not independent, so no content is in two pairs of the same change in one campaign. A change that was never
tested alone has no effect here: what a model makes of its words is a prediction, and is shown as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from reward_models.distances import Change, changes, places

MOST_VARIANTS = 60
"""Contents of one campaign that are compared, those known best: pairs grow with the square."""
_WORDS_APART = 12
"""Texts whose numbers of words differ more have no single small change between them."""


@dataclass(frozen=True)
class Variant:
    """A content with what it earned. ``deviation``: relative to its campaign; ``noise``: the variance of that."""

    campaign: str
    content: str
    slots: tuple[tuple[str, str], ...]
    deviation: float
    noise: float


@dataclass(frozen=True)
class Effect:
    """Relative to the campaign's level, with its 95 % interval. ``tests``: pairs of contents it was seen in."""

    value: float
    low: float
    high: float
    tests: int


@dataclass
class Tested:
    """Differences and their variances by change."""

    found: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)

    @staticmethod
    def of(variants: Sequence[Variant]) -> "Tested":
        """From the contents of all campaigns of a loop."""
        by_campaign: dict[str, list[Variant]] = {}
        for one in variants:
            by_campaign.setdefault(one.campaign, []).append(one)
        tested = Tested()
        for campaign in by_campaign.values():
            known = sorted(campaign, key=lambda one: (one.noise, one.content))[:MOST_VARIANTS]
            used: set[tuple[tuple[str, str], str]] = set()
            for one, other in combinations(known, 2):
                change = single_change(one.slots, other.slots)
                if change is not None:
                    tested._add(change, one, other, used)
        return tested

    def effect(self, change: Change) -> Effect | None:
        """Of putting in what the change adds for what it removes; None where that was never tested alone."""
        key, sign = _oriented(change)
        if key not in self.found:
            return None
        difference, noise = (np.array(values) for values in zip(*self.found[key], strict=True))
        spread = _between(difference, noise)
        weights = 1.0 / (noise + spread)
        value, sd = sign * float(weights @ difference / weights.sum()), float(weights.sum() ** -0.5)
        return Effect(value, value - 1.96 * sd, value + 1.96 * sd, len(difference))

    def _add(self, change: Change, one: Variant, other: Variant, used: set[tuple[tuple[str, str], str]]) -> None:
        key, sign = _oriented(change)
        taken = {(key, one.content), (key, other.content)}
        if not taken & used:
            used |= taken
            difference = sign * (other.deviation - one.deviation)
            self.found.setdefault(key, []).append((difference, one.noise + other.noise))


def single_change(before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]) -> Change | None:
    """The one change between two contents' slots; None where there is none, or more than one."""
    left, right = dict(before), dict(after)
    if left.keys() != right.keys():
        return None
    differing = [slot for slot in left if left[slot] != right[slot]]
    if len(differing) != 1:
        return None
    old, new = left[differing[0]], right[differing[0]]
    if abs(len(old.split()) - len(new.split())) > _WORDS_APART:
        return None
    found = places(changes(old, new))
    return found[0] if len(found) == 1 else None


def _oriented(change: Change) -> tuple[tuple[str, str], float]:
    """One key for a change and its reverse, and which of the two it is."""
    removed, added = change.key
    return ((removed, added), 1.0) if removed <= added else ((added, removed), -1.0)


def _between(
    difference: np.ndarray[tuple[int], np.dtype[np.float64]], noise: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    """Variance of the true effects between campaigns, by moments."""
    if len(difference) < 2:
        return 0.0
    weights = 1.0 / noise
    mean = float(weights @ difference / weights.sum())
    excess = float(weights @ (difference - mean) ** 2) - (len(difference) - 1)
    return max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))
