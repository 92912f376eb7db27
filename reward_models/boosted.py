"""The reward model: a text score and LightGBM on the reward relative to its campaign.

    reward = m + s · calibrated(g − o),     g = text score + trees(context, position, content, text score)

m, s and o are the campaign's level (``levels.py``). The trees start from the text score and minimise
Σ w·(d − (g − ḡ))² with d the relative deviation of the reward, ḡ the mean of g in the row's campaign and
w = n · s / φ (n exposures): differences between campaigns teach them nothing. Steps of ``fit``: 1 rows, 2 levels,
3 text score out of fold, 4 columns, 5 held-out trees per fold → rounds, calibration, 6 all trees, 7 centres, 8 golden
rows. Folds never split a component of campaign and text; with fewer than ``FEW`` components they never split a
unit. From ``PLENTY`` rows on steps 5 and 6 are one: the trees of all folds but one serve, calibrated on that one,
because a fifth more rows teach less there than five more fits cost.

    fit(training, settings) -> RewardModel
    model.grid(contexts, contents, position=1) -> (n, k)      every context with every content
    model.rows(contexts, contents, positions=None) -> (n,)    pairs
    model.encode(contents) -> Encoded                         once per content, keep it
    model.score(context, encoded, position=1) -> (k,)         the fast path of the API
    model.spread(contents) -> (k,)                            sd of a content's true reward about its prediction

The same bytes give the same scores: the booster that is returned was read back from its own text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.events import Content
from ingestion.loops import ModelSettings
from reward_models.aging import AGELESS, Aging
from reward_models.anatomy import trim
from reward_models.calibration import Calibration, HeldOut, fit_calibration
from reward_models.dataset import TrainingSet
from reward_models.features import (
    FeatureSchema,
    assemble,
    build_schema,
    content_rows,
    context_row,
    context_rows,
    plain,
    text_of,
)
from reward_models.folds import codes_of, codes_of_texts, components, deal
from reward_models.golden import Example, GoldenRows, golden_matrix
from reward_models.levels import Levels, centred, fit_levels, group
from reward_models.masks import ContentMasks, MaskedTrees, join_masks, read_masks
from reward_models.memory import NOTHING, Memory
from reward_models.table import Table
from reward_models.text import TextFit, TextModel, fit_text
from reward_models.trees import Aim, Trees, staged, stages_of, start
from reward_models.vectors import NO_VECTORS, Vectors

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
FEW = 20
"""With fewer components than this, folds are by unit: a component would be most of the data."""
PLENTY = 200_000
"""From so many rows on one fold is enough to calibrate on, and the others are enough to learn from."""

HANDFUL = 10
"""Below so many contents LightGBM is quicker than masks (300 trees of 31 leaves: 40 µs for 10 either way)."""

_EXAMPLES = 16
_PAIRS = 50_000
_AT_ONCE = 100
"""Rows for which every node of every tree is looked at together."""
_CENTRED = 2_000
"""Decisions of a campaign that say where its predictions lie in the mean."""


@dataclass(frozen=True)
class Encoded:
    """The content part of k contents, shape (k, c). Expected reward = ``mean`` + ``scale`` · g, shape (k,) each."""

    rows: Floats
    mean: Floats
    scale: Floats
    masks: ContentMasks | None = None
    """What the trees know of these contents beforehand: with it, scores come ten times as fast."""

    @cached_property
    def begun(self) -> Floats:
        """g before any tree, shape (k,)."""
        return start(self.rows)

    def take(self, index: Sequence[int] | Ints) -> "Encoded":
        """Some of the contents, in this order."""
        masks = None if self.masks is None else self.masks.take(index)
        return Encoded(self.rows[index], self.mean[index], self.scale[index], masks)


def join(parts: Sequence[Encoded]) -> Encoded:
    """The contents of all parts, one after the other."""
    masks = [part.masks for part in parts if part.masks is not None]
    return Encoded(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.scale for part in parts]),
        join_masks(masks) if len(masks) == len(parts) else None,
    )


@dataclass(frozen=True)
class RewardModel:
    """Everything that scoring needs. Immutable; safe to share between threads."""

    schema: FeatureSchema
    levels: Levels
    text: TextModel | None
    calibration: Calibration
    booster_text: str
    booster: lgb.Booster
    golden: GoldenRows
    settings: ModelSettings
    loop_id: str
    as_of: int
    training_digest: str
    report: Mapping[str, float]
    """How the fit went: rows, contents, components, folds, text_alpha, text_slope …"""
    aging: Aging = AGELESS
    """What the age of counts makes of them when they are held against the predictions (``posterior.py``)."""
    memory: Memory = NOTHING
    """Counts that it starts with."""
    vectors: Vectors = NO_VECTORS
    """Embeddings of the texts it may score; kept in the database, not in the bundle. Golden rows need none."""

    def encode(self, contents: Sequence[Content]) -> Encoded:
        """The part of a row that depends on the content alone."""
        campaigns = [content.campaign_id for content in contents]
        mean, scale = self.levels.of(campaigns)
        return Encoded(
            content_rows(self.schema, contents, self._text_scores(contents)),
            mean + scale * self.calibration.apply(-self.levels.centre_of(campaigns)),
            scale * self.calibration.slope,
        )

    def prepare(self, contents: Sequence[Content]) -> Encoded:
        """:meth:`encode`, with all that can be known before the request, for contents that are scored again and again."""
        encoded = self.encode(contents)
        return encoded if self.trees is None else replace(encoded, masks=self.trees.contents(encoded.rows))

    @cached_property
    def trees(self) -> MaskedTrees | None:
        """The booster for scoring one context with many contents; None where only LightGBM can."""
        return read_masks(self.booster_text, len(self.schema.context))

    def score(self, context: Mapping[str, Any], encoded: Encoded, position: int = 1) -> Floats:
        """Expected reward of each content in one context, shape (k,)."""
        row = context_row(self.schema, context, position)
        if encoded.masks is None or self.trees is None or len(encoded.rows) < HANDFUL:
            return self._expected(assemble(row, encoded.rows), encoded)
        return encoded.mean + encoded.scale * (encoded.begun + self.trees.score(row, encoded.masks))

    def scores(self, contexts: Sequence[Mapping[str, Any]], encoded: Encoded, position: int = 1) -> Floats:
        """:meth:`score` of every context, shape (n, k): the same bytes."""
        rows = context_rows(self.schema, contexts, [position] * len(contexts))
        if encoded.masks is None or self.trees is None or len(encoded.rows) < HANDFUL:
            return self._grid(rows, encoded)
        return np.asarray(encoded.mean + encoded.scale * (encoded.begun + self.trees.scores(rows, encoded.masks)))

    def grid(self, contexts: Sequence[Mapping[str, Any]], contents: Sequence[Content], position: int = 1) -> Floats:
        """Expected reward of every content in every context, shape (n, k)."""
        return self._grid(context_rows(self.schema, contexts, [position] * len(contexts)), self.encode(contents))

    def _grid(self, rows: Floats, encoded: Encoded) -> Floats:
        contents = len(encoded.rows)
        scores = np.empty((len(rows), contents))
        size = max(1, _PAIRS // max(1, contents))
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            matrix = np.hstack([np.repeat(part, contents, axis=0), np.tile(encoded.rows, (len(part), 1))])
            g = self.relative(matrix).reshape(len(part), contents)
            scores[begin : begin + len(part)] = encoded.mean + encoded.scale * g
        return scores

    def rows(
        self,
        contexts: Sequence[Mapping[str, Any]],
        contents: Sequence[Content],
        positions: Sequence[int] | Ints | None = None,
    ) -> Floats:
        """Expected reward of each pair, shape (n,)."""
        distinct, of_row = _distinct(contents)
        encoded = self.encode(distinct)
        left = context_rows(self.schema, contexts, [1] * len(contexts) if positions is None else positions)
        pairs = encoded.take(of_row)
        return self._expected(np.hstack([left, pairs.rows]), pairs)

    def spread(self, contents: Sequence[Content]) -> Floats:
        """Standard deviation of each content's true reward about its prediction, shape (k,)."""
        return self.calibration.spread * self.levels.of([content.campaign_id for content in contents])[1]

    def relative(self, matrix: Floats) -> Floats:
        """g of assembled rows, shape (n,)."""
        return _g(self.booster, matrix)

    def masked(self, matrix: Floats) -> Floats | None:
        """The same by the trees that the API scores with, shape (n,); None where it scores with LightGBM."""
        if self.trees is None:
            return None
        parts = [self.trees.predict(matrix[at : at + _AT_ONCE]) for at in range(0, len(matrix), _AT_ONCE)]
        return start(matrix) + np.concatenate(parts)

    def _expected(self, matrix: Floats, encoded: Encoded) -> Floats:
        return encoded.mean + encoded.scale * self.relative(matrix) if len(matrix) else np.zeros(0)

    def _text_scores(self, contents: Sequence[Content]) -> Floats:
        if self.text is None:
            return np.full(len(contents), np.nan)
        return self.text.score([text_of(content) for content in contents], self.vectors)


@dataclass(frozen=True)
class _Rows:
    """Decisions, then past results, as rows of one table: shape (n + m,) but for ``names`` and ``texts``."""

    position: Ints
    content: Ints
    campaign: Ints
    """Index into ``names``."""
    names: list[str]
    """The campaigns that have rows."""
    texts: list[str]
    """Plain text of each content of the set; empty for one without rows."""
    reward: Floats
    exposures: Floats

    def __len__(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class _Target:
    """What is fitted: relative deviation and precision of each row, with the levels that made them."""

    levels: Levels
    campaign: Ints
    mean: Floats
    scale: Floats
    deviation: Floats
    precision: Floats


def fit(training: TrainingSet, settings: ModelSettings, *, plenty: int = PLENTY) -> RewardModel:
    """Train on a set. The same set and settings give the same model, byte for byte.

    ``plenty``: rows from which one fold is kept for calibration and the trees of the others serve; 0: always, which
    takes a sixth of the time and is good enough for what is only to predict.
    Raises :class:`BadInput` when there is nothing to learn from.
    """
    rows = _rows(training)
    _check(training, rows)
    target = _target(rows)
    linked = _linked(training, rows)
    words = _fit_text(training, rows, target, linked, settings.seed) if settings.text else None
    schema = build_schema(training.contexts, [training.contents[index] for index in np.unique(rows.content)])
    unseen, seen = _text_scores(training, words)
    table, groups = Table.of(schema, training, rows.content, rows.position), _groups(training, linked)
    booster_text, calibration = _fit_trees(training, rows, target, table, unseen, groups, settings, plenty)
    booster = lgb.Booster(model_str=booster_text)
    some, times = _centring(rows, len(training))
    matrix = table.rows(some, seen)
    model = RewardModel(
        schema=schema,
        levels=target.levels.centred_at(
            rows.campaign[some], rows.names, _g(booster, matrix), times * target.precision[some]
        ),
        text=words and words[0].model,
        calibration=calibration,
        booster_text=booster_text,
        booster=booster,
        golden=GoldenRows(),
        settings=settings,
        loop_id=training.loop_id,
        as_of=training.as_of,
        training_digest=training.digest,
        report=_report(rows, linked, words),
    )
    return replace(model, golden=_golden(model, training, rows, matrix), vectors=training.vectors)


Words = tuple[TextFit, dict[tuple[str, str], tuple[int, str]]]
"""A fitted text model, and of each (campaign, plain text) the place in its scores and the text as it was written."""


def _rows(training: TrainingSet) -> _Rows:
    past = training.history
    content = np.concatenate([training.content, past.content])
    shown = np.unique(content)
    codes, names = group([training.contents[index].campaign_id for index in shown])
    campaign_of, texts = np.zeros(len(training.contents), dtype=np.int64), [""] * len(training.contents)
    campaign_of[shown] = codes
    for index in shown:
        texts[index] = plain(text_of(training.contents[index]))
    return _Rows(
        position=np.concatenate([training.position, np.ones(len(past), dtype=np.int64)]),
        content=content,
        campaign=campaign_of[content],
        names=names,
        texts=texts,
        reward=np.concatenate([training.reward, past.reward]),
        exposures=np.concatenate([_exposures(training), past.exposures]),
    )


def _exposures(training: TrainingSet) -> Floats:
    """A decision is one exposure; one whose outcome has come in part only is that part of one."""
    return np.ones(len(training)) if training.exposures is None else training.exposures


def _check(training: TrainingSet, rows: _Rows) -> None:
    if not len(rows.reward):
        raise BadInput(
            f"Loop {training.loop_id!r} has nothing to learn from as of batch {training.as_of}: no mature decision and "
            f"no past result ({training.immature} decisions are not mature yet). Import results or wait for maturity"
        )
    if np.ptp(rows.reward) == 0.0:
        raise BadInput(
            f"Loop {training.loop_id!r} has nothing to learn from: all {len(rows.reward)} rewards are "
            f"{rows.reward[0]:g}. Check that the metric's event type is the one that comes in, or wait for more events"
        )


def _target(rows: _Rows) -> _Target:
    levels = fit_levels(rows.campaign, rows.names, rows.reward, rows.exposures)
    mean, scale = (values[rows.campaign] for values in levels.of(rows.names))
    return _Target(
        levels,
        rows.campaign,
        mean,
        scale,
        (rows.reward - mean) / scale,
        rows.exposures * scale / levels.dispersion,
    )


def _sampling(training: TrainingSet, rows: _Rows, target: _Target) -> Floats:
    """Variance of each row's relative reward from sampling alone.

    Decisions tell it by their scatter within a content; past results by their counts, else (money) by the scatter
    within campaigns, which holds the differences between contents too.
    """
    decided = len(training)
    noise = target.levels.dispersion * target.scale
    if decided:
        content, reward, shown = training.content, training.reward, rows.exposures[:decided]
        mean = np.bincount(content, shown * reward) / np.maximum(np.bincount(content, shown), 1e-9)
        noise[:decided] *= float(shown @ (reward - mean[content]) ** 2 / noise[:decided].sum())
    known = np.isfinite(training.history.noise) & (training.history.noise > 0)
    noise[decided:][known] = training.history.noise[known]
    return noise / (rows.exposures * target.scale**2)


def _linked(training: TrainingSet, rows: _Rows) -> Ints:
    """Component of campaign and text of each row, shape (n + m,)."""
    shown, of_row = np.unique(rows.content, return_inverse=True)
    campaigns = [training.contents[index].campaign_id for index in shown]
    return components(campaigns, [rows.texts[index] or int(index) for index in shown])[of_row]


def _groups(training: TrainingSet, linked: Ints) -> Ints:
    """What folds must not split, shape (n + m,): components, or units where there are few of those."""
    if int(linked.max()) + 1 >= FEW:
        return linked
    unit = [unit or decision for unit, decision in zip(training.unit, training.decision_id, strict=True)]
    return np.concatenate([codes_of_texts(unit), len(unit) + np.arange(len(linked) - len(unit))])


def _fit_text(training: TrainingSet, rows: _Rows, target: _Target, linked: Ints, seed: int) -> Words | None:
    """The text model of the distinct (campaign, text) pairs, each with the mean of its rows."""
    place: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    place_of = np.full(len(rows.texts), -1, dtype=np.int64)
    for index in np.flatnonzero([bool(text) for text in rows.texts]):
        content = training.contents[index]
        place_of[index] = place.setdefault((content.campaign_id, rows.texts[index]), len(place))
        texts += [text_of(content)] if len(place) > len(texts) else []
    of_row = place_of[rows.content]
    shown, of_row = np.flatnonzero(of_row >= 0), of_row[of_row >= 0]
    if not len(shown):
        return None
    certainty = 1.0 / _level_sampling(training, rows, target)[shown]
    total = np.bincount(of_row, certainty)
    deviation = np.bincount(of_row, certainty * target.deviation[shown]) / total
    group = np.zeros(len(place), dtype=np.int64)
    group[of_row] = linked[shown]
    enough = len(np.unique(group)) >= FOLDS
    folds = deal(codes_of(group.tolist()) if enough else np.arange(len(place)), FOLDS, seed)
    fitted = fit_text(
        texts, codes_of([campaign for campaign, _ in place]), deviation, 1.0 / total, folds, training.vectors
    )
    return None if fitted is None else (fitted, dict(zip(place, enumerate(texts), strict=True)))


def _level_sampling(training: TrainingSet, rows: _Rows, target: _Target) -> Floats:
    """Sampling variance of each row with the noise of one exposure taken as that of its campaign, shape (n + m,).

    A content's own counts would call those surest that happened to sell least.
    """
    noise = _sampling(training, rows, target) * rows.exposures
    mean = np.bincount(target.campaign, rows.exposures * noise) / np.bincount(target.campaign, rows.exposures)
    return np.maximum(mean[target.campaign] / rows.exposures, 1e-12)


def _text_scores(training: TrainingSet, words: Words | None) -> tuple[Floats, Floats]:
    """Text score of each content of the set, held out (for fitting) and by the full model (for serving).

    A content that was never shown has the full model's in both.
    """
    contents = training.contents
    if words is None:
        return np.full(len(contents), np.nan), np.full(len(contents), np.nan)
    fitted, place = words
    texts = [text_of(content) for content in contents]
    unseen, seen = np.empty(len(contents)), np.empty(len(contents))
    other: list[int] = []
    for index, (content, text) in enumerate(zip(contents, texts, strict=True)):
        at, written = place.get((content.campaign_id, plain(text)), (None, ""))
        if at is not None:
            unseen[index] = fitted.out_of_fold[at]
        if at is not None and written == text:
            seen[index] = fitted.fitted[at]
        else:
            other.append(index)
    seen[other] = fitted.model.score([texts[index] for index in other], training.vectors)
    new = [index for index in other if (contents[index].campaign_id, plain(texts[index])) not in place]
    unseen[new] = seen[new]
    return unseen, seen


def _fit_trees(
    training: TrainingSet,
    rows: _Rows,
    target: _Target,
    table: Table,
    unseen: Floats,
    groups: Ints,
    settings: ModelSettings,
    plenty: int,
) -> tuple[str, Calibration]:
    """The trees that serve, as text, and their calibration on rows that the calibrated trees have not seen."""
    aim = Aim(target.deviation, target.precision / target.precision.mean(), target.campaign)
    folds, stages, categorical = deal(groups, FOLDS, settings.seed), stages_of(settings), table.schema.categorical
    if len(rows) < plenty:
        judged, fold = np.arange(len(rows)), folds
        matrix = table.rows(judged, unseen)
        trees = Trees(matrix, categorical, aim, settings)
        found = _out_of_fold(trees, matrix, folds, stages)
        rounds = _best_rounds(target, judged, found, stages)
        booster_text = trees.train(rounds)
    else:
        learned, judged = _parted(folds)
        trees = Trees(table.rows(learned, unseen), categorical, aim.of(learned), settings)
        booster_text = trees.train(stages[-1])
        found = staged(booster_text, table.rows(judged, unseen), stages)
        fold = deal(codes_of(groups[judged].tolist()), FOLDS, settings.seed)
        rounds = _best_rounds(target, judged, found, stages)
        booster_text = trim(lgb.Booster(model_str=booster_text).model_to_string(num_iteration=rounds))
    g = found[stages.index(rounds)]
    return booster_text, fit_calibration(_held_out(training, rows, target, judged, g, fold))


def _parted(folds: Ints) -> tuple[Ints, Ints]:
    """Rows to learn from and rows to judge by: the fold whose size is nearest to its share."""
    sizes = np.bincount(folds, minlength=FOLDS)
    kept = folds == np.argmin(np.abs(sizes - len(folds) / FOLDS))
    return np.flatnonzero(~kept), np.flatnonzero(kept)


def _out_of_fold(trees: Trees, matrix: Floats, folds: Ints, stages: Sequence[int]) -> Floats:
    """g of each row by trees that saw nothing of its fold, after each of the stages, shape (s, n)."""
    g = np.zeros((len(stages), len(folds)))
    for fold in np.unique(folds):
        inside = folds == fold
        if not inside.all():
            g[:, inside] = staged(trees.train(stages[-1], np.flatnonzero(~inside)), matrix[inside], stages)
    return g


def _centring(rows: _Rows, decided: int) -> tuple[Ints, Floats]:
    """Rows that campaigns are centred by, shape (k,), and how many each of them stands for.

    All of them; of plenty every past result, and in equal steps a tenth of each campaign's decisions, though not fewer
    than ``_CENTRED``. The noise of a centre is then small beside that of the campaign's own mean.
    """
    if len(rows) < PLENTY:
        return np.arange(len(rows)), np.ones(len(rows))
    campaign = rows.campaign[:decided]
    sizes, order = np.bincount(campaign, minlength=len(rows.names)), np.argsort(campaign, kind="stable")
    place = np.empty(decided, dtype=np.int64)
    place[order] = np.arange(decided) - (np.cumsum(sizes) - sizes)[campaign[order]]
    step = np.maximum(1, sizes // np.maximum(sizes // 10, _CENTRED))
    some = np.concatenate([np.flatnonzero(place % step[campaign] == 0), np.arange(decided, len(rows))])
    return some, np.where(some < decided, step[rows.campaign[some]], 1.0)


def _best_rounds(target: _Target, judged: Ints, stages: Floats, rounds: Sequence[int]) -> int:
    """The number of rounds with the least error on held-out rows; ``stages``: g after each number, shape (s, k)."""
    campaign, precision = target.campaign[judged], target.precision[judged]
    rests = (centred(target.deviation[judged] - g, campaign, precision) for g in stages)
    return rounds[int(np.argmin([precision @ rest**2 for rest in rests]))]


def _held_out(training: TrainingSet, rows: _Rows, target: _Target, judged: Ints, g: Floats, fold: Ints) -> HeldOut:
    """``judged``: indices of k rows with predictions g and folds, shape (k,) each."""
    return HeldOut(
        g=centred(g, target.campaign[judged], target.precision[judged]),
        d=target.deviation[judged],
        precision=target.precision[judged],
        sampling=_sampling(training, rows, target)[judged],
        exposures=rows.exposures[judged],
        mean=target.mean[judged],
        scale=target.scale[judged],
        fold=fold,
        content=rows.content[judged],
    )


def _g(booster: lgb.Booster, matrix: Floats) -> Floats:
    return start(matrix) + np.asarray(booster.predict(matrix, num_threads=1), dtype=np.float64)


def _golden(model: RewardModel, training: TrainingSet, rows: _Rows, matrix: Floats) -> GoldenRows:
    chosen = golden_matrix(model.booster, matrix, model.settings.seed)
    spaced = np.unique(np.linspace(0, len(rows.content) - 1, _EXAMPLES).astype(np.int64))
    contexts = [training.contexts[row] if row < len(training) else {} for row in spaced]
    contents = [training.contents[rows.content[row]] for row in spaced]
    scores = model.rows(contexts, contents, rows.position[spaced])
    return GoldenRows(
        rows=tuple(tuple(row) for row in chosen.tolist()),
        scores=tuple(model.relative(chosen).tolist()),
        examples=tuple(
            Example(context=dict(context), content=content, position=int(position), score=float(score))
            for context, content, position, score in zip(contexts, contents, rows.position[spaced], scores, strict=True)
        ),
    )


def _report(rows: _Rows, linked: Ints, words: Words | None) -> dict[str, float]:
    return {
        "rows": float(len(rows.content)),
        "exposures": float(rows.exposures.sum()),
        "contents": float(len(np.unique(rows.content))),
        "campaigns": float(len(rows.names)),
        "components": float(len(np.unique(linked))),
        "text_alpha": words[0].alpha if words else 0.0,
        "text_slope": words[0].slope if words else 0.0,
    }


def _distinct(contents: Sequence[Content]) -> tuple[list[Content], Ints]:
    """The distinct content objects and the place of each row among them."""
    of_row = codes_of([id(content) for content in contents])
    first: dict[int, Content] = {}
    for place, content in zip(of_row.tolist(), contents, strict=True):
        first.setdefault(place, content)
    return list(first.values()), of_row
