"""What choices imply as a prior of the reward model: decisions that nobody made, with the reward that is believed.

A prior N(m, τ²) of a content's reward is worth n₀ = σ²/τ² decisions with reward m, σ² the variance of one (a normal
prior is data). So the model is fitted to the outcomes and to

    n₀ = σ² / (SPREAD · level)²    decisions per content, spread over contexts, each with reward  level · e^{κ·(u − ū)}

u − ū: the utility that choices imply, about the campaign's mean in that context; level: the campaign's, or the loop's, or
what the caller says is usual. Few outcomes leave the model to the choices, many overrule them: ``share`` says how
things stand.

κ is itself corrected by outcomes: relative rewards are regressed on u − ū, clustered by customer, and the slope is put
together with the κ of choices alone (whose standard deviation is its own size). Choices that are shown to mislead, slope
below 0 by 95 %, are not used at all.

    judged(training, implied) -> Trusted             believe(training, implied, contents, ...) -> training set with them
    widened(model, share) -> model                   unsure of contents where belief rules: belief has no noise to learn from
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.boosted import RewardModel
from reward_models.choices import Choices
from reward_models.contexts import Contexts
from reward_models.dataset import TrainingSet
from reward_models.demonstrations.implied import Implied
from reward_models.folds import codes_of
from reward_models.posterior import SPREAD

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONTEXTS, ROWS = 250, 20_000
"""Most contexts per campaign that belief is spread over, and most rows in all; at least ``_FEWEST`` contexts."""
_FEWEST = 20
USUAL_VARIANCE = 50.0
"""Variance of one decision's reward, relative to level², where no outcome tells: that of one response in fifty."""
GROUP = "demonstration"
_SURE = 1.96
_MOST = 2.0
"""No content is believed to earn more than e² of its campaign's level, or less than 1/e² of it."""


@dataclass(frozen=True)
class Trusted:
    """How choices stand up to outcomes."""

    rows: int
    """Decisions with outcomes that were looked at."""
    scale: float
    """κ after them; 0: not believed."""
    slope: float
    """Relative reward per utility by outcomes alone; not a number without any."""
    interval: tuple[float, float]
    """95 % of the slope."""

    @property
    def state(self) -> Literal["unjudged", "confirmed", "unproven", "misleading"]:
        """In a word."""
        if not self.rows:
            return "unjudged"
        low, high = self.interval
        return "confirmed" if low > 0.0 else "misleading" if high < 0.0 else "unproven"


def judged(training: TrainingSet, implied: Implied) -> Trusted:
    """κ, corrected by matured decisions of known propensity."""
    nan = float("nan")
    rows = np.flatnonzero(training.mature & (training.position == 1) & (training.propensity > 0.0))
    campaigns = np.array([training.contents[index].campaign_id for index in training.content[rows].tolist()])
    x, y, weight = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    for campaign in dict.fromkeys(campaigns.tolist()):
        of = np.flatnonzero(campaigns == campaign)
        level = float(training.reward[rows[of]].mean())
        if level <= 0.0:
            continue
        x[of] = _leaning(training, implied, campaign, rows[of])
        y[of] = training.reward[rows[of]] / level - 1.0
        weight[of] = level**2 / max(float(training.reward[rows[of]].var()), 1e-12)
    power = float(weight @ x**2)
    if power <= 0.0 or implied.scale <= 0.0:
        return Trusted(0, implied.scale, nan, (nan, nan))
    slope = float(weight @ (x * y)) / power
    unit = codes_of([training.unit[row] or training.decision_id[row] for row in rows.tolist()])
    error = np.bincount(unit, weight * x * (y - slope * x))
    variance = float((error**2).sum()) / power**2
    width = _SURE * float(np.sqrt(variance))
    believed = (slope * implied.scale**2 + implied.scale * variance) / (implied.scale**2 + variance)
    misleading = slope + width < 0.0
    return Trusted(len(rows), 0.0 if misleading else max(0.0, believed), slope, (slope - width, slope + width))


def _leaning(training: TrainingSet, implied: Implied, campaign: str, rows: Ints) -> Floats:
    """u − ū of each decision's content, ū over the contents of its campaign; centred, since levels are."""
    index = [place for place, content in enumerate(training.contents) if content.campaign_id == campaign]
    place = {of: at for at, of in enumerate(index)}
    utility = implied.utility([training.contexts[row] for row in rows.tolist()], [training.contents[i] for i in index])
    own = utility[np.arange(len(rows)), [place[of] for of in training.content[rows].tolist()]]
    leaning = own - utility.mean(axis=1)
    return np.asarray(leaning - leaning.mean())


@dataclass(frozen=True)
class Believed:
    """A training set with what is believed in it."""

    training: TrainingSet
    decisions: float
    """What the belief counts for, in decisions."""

    @property
    def share(self) -> float:
        """Of all that the model learns from: 1 is choices alone, 0 outcomes alone."""
        outcomes = self.training.exposures
        total = float(outcomes.sum()) if outcomes is not None else float(len(self.training))
        total += float(self.training.history.exposures.sum())
        return self.decisions / total if total > 0.0 else 0.0


def believe(
    training: TrainingSet,
    implied: Implied,
    contents: Sequence[Content],
    contexts: Sequence[Mapping[str, Any]],
    *,
    trusted: Trusted | None = None,
    usual: float = 0.02,
    seed: int = 7,
) -> Believed:
    """The set with believed decisions for these contents, in contexts drawn from ``contexts``.

    usual: reward of a decision where no outcome of the loop tells it.
    """
    scale = (trusted or judged(training, implied)).scale
    campaigns = list(dict.fromkeys(content.campaign_id for content in contents))
    if scale <= 0.0 or not campaigns:
        return Believed(training, 0.0)
    rng = np.random.default_rng(seed)
    count = min(CONTEXTS, max(_FEWEST, ROWS // len(contents)))
    parts = []
    for campaign in campaigns:
        drawn = [contexts[place] for place in rng.integers(0, len(contexts), count)] if contexts else [{}]
        copy = [content for content in contents if content.campaign_id == campaign]
        parts.append(_of_campaign(implied, copy, drawn, scale, _level(training, campaign, usual)))
    return Believed(_appended(training, parts), float(sum(part.exposures.sum() for part in parts)))


@dataclass(frozen=True)
class _Rows:
    """Believed decisions: every content in every context drawn."""

    drawn: int
    contexts: list[Mapping[str, Any]]
    contents: list[Content]
    reward: Floats
    exposures: Floats


def widened(model: RewardModel, share: float) -> RewardModel:
    """The model with the spread that its data leaves: ``share`` of it is belief, true to ``SPREAD`` at best."""
    if share <= 0.0:
        return model
    measured = model.calibration.spread
    spread = float(np.sqrt((1.0 - share) * measured**2 + share * max(SPREAD, measured) ** 2))
    return replace(model, calibration=msgspec.structs.replace(model.calibration, spread=spread))


def _of_campaign(
    implied: Implied,
    contents: Sequence[Content],
    drawn: Sequence[Mapping[str, Any]],
    scale: float,
    usual: tuple[float, float],
) -> _Rows:
    level, variance = usual
    utility = implied.utility(drawn, contents)
    log = np.clip(scale * (utility - utility.mean(axis=1, keepdims=True)), -_MOST, _MOST)
    reward = level * np.exp(log) / np.exp(log).mean()
    worth = variance / (SPREAD * level) ** 2
    return _Rows(
        drawn=len(drawn),
        contexts=[context for context in drawn for _ in contents],
        contents=list(contents) * len(drawn),
        reward=reward.ravel(),
        exposures=np.full(reward.size, worth / len(drawn)),
    )


def _level(training: TrainingSet, campaign: str, usual: float) -> tuple[float, float]:
    """Mean and variance of one decision's reward in a campaign, else in the loop, else as is usual."""
    of_row = np.array([training.contents[index].campaign_id == campaign for index in training.content.tolist()])
    for rows in (of_row, np.ones(len(training), dtype=np.bool_)):
        reward = training.reward[rows] if len(training) else np.zeros(0)
        if len(reward) >= _TOLD and float(reward.mean()) > 0.0:
            return float(reward.mean()), float(reward.var())
    past = training.history
    if float(past.exposures.sum()) > 0.0 and (mean := float(np.average(past.reward, weights=past.exposures))) > 0.0:
        return mean, USUAL_VARIANCE * mean**2
    return usual, USUAL_VARIANCE * usual**2


_TOLD = 200
"""Decisions that tell the level of a campaign, or of a loop."""


def _appended(training: TrainingSet, parts: Sequence[_Rows]) -> TrainingSet:
    """The set, and after its rows the believed ones: decisions without a customer, mature, and never drawn."""
    contents, index = list(training.contents), dict(training.index)
    for content in (content for part in parts for content in part.contents):
        if (key := (content.campaign_id, content.content_id)) not in index:
            index[key] = len(contents)
            contents.append(content)
    names = [(c.campaign_id, c.content_id) for part in parts for c in part.contents]
    count, before = len(names), len(training)
    added = [context for part in parts for context in part.contexts]
    reward = np.concatenate([part.reward for part in parts])
    shares = training.exposures if training.exposures is not None else np.ones(before)
    timing = training.timing
    if timing is not None:
        timing = replace(timing, age=np.append(timing.age, np.full(count, float(timing.maturity))))
    return replace(
        training,
        contents=tuple(contents),
        decision_id=(*training.decision_id, *(f"{GROUP}-{place}" for place in range(count))),
        unit=(*training.unit, *_people(parts)),
        decided_at=np.append(training.decided_at, np.zeros(count, dtype=np.int64)),
        contexts=Contexts.joined([Contexts.of(training.contexts), Contexts.of(added)]),
        content=np.append(training.content, np.array([index[name] for name in names], dtype=np.int64)),
        position=np.append(training.position, np.ones(count, dtype=np.int64)),
        propensity=np.append(training.propensity, np.full(count, np.nan)),
        holdout=np.append(training.holdout, np.zeros(count)),
        group=(*training.group, *[GROUP] * count),
        learning_mode=(*training.learning_mode, *[GROUP] * count),
        candidates=Choices.joined([Choices.of(training.candidates), Choices.of([()] * count)]),
        metrics={name: np.append(values, np.zeros(count)) for name, values in training.metrics.items()},
        reward=np.append(training.reward, reward),
        timing=timing,
        exposures=np.concatenate([shares, *(part.exposures for part in parts)]),
    )


def _people(parts: Sequence[_Rows]) -> list[str]:
    """One invented customer per context, so that folds by customer keep a context together."""
    found = []
    for number, part in enumerate(parts):
        each = len(part.contexts) // part.drawn
        found += [f"{GROUP}-{number}-{place // each}" for place in range(len(part.contexts))]
    return found
