"""A prediction as a sum in words: lines that a marketer knows, which add up to it exactly.

    expected = m + s·(a + b·(text score + Σ trees − o))          (``boosted.py``; m, s, o: the campaign's, a, b: calibration)

    Σ trees    = e + Σ_columns φ        path-dependent SHAP values: exact, and local (Lundberg et al. 2020)
    text score = Σ terms + Σ factors + embedding

1. campaign: m + s·(a + b·(e − o)), what average copy earns in it in an average context
2. copy factors: their weight in the text score, and the φ of their columns in all slots
3. features of the content, and of the context: the φ of their columns
4. wording: terms and embedding of the text score, and the φ of the text score as a whole
5. all but the ``most`` strongest lines of 2, 3 and 4 are one line, the rest

    contributions(model, context, contents) -> for each content its lines, each times s·b

SHAP values cost as much per content as predicting a hundred: 2 ms for 300 trees of 31 leaves, 0.1 s for fifty contents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ingestion.events import NO_SEND, Content
from reward_models.boosted import RewardModel
from reward_models.explanation import Floats, owner_of, told_as, tree_parts
from reward_models.factors import NAMES
from reward_models.features import POSITION, TEXT_SCORE, sends_nothing, text_of

Kind = Literal["campaign", "factor", "feature", "wording", "context", "rest", "observed"]
"""campaign: average copy in the campaign; factor: something in the text; feature: something known of the content;
wording: the words themselves; context: something known of the customer or the moment; rest: many small ones together;
observed: what was seen since the model was trained."""

MOST = 12
"""Most lines between the campaign and the rest."""

_WORDING = "wording"


class Line(NamedTuple):
    """One reason, and what it adds to the expected reward, reward units."""

    what: str
    kind: Kind
    effect: float


def contributions(
    model: RewardModel, context: Mapping[str, Any], contents: Sequence[Content], most: int = MOST
) -> list[list[Line]]:
    """For each content the lines of its expected reward in this context at position 1, which they add up to."""
    encoded = model.encode(contents)
    parts = tree_parts(model, context, encoded)
    owners = [_owner(name) for name in model.schema.names]
    words = _text_parts(model, contents, np.nan_to_num(encoded.rows[:, -1]))
    found = []
    for row, (content, text) in enumerate(zip(contents, words, strict=True)):
        effects = dict(text)
        for owner, part in zip(owners, parts[row, :-1].tolist(), strict=True):
            effects[owner] = effects.get(owner, 0.0) + part
        scale = float(encoded.scale[row])
        lines = [_line(owner, scale * effect, content, context) for owner, effect in effects.items() if effect]
        usual = float(encoded.mean[row]) + scale * float(parts[row, -1])
        found.append([Line(_usual(model, content), "campaign", usual), *strongest(lines, most)])
    return found


def strongest(lines: Iterable[Line], most: int) -> list[Line]:
    """The strongest lines first; what is beyond ``most`` as one line, so that the sum stays."""
    ordered = sorted(lines, key=lambda line: (-abs(line.effect), line.what))
    rest = ordered[most:]
    more = [Line("everything else", "rest", float(sum(line.effect for line in rest)))] if rest else []
    return ordered[:most] + more


def _text_parts(model: RewardModel, contents: Sequence[Content], scores: Floats) -> list[dict[str, float]]:
    """Of each content's text score what its factors make of it; wording is what they leave."""
    texts = [text_of(content) for content in contents]
    if model.text is None or not any(text.strip() for text in texts):
        return [{} for _ in contents]
    told = model.text.by_factors(texts)
    told[[not text.strip() for text in texts]] = 0.0
    left = scores - told.sum(axis=1)
    return [
        {**dict(zip(NAMES, row, strict=True)), _WORDING: rest}
        for row, rest in zip(told.tolist(), left.tolist(), strict=True)
    ]


def _owner(column: str) -> str:
    """What a column belongs to: a copy factor, whatever its slot, a feature, or the wording."""
    return _WORDING if column == TEXT_SCORE else owner_of(column) or column


def _line(owner: str, effect: float, content: Content, context: Mapping[str, Any]) -> Line:
    if owner == _WORDING:
        return Line("the wording", "wording", effect)
    if owner == POSITION:
        return Line("shown first", "context", effect)
    if owner == NO_SEND:
        return Line("sends nothing" if sends_nothing(content) else "sends something", "feature", effect)
    if owner.startswith("context."):
        name = owner.removeprefix("context.")
        value = context.get(name)
        return Line(f"{name}: {'unknown' if value is None else value}", "context", effect)
    return Line(told_as(owner, content), "feature" if owner.startswith("content.") else "factor", effect)


def _usual(model: RewardModel, content: Content) -> str:
    known = content.campaign_id in model.levels.campaigns
    return f"average copy in {content.campaign_id}" if known else "average copy in this loop"
