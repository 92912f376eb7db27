"""What earlier copy earned, and what that says of the next: exemplars for the prompt, and which prompts to use.

    past_of(connection, definition) -> [Past, …]      every content that was shown, relative to its campaign
    winners(past, n), losers(past, n)                 copy that surely earned more, or less, than its campaign
    prompt_shares(past, prompts, settings)            probability of each prompt

A content's reward is its posterior mean within its campaign (``posterior.py``) over the campaign's level, what its
customers were like taken out: 1.2 is a fifth more than the usual copy of the campaign.

A prompt is worth the mean of its contents. With y_c the relative reward of content c, s_c its standard deviation and τ
what contents of one prompt differ by (the loop's ``SPREAD``), contents are drawn from N(μ_p, τ²) and μ_p from N(1, κ²):

    1/v_p = 1/κ² + Σ_c 1/(τ² + s_c²)        m_p = v_p · (1/κ² + Σ_c y_c/(τ² + s_c²))

A hundred thousand sends of one lucky line are one line, so a prompt is as sure as its lines are many. The prompts' shares
are the policy's pmf over (m_p, √v_p): the same policies that choose copy choose what writes it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from infra.database import chunks
from ingestion.contents import content_of
from ingestion.copy.guardrails import text_of
from ingestion.copy.near_duplicates import Known
from ingestion.events import Content
from ingestion.loops import LoopDefinition, PolicySettings
from pipelines.generation.prompts import Prompt
from reward_models.policies import pmf
from reward_models.posterior import SPREAD, ArmCounts, Prior, content_effects
from reward_models.statistics import load_totals

Floats = npt.NDArray[np.float64]

PROMPT_SPREAD = 0.1
"""κ: standard deviation of prompts' worth, a priori. Prompts differ less than the lines they write."""
ALIKE = 0.8
"""Exemplars that are this similar teach the same."""


@dataclass(frozen=True)
class Past:
    """A content that was shown. ``relative``: its reward over its campaign's level; ``sd``: how unsure that is."""

    content: Content
    exposures: float
    relative: float
    sd: float

    @property
    def prompt(self) -> tuple[str, int]:
        """Prompt and version that wrote it; an empty name where none did."""
        version = self.content.parameters.get("prompt_version")
        return self.content.prompt_id or "", version if isinstance(version, int) else 0


def past_of(connection: Connection, definition: LoopDefinition) -> list[Past]:
    """Of a loop, by content id."""
    found = []
    for content_ids, counts in load_totals(connection, definition.loop, definition.reward).values():
        relative, sd = relative_rewards(counts)
        contents = _contents(connection, content_ids)
        found += [
            Past(contents[name], float(shown), float(mean), float(width))
            for name, shown, mean, width in zip(content_ids, counts.exposures, relative, sd, strict=True)
            if shown > 0 and name in contents and math.isfinite(mean)
        ]
    return sorted(found, key=lambda one: one.content.content_id)


def relative_rewards(counts: ArmCounts) -> tuple[Floats, Floats]:
    """Posterior mean and sd of one campaign's contents over its level, shape (k,); nan for a campaign that earned nothing."""
    level = float((counts.sums - counts.expected).sum() / max(counts.exposures.sum(), 1.0))
    if level <= 0.0:
        return np.full(len(counts.sums), np.nan), np.full(len(counts.sums), np.nan)
    effects = content_effects(counts, Prior(level))
    return effects.mean(np.zeros(len(counts.sums))) / level, effects.sd / level


def winners(past: Sequence[Past], count: int) -> tuple[str, ...]:
    """Texts that earned most, by the lower end of what is believed, none of them nearly another."""
    good = [one for one in past if one.relative - one.sd > 1.0]
    return _apart(sorted(good, key=lambda one: one.sd - one.relative), count)


def losers(past: Sequence[Past], count: int) -> tuple[str, ...]:
    """Texts that earned least, by the upper end of what is believed."""
    bad = [one for one in past if one.relative + one.sd < 1.0]
    return _apart(sorted(bad, key=lambda one: one.relative + one.sd), count)


def prompt_shares(past: Iterable[Past], prompts: Sequence[Prompt], settings: PolicySettings) -> Floats:
    """Probability of each prompt, shape (p,). A new version starts anew."""
    worth = [prompt_worth(past_of_prompt) for past_of_prompt in _by_prompt(past, prompts)]
    return pmf(settings, [mean for mean, _ in worth], [sd for _, sd in worth])


def prompt_worth(past: Sequence[Past]) -> tuple[float, float]:
    """Posterior mean and standard deviation of a prompt's worth from its contents; (1, κ) without any."""
    certainty = [1.0 / (SPREAD**2 + one.sd**2) for one in past]
    precision = 1.0 / PROMPT_SPREAD**2 + sum(certainty)
    pull = 1.0 / PROMPT_SPREAD**2 + sum(c * one.relative for c, one in zip(certainty, past, strict=True))
    return pull / precision, precision**-0.5


def allot(shares: Floats, count: int, rng: np.random.Generator) -> list[int]:
    """So many drafts, dealt to prompts by their shares, shape (p,): whole parts for certain, what is left by chance."""
    whole = np.floor(shares * count).astype(np.int64)
    rest = shares * count - whole
    left = count - int(whole.sum())
    if left:
        drawn = rng.choice(len(shares), size=left, p=rest / rest.sum())
        whole += np.bincount(drawn, minlength=len(shares))
    return [int(number) for number in whole]


def _by_prompt(past: Iterable[Past], prompts: Sequence[Prompt]) -> list[list[Past]]:
    groups: defaultdict[tuple[str, int], list[Past]] = defaultdict(list)
    for one in past:
        groups[one.prompt].append(one)
    return [groups[prompt.prompt_id, prompt.version] for prompt in prompts]


def _apart(past: Iterable[Past], count: int) -> tuple[str, ...]:
    known, found = Known(), list[str]()
    for one in past:
        text = text_of(one.content)
        nearest = known.nearest(text)
        if len(found) < count and (nearest is None or nearest[1] < ALIKE):
            known.add(one.content.content_id, text)
            found.append(text)
    return tuple(found)


def _contents(connection: Connection, content_ids: Sequence[str]) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for some in chunks(content_ids, 500):
        rows = connection.execute(select(tables.contents).where(tables.contents.c.content_id.in_(some)))
        found |= {row.content_id: content_of(row) for row in rows}
    return found
