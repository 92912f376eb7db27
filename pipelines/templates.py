"""Copy from templates: subject lines that vary in six known factors, without a language model and offline.

A factor is present or absent: a question, a number, urgency, the reader's name, a discount, length. The same seed
writes the same lines. The factors are registered with each content, as a generator's parameters would be; who has only the
line reads them back (``read_factors``). All but question and number may come several times: a line can be overdone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FACTORS = ("question", "number", "urgency", "personal", "discount", "long")

GENERATOR = "templates"

_URGENT = ("Last chance", "Only today", "Ends at midnight", "Final hours")
_IS_URGENT = re.compile("|".join(f"{phrase}: " for phrase in _URGENT))
_NAMED = ("{{first_name}}: ", "For you, {{first_name}}: ", "Hi {{first_name}}! ")
_ASKED = ("ready for {theme}?", "looking for {theme}?", "have you seen {theme}?", "who said {theme} can wait?")
_TOLD = ("{theme} is here", "meet {theme}", "discover {theme}", "{theme} has arrived")
_COUNTED = ("{n} picks from {theme}", "{n} reasons to love {theme}", "{theme} in {n} pieces")
_SAVED = ("save {n} %", "{n} % off", "{n} % less")
_LENGTHENED = (
    "chosen by our buyers for the weeks ahead",
    "made to last and sent to your door for free",
    "with everything you asked us for last year",
)


@dataclass(frozen=True)
class Draft:
    """One generated subject line and the factors it was written with."""

    subject: str
    factors: dict[str, bool]

    def content(self, content_id: str) -> dict[str, Any]:
        """The body that registers it as a content."""
        return {
            "id": content_id,
            "slots": {"subject": self.subject},
            "features": dict(self.factors),
            "generator": GENERATOR,
            "parameters": {"factors": [name for name in FACTORS if self.factors[name]]},
        }


def write_drafts(theme: str, count: int, seed: int) -> list[Draft]:
    """``count`` different lines about ``theme``, no two with the same factors while there are combinations left.

    Raises ``ValueError`` beyond the 64 combinations of factors.
    """
    combinations = 2 ** len(FACTORS)
    if not 0 < count <= combinations:
        raise ValueError(f"{count} drafts asked for; the templates write 1 to {combinations}")
    rng = np.random.default_rng(seed)
    picked = rng.choice(combinations, size=count, replace=False)
    factors = [{name: bool(number >> bit & 1) for bit, name in enumerate(FACTORS)} for number in picked]
    return [Draft(write_line(theme, present, rng), present) for present in factors]


def write_line(theme: str, times: Mapping[str, int], rng: np.random.Generator) -> str:
    """A line with each factor as many times as said."""
    line = _headline(theme, times, rng)
    for _ in range(times["discount"]):
        line = f"{line} – {_pick(_SAVED, rng, n=_pick(('10', '15', '20', '25'), rng))}"
    for _ in range(times["long"]):
        line = f"{line} · {_pick(_LENGTHENED, rng)}"
    for _ in range(times["urgency"]):
        line = f"{_pick(_URGENT, rng)}: {line}"
    return "".join(_pick(_NAMED, rng) for _ in range(times["personal"])) + line[0].upper() + line[1:]


def read_factors(line: str) -> dict[str, int]:
    """How many times each factor is in a line of these templates."""
    head = line.split(" – ")[0].split(" · ")[0]
    return {
        "question": int("?" in head),
        "number": int(any(letter.isdigit() for letter in head)),
        "urgency": len(_IS_URGENT.findall(line)),
        "personal": line.count("{{first_name}}"),
        "discount": line.count("%"),
        "long": line.count(" · "),
    }


def _headline(theme: str, factors: Mapping[str, int], rng: np.random.Generator) -> str:
    if not factors["number"]:
        return _pick(_ASKED if factors["question"] else _TOLD, rng, theme=theme)
    counted = _pick(_COUNTED, rng, theme=theme, n=_pick(("3", "5", "7", "12"), rng))
    return f"{counted}: which is yours?" if factors["question"] else counted


def _pick(options: tuple[str, ...], rng: np.random.Generator, **words: str) -> str:
    chosen = options[int(rng.integers(len(options)))]
    for name, word in words.items():
        chosen = chosen.replace("{" + name + "}", word)
    return chosen
