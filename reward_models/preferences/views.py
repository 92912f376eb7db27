"""What is seen of a text that competes with another: its length, its form, its factors, and how near it is to what was asked.

columns(texts) -> (k, f)                 of a text alone
NAMES                                    their names, in that order
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from reward_models.factors import NAMES as FACTORS
from reward_models.factors import measured

Floats = npt.NDArray[np.float64]

_READ = 2_000
"""Characters of a text whose factors are measured."""

_FORMS: dict[str, Callable[[str], float]] = {
    "log_characters": lambda text: float(np.log1p(len(text))),
    "log_words": lambda text: float(np.log1p(len(text.split()))),
    "lines": lambda text: float(np.log1p(text.count("\n"))),
    "bullets": lambda text: float(np.log1p(len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s", text, re.MULTILINE)))),
    "headings": lambda text: float(np.log1p(len(re.findall(r"^\s*#{1,6}\s", text, re.MULTILINE)))),
    "bold": lambda text: float(np.log1p(text.count("**") / 2)),
    "code": lambda text: float(np.log1p(text.count("`"))),
    "links": lambda text: float(np.log1p(len(re.findall(r"https?://", text)))),
    "digits": lambda text: sum(letter.isdigit() for letter in text) / max(1, len(text)),
    "commas": lambda text: text.count(",") / max(1, len(text.split())),
    "different_words": lambda text: len(set(text.lower().split())) / max(1, len(text.split())),
    "ends_whole": lambda text: float(text.rstrip()[-1:] in ".!?\"')”’"),
    "begins_upper": lambda text: float(text.lstrip()[:1].isupper()),
    "first_person": lambda text: float(np.log1p(len(re.findall(r"\b(?:I|me|my|I'm|I've)\b", text)))),
    "apology": lambda text: float(bool(re.search(r"\b(?:sorry|apologi[sz]e|unable to|I can(?:no|')t)\b", text, re.I))),
}

NAMES = (*_FORMS, *FACTORS)


def columns(texts: Sequence[str]) -> Floats:
    """Shape (k, f), f the length of ``NAMES``."""
    rows = [[*(form(text) for form in _FORMS.values()), *measured(text[:_READ])] for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(NAMES))
