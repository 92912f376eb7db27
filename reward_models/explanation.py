"""A score in words: what moves the expected reward of a text, against a text of average factors.

Effects are shares of the campaign's level (+0.04: 4 % more reward than without), from three parts of the model:

    factor    weight · (value − mean) in the text model, plus what the trees make of it in any slot
    feature   what the trees make of a content's own feature
    word      what the text's terms lose when the word is left out everywhere

The trees' parts are SHAP values (Lundberg et al. 2020, as LightGBM computes them) in an unknown context. Words overlap
with their neighbours in terms of several words, so their effects do not add up exactly; those of factors do.

    reasons(model, contents) -> for each content its reasons, strongest first
    sentence(reasons) -> "question +3.1 %; “secret” +2.4 %; no number −1.0 %"
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingestion.events import Content
from reward_models.boosted import Encoded, RewardModel
from reward_models.factors import FACTORS, NAMES
from reward_models.features import POSITION, TEXT_SCORE, assemble, context_rows, text_of
from reward_models.text import TextModel

Floats = npt.NDArray[np.float64]

MOST = 5
"""Most reasons that are told."""
LEAST = 0.005
"""A smaller effect is no reason."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True)
class Reason:
    """What it is, and its effect as a share of the campaign's level."""

    what: str
    effect: float


def reasons(model: RewardModel, contents: Sequence[Content]) -> list[tuple[Reason, ...]]:
    """The reasons for each content's score, strongest first, at most ``MOST``."""
    by_trees = _by_trees(model, contents)
    found = []
    for content, effects in zip(contents, by_trees, strict=True):
        text = text_of(content)
        words: dict[str, float] = {}
        if model.text is not None and text.strip():
            for name, effect in zip(NAMES, model.text.by_factors([text])[0].tolist(), strict=True):
                effects[name] = effects.get(name, 0.0) + effect
            words = _by_words(model.text, text)
        told = {told_as(name, content): effect for name, effect in effects.items()} | words
        found.append(_strongest(told, model.calibration.slope))
    return found


def sentence(found: Sequence[Reason]) -> str:
    """The reasons as one line; empty when nothing stands out."""
    return "; ".join(f"{reason.what} {reason.effect:+.1%}".replace("%", " %").replace("-", "−") for reason in found)


def tree_parts(model: RewardModel, context: Mapping[str, Any], encoded: Encoded) -> Floats:
    """What each column makes of the trees' sum, and what they make of an average row, last: shape (k, columns + 1)."""
    rows = assemble(context_rows(model.schema, [context], [1])[0], encoded.rows)
    return np.asarray(model.booster.predict(rows, pred_contrib=True, num_threads=1), dtype=np.float64)


def _by_trees(model: RewardModel, contents: Sequence[Content]) -> list[dict[str, float]]:
    """Effect by factor or feature, summed over slots."""
    parts = tree_parts(model, {}, model.encode(contents))
    found: list[dict[str, float]] = [{} for _ in contents]
    for place, name in enumerate(model.schema.names):
        owner = owner_of(name)
        for effects, part in zip(found, parts[:, place].tolist(), strict=True):
            if owner is not None:
                effects[owner] = effects.get(owner, 0.0) + part
    return found


def owner_of(column: str) -> str | None:
    """The factor or feature that a column belongs to; None for context, position and the text score."""
    if column.startswith("context.") or column in (POSITION, TEXT_SCORE):
        return None
    if column.startswith("content."):
        return column
    return column.rsplit(".", 1)[-1]


def _by_words(model: TextModel, text: str) -> dict[str, float]:
    """Effect of each distinct word, in quotes."""
    written: dict[str, str] = {}
    for word in _WORD.findall(text):
        written.setdefault(word.lower(), word)
    if not written:
        return {}
    without = [re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", text, flags=re.I) for word in written.values()]
    whole, *rest = model.by_terms([text, *without]).tolist()
    return {f"“{word}”": whole - left for word, left in zip(written.values(), rest, strict=True)}


def told_as(name: str, content: Content) -> str:
    """A factor or feature with its value, as a person would say it."""
    if name.startswith("content."):
        feature = name.removeprefix("content.")
        return f"{feature}: {_value(content.features.get(feature))}"
    plain = name.replace("_", " ")
    if name not in FACTORS:
        return plain
    value = FACTORS[name](text_of(content))
    if name in _MEASURES:
        return f"{plain} {value:.2g}" if abs(value) < 1 else f"{plain} {value:.0f}"
    return plain if value else f"no {plain}"


_MEASURES = {"characters", "words", "word_length", "sentences", "reading_ease", "upper_share", "sentiment"}
"""Factors whose value says more than that they are there."""


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _strongest(effects: dict[str, float], slope: float) -> tuple[Reason, ...]:
    scaled = (Reason(what, slope * effect) for what, effect in effects.items())
    told = [reason for reason in scaled if abs(reason.effect) >= LEAST]
    return tuple(sorted(told, key=lambda reason: (-abs(reason.effect), reason.what))[:MOST])
