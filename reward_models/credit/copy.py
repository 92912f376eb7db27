"""Which slot, word and copy factor earned it: a prediction as a sum over parts of the copy, exact to the last digit.

    expected = the campaign's + Σ context + Σ features + Σ factors (by slot) + Σ words + the wording as a whole

The parts are those of ``contributions.py``, kept apart by slot and put back on the words (``words.py``); with several
contexts each part is the mean over them, and so is what is expected.

    campaign   what the campaign earns before its copy
    word       terms of the text score, at their place in a slot
    wording    what the trees make of the text score, embeddings, marks: of all words together
    factor     what the trees make of a factor in a slot; its weight in the text score, which reads all slots as one,
               is the slot's where there is only one
    feature    known of the content              context    known of the customer or the moment

    credit_copy(model, contents, contexts) -> CopyCredit each       earned(credited, exposures) -> what earned how much

A part says what the model makes of the words, not what would happen without them: that is for a test to tell.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ingestion.events import Content
from reward_models.boosted import RewardModel
from reward_models.credit.words import by_words, runs
from reward_models.explanation import told_as, tree_parts
from reward_models.factors import NAMES
from reward_models.features import POSITION, TEXT_SCORE, text_of

Kind = Literal["campaign", "word", "wording", "factor", "feature", "context"]

WHOLE = "the wording as a whole"
NO_CONTEXT: tuple[Mapping[str, Any], ...] = ({},)
"""A customer of whom nothing is known."""


class Part(NamedTuple):
    """Something in a copy, and what it adds to the expected reward, reward units.

    ``slot``: null for what is in no slot alone; ``start`` and ``end``: its characters there, of words and phrases.
    """

    what: str
    kind: Kind
    slot: str | None
    effect: float
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class CopyCredit:
    """The parts of one content's expected reward, which sum to it."""

    content: Content
    expected: float
    parts: tuple[Part, ...]

    def words(self, slot: str) -> list[Part]:
        """The words of a slot, in order."""
        return [part for part in self.parts if part.kind == "word" and part.slot == slot]

    def phrases(self, slot: str) -> list[Part]:
        """Neighbouring words of one sign as one part each, in order: the same sum as the words."""
        words, text = self.words(slot), self.content.slots[slot]
        return [_phrase(words[run], text) for run in runs([word.effect for word in words])]

    def by_slot(self) -> dict[str, float]:
        """What each slot adds: its words and its factors."""
        found = dict.fromkeys(sorted(self.content.slots), 0.0)
        for part in self.parts:
            if part.slot is not None:
                found[part.slot] += part.effect
        return found

    def of(self, *kinds: Kind) -> list[Part]:
        """The parts of these kinds, strongest first."""
        found = [part for part in self.parts if part.kind in kinds]
        return sorted(found, key=lambda part: (-abs(part.effect), part.what, part.slot or ""))


class Earned(NamedTuple):
    """What one factor or word earned in many contents. ``per_send``: mean effect where it is; ``total``: over all sends."""

    what: str
    kind: Kind
    slot: str | None
    contents: int
    sends: float
    per_send: float
    total: float


def credit_copy(
    model: RewardModel, contents: Sequence[Content], contexts: Sequence[Mapping[str, Any]] = NO_CONTEXT
) -> list[CopyCredit]:
    """The credit of each content, averaged over the contexts, at position 1."""
    encoded = model.encode(contents)
    parts = np.mean([tree_parts(model, context, encoded) for context in contexts], axis=0)
    found = []
    for row, content in enumerate(contents):
        usual, scale = float(encoded.mean[row]), float(encoded.scale[row])
        usual += scale * float(parts[row, -1])
        raw = [Part(f"campaign {content.campaign_id}", "campaign", None, usual)]
        raw += _scaled(_of_trees(model, content, parts[row, :-1].tolist()), scale)
        raw += _scaled(_of_text(model, content, float(np.nan_to_num(encoded.rows[row, -1]))), scale)
        merged = tuple(_merged(raw))
        found.append(CopyCredit(content, float(sum(part.effect for part in merged)), merged))
    return found


def earned(credited: Sequence[CopyCredit], exposures: Sequence[float]) -> list[Earned]:
    """What factors and words earned over the sends of each content, the largest totals first."""
    found: dict[tuple[str, Kind, str | None], list[tuple[float, float]]] = defaultdict(list)
    for credit, sends in zip(credited, exposures, strict=True):
        here: dict[tuple[str, Kind, str | None], float] = defaultdict(float)
        for part in credit.parts:
            if part.kind in ("word", "factor", "feature"):
                here[_plain(part), part.kind, part.slot] += part.effect
        for key, effect in here.items():
            found[key].append((sends, effect))
    rows = [_earned(key, pairs) for key, pairs in found.items()]
    return sorted(rows, key=lambda row: (-abs(row.total), row.what, row.slot or ""))


def _earned(key: tuple[str, Kind, str | None], pairs: Sequence[tuple[float, float]]) -> Earned:
    sends = sum(count for count, _ in pairs)
    total = sum(count * effect for count, effect in pairs)
    mean = total / sends if sends else sum(effect for _, effect in pairs) / len(pairs)
    return Earned(*key, len(pairs), sends, mean, total)


def _plain(part: Part) -> str:
    return part.what.lower().strip(".,;:!?…\"“”'") or part.what if part.kind == "word" else part.what


def _of_trees(model: RewardModel, content: Content, effects: Sequence[float]) -> Iterator[Part]:
    """The columns' parts of the trees' sum."""
    for name, effect in zip(model.schema.names, effects, strict=True):
        if effect:
            yield _of_column(name, effect, content)


def _of_column(name: str, effect: float, content: Content) -> Part:
    if name == TEXT_SCORE:
        return Part(WHOLE, "wording", None, effect)
    if name == POSITION or name.startswith("context."):
        return Part(name.removeprefix("context."), "context", None, effect)
    slot, _, factor = name.rpartition(".")
    if not slot or slot == "content":
        return Part(told_as(name, content), "feature", None, effect)
    if slot in content.slots:
        return Part(told_as(factor, _alone(content, slot)), "factor", slot, effect)
    return Part(f"no {slot}", "factor", None, effect)


def _of_text(model: RewardModel, content: Content, score: float) -> Iterator[Part]:
    """The text score by factor and by word; what neither holds is the wording as a whole."""
    text = text_of(content)
    if model.text is None or not text.strip():
        return
    left, only = score, next(iter(content.slots)) if len(content.slots) == 1 else None
    for name, effect in zip(NAMES, model.text.by_factors([text])[0].tolist(), strict=True):
        left -= effect
        if effect:
            yield Part(told_as(name, content), "factor", only, effect)
    words, _ = by_words(model.text, text)
    for word in words:
        left -= word.effect
        yield _placed(content, word.start, word.end, word.effect)
    yield Part(WHOLE, "wording", None, left)


def _placed(content: Content, start: int, end: int, effect: float) -> Part:
    """A word of the whole text in its slot: slots stand one below the other, in the order of their names."""
    for slot in sorted(content.slots):
        size = len(content.slots[slot])
        if start < size:
            return Part(content.slots[slot][start:end], "word", slot, effect, start, end)
        start, end = start - size - 1, end - size - 1
    raise ValueError("a word lies outside its text")


def _alone(content: Content, slot: str) -> Content:
    """The content with this slot only, so that a factor is told of what it measured."""
    return Content(content_id=content.content_id, campaign_id=content.campaign_id, slots={slot: content.slots[slot]})


def _scaled(parts: Iterator[Part], scale: float) -> list[Part]:
    return [part._replace(effect=scale * part.effect) for part in parts]


def _merged(parts: Sequence[Part]) -> Iterator[Part]:
    """One part for each thing: a factor counts in the trees and in the text score."""
    together: dict[Part, float] = defaultdict(float)
    for part in parts:
        together[part._replace(effect=0.0)] += part.effect
    for part, effect in together.items():
        yield part._replace(effect=effect)


def _phrase(words: Sequence[Part], text: str) -> Part:
    first, last = words[0], words[-1]
    return first._replace(what=text[first.start : last.end], effect=sum(word.effect for word in words), end=last.end)
