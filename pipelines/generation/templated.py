"""Copy from templates that learns from examples, offline: it stands in for a language model in the demo and in tests.

A line is drawn factor by factor (``templates.py``). The prompt's strategy makes one factor likely; examples move each
factor's odds as a model that is shown winners and losers would be moved, by what they have in common:

    log odds = strategy + LEARNS · (share of the winners with the factor − share of the losers with it)

It reads the examples as anybody could: from their text.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.generation.generators import Draft, Order, Written
from pipelines.templates import FACTORS, GENERATOR, read_factors, write_line

LEADS: Mapping[str, str] = {
    "ask": "question",
    "count": "number",
    "hurry": "urgency",
    "name": "personal",
    "save": "discount",
    "explain": "long",
}
"""The factor that a strategy asks for."""
LEARNS = 3.0
_LED = 2.0
_THEME = re.compile(r"\b(?:for|about|of) ((?:the|our|your|a|an) [^.,;:!?\n]{3,60})", re.IGNORECASE)


class TemplateGenerator:
    """Subject lines; other slots are left out. ``overdone``: share of lines in which what is repeatable is repeated."""

    name = GENERATOR

    def __init__(self, overdone: float = 0.0) -> None:
        self._overdone = overdone

    def write(self, orders: Sequence[Order]) -> Written:
        """All of it, at no cost."""
        return Written(drafts=tuple(draft for order in orders for draft in self._drafts(order)))

    def _drafts(self, order: Order) -> list[Draft]:
        rng = np.random.default_rng(order.seed)
        odds, theme = odds_of(order), theme_of(order.brief)
        return [
            Draft(
                slots={order.slots[0]: write_line(theme, self._times(odds, rng), rng)},
                prompt=order.prompt,
                generator=self.name,
                model=self.name,
                seed=order.seed,
                locale=order.locale,
            )
            for _ in range(order.count)
        ]

    def _times(self, odds: Mapping[str, float], rng: np.random.Generator) -> dict[str, int]:
        times = {name: int(rng.random() < chance) for name, chance in odds.items()}
        if rng.random() < self._overdone:
            often = {name: int(rng.integers(2, 4)) for name in ("urgency", "personal", "discount", "long")}
            times = {name: count * often.get(name, 1) for name, count in times.items()}
        return times


def odds_of(order: Order) -> dict[str, float]:
    """Probability of each factor under an order."""
    led = LEADS.get(order.prompt.strategy)
    won, lost = _shares(order.winners), _shares(order.losers)
    log_odds = {
        name: _LED * (name == led) + LEARNS * ((won[name] if won else 0.5) - (lost[name] if lost else 0.5))
        for name in FACTORS
    }
    return {name: 1.0 / (1.0 + math.exp(-value)) for name, value in log_odds.items()}


def theme_of(brief: str) -> str:
    """What a brief is about, as its first noun with an article after "for", "about" or "of"; else "our news"."""
    found = _THEME.search(brief)
    return found[1].lower() if found else "our news"


def _shares(lines: Sequence[str]) -> dict[str, float]:
    """Share of the lines with each factor; nothing without lines."""
    read = [read_factors(line) for line in lines]
    return {name: sum(one[name] > 0 for one in read) / len(read) for name in FACTORS} if read else {}
