"""Guardrails of copy: a content, its campaign's brief and the loop's rules in; verdicts with their reasons out. Pure.

    vet(rules, content, surroundings) -> (Verdict, …)      one per rule in force; all pass: the copy may be approved

- length: characters per slot. required, banned: words and phrases, whatever case, blanks and invisible signs.
- links: every address (``addresses.py``), with its scheme or without, leads to a listed host.
- facts: numbers, prices, percentages, dates and times are the brief's (``figures.py``).
- personal_data: addresses, telephone, card and account numbers, but for those that the brief gives.
- locale: the content names a locale of the list, its letters are of that locale's script, and its small words are not
  another language's.
- placeholders: whole, known, and none of the parent's lost.
- near_duplicate: nothing in the campaign says nearly the same (``near_duplicates.py``).

A rule looks at the text as a reader sees it (``figures.readable``): full-width letters and invisible signs hide nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from infra.errors import BadInput
from ingestion.copy.addresses import addresses, shown
from ingestion.copy.copy_rules import CopyRules
from ingestion.copy.figures import PLACEHOLDER, Figure, figures, readable, without_links
from ingestion.copy.near_duplicates import Known
from ingestion.events import Content
from ingestion.links import check_destination


class Verdict(msgspec.Struct, frozen=True):
    """What one rule says of a content. ``reason``: of a failure what was found and what to do; else empty."""

    rule: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What a content is looked at against."""

    brief: str = ""
    parent: Content | None = None
    others: Known = field(default_factory=Known)
    """Copy of the campaign that stands."""


def vet(rules: CopyRules, content: Content, around: Surroundings) -> tuple[Verdict, ...]:
    """A verdict per rule in force, in the order of the docstring above."""
    text = text_of(content)
    told = {name: check(rules, content, text, around) for name, in_force, check in _CHECKS if in_force(rules)}
    return tuple(Verdict(name, not reasons, "; ".join(reasons)) for name, reasons in told.items())


def passed(verdicts: Sequence[Verdict]) -> bool:
    """Whether no rule is broken."""
    return all(verdict.passed for verdict in verdicts)


def text_of(content: Content) -> str:
    """All slots as one text, in the order of their names."""
    return "\n".join(content.slots[slot] for slot in sorted(content.slots))


def _length(rules: CopyRules, content: Content, _text: str, _around: Surroundings) -> list[str]:
    sizes = {slot: len(content.slots.get(slot, "").strip()) for slot in rules.slots}
    return [
        f"{slot} has {sizes[slot]} characters; write {rule.least} to {rule.most}"
        for slot, rule in rules.slots.items()
        if not rule.least <= sizes[slot] <= rule.most
    ]


def _required(rules: CopyRules, _content: Content, text: str, _around: Surroundings) -> list[str]:
    return [f"{phrase!r} is missing; the loop requires it" for phrase in rules.required if not _holds(text, phrase)]


def _banned(rules: CopyRules, _content: Content, text: str, _around: Surroundings) -> list[str]:
    return [f"{phrase!r} is banned; take it out" for phrase in rules.banned if _holds(text, phrase)]


def _links(rules: CopyRules, _content: Content, text: str, _around: Surroundings) -> list[str]:
    found = dict.fromkeys(each.written for each in addresses(shown(PLACEHOLDER.sub("x", text))))
    return [f"the link {_short(link)} leads to no listed host" for link in found if not _is_listed(link, rules.links)]


def _facts(_rules: CopyRules, _content: Content, text: str, around: Surroundings) -> list[str]:
    given = figures(around.brief)
    months = {Figure("date", f"month {one.value.split('-')[1]}") for one in given if _is_day(one)}
    made_up = sorted(figures(text) - given - months)
    return [f"{', '.join(map(str, made_up))} is not in the brief; take it out or correct the brief"] if made_up else []


def _personal(_rules: CopyRules, _content: Content, text: str, around: Surroundings) -> list[str]:
    bare, given = readable(PLACEHOLDER.sub(" ", text)), readable(around.brief)
    kinds = [name for name, find in _PERSONAL.items() if any(found not in given for found in find(bare))]
    return [f"it holds {', '.join(kinds)}; take it out, or put it into the brief if it is yours"] if kinds else []


def _locale(rules: CopyRules, content: Content, text: str, _around: Surroundings) -> list[str]:
    locale, listed = content.locale, ", ".join(rules.locales)
    if locale is None:
        return [f"it names no locale; the loop takes {listed}"]
    if not any(locale.lower() == one.lower() or locale.lower().startswith(f"{one.lower()}-") for one in rules.locales):
        return [f"its locale is {locale}; the loop takes {listed}"]
    language, bare = locale.lower().split("-")[0], without_links(text)
    return [*_foreign_script(language, bare), *_foreign_words(language, bare)]


def _placeholders(rules: CopyRules, _content: Content, text: str, around: Surroundings) -> list[str]:
    own = PLACEHOLDER.findall(text)
    unknown = sorted(set(own) - set(rules.placeholders or ()))
    kept = PLACEHOLDER.findall(text_of(around.parent)) if around.parent else []
    lost = sorted((Counter(set(kept)) - Counter(set(own))).elements())
    broken = _BROKEN.search(PLACEHOLDER.sub("", text))
    known = ", ".join(rules.placeholders or ()) or "none"
    return [
        *([f"{{{{{unknown[0]}}}}} is no placeholder of the loop; it knows {known}"] if unknown else []),
        *([f"{_short(broken[0])!r} looks like a broken placeholder; write {{{{name}}}}"] if broken else []),
        *([f"{{{{{lost[0]}}}}} of its parent is lost"] if lost else []),
    ]


def _near_duplicate(rules: CopyRules, _content: Content, text: str, around: Surroundings) -> list[str]:
    nearest = around.others.nearest(text)
    if nearest is None or nearest[1] < (rules.most_similar or 1.0):
        return []
    return [f"it says nearly what content {nearest[0]} says (similarity {nearest[1]:.2f}); write it anew"]


_Check = Callable[[CopyRules, Content, str, Surroundings], list[str]]
_CHECKS: tuple[tuple[str, Callable[[CopyRules], bool], _Check], ...] = (
    ("length", lambda rules: bool(rules.slots), _length),
    ("required", lambda rules: bool(rules.required), _required),
    ("banned", lambda rules: bool(rules.banned), _banned),
    ("links", lambda rules: rules.links is not None, _links),
    ("facts", lambda rules: rules.facts == "brief", _facts),
    ("personal_data", lambda rules: not rules.personal_data, _personal),
    ("locale", lambda rules: bool(rules.locales), _locale),
    ("placeholders", lambda rules: rules.placeholders is not None, _placeholders),
    ("near_duplicate", lambda rules: rules.most_similar is not None, _near_duplicate),
)

_BROKEN = re.compile(
    r"[{}]{1,2}[^{}\s]*|\[\[?[A-Za-z][A-Za-z _]{1,30}\]|\*\|[^|\s]*|%%?[A-Za-z_]{3,30}%|<[A-Za-z_]{2,30}>"
)


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(readable(phrase))}(?!\w)", readable(text)) is not None


def _is_listed(link: str, hosts: Sequence[str] | None) -> bool:
    """Whether the address leads to a listed host, in the one form that every reader of addresses reads alike."""
    address = link if re.match(r"[a-z]+:", link, re.IGNORECASE) else f"https://{link}"
    try:
        check_destination(address, [host.lower() for host in hosts or ()])
    except BadInput:
        return False
    return True


def _is_day(figure: Figure) -> bool:
    return figure.kind == "date" and re.fullmatch(r"\d+-\d+", figure.value) is not None


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _addresses(text: str) -> Iterator[str]:
    yield from re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text)


def _telephones(text: str) -> Iterator[str]:
    for match in re.finditer(r"(?<![\w.])(?:\+|00)?\(?\d[\d ()/.-]{6,20}\d(?!\w)", text):
        digits = sum(sign.isdigit() for sign in match[0])
        if (match[0].startswith(("+", "00")) and digits >= 8) or 10 <= digits <= 12:
            yield match[0]


def _cards(text: str) -> Iterator[str]:
    for match in re.finditer(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)", text):
        if _luhn([int(sign) for sign in match[0] if sign.isdigit()]):
            yield match[0]


def _luhn(digits: Sequence[int]) -> bool:
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits[::-1])]
    return sum(doubled) % 10 == 0


def _accounts(text: str) -> Iterator[str]:
    """International account numbers: letters count from 10, and all of it is 1 modulo 97 (ISO 13616)."""
    for match in re.finditer(r"(?<!\w)[a-z]{2}\d{2}(?: ?[a-z0-9]{2,4}){3,8}(?!\w)", text):
        bare = match[0].replace(" ", "")
        if int("".join(str(int(sign, 36)) for sign in bare[4:] + bare[:4])) % 97 == 1:
            yield match[0]


_PERSONAL: dict[str, Callable[[str], Iterator[str]]] = {
    "an e-mail address": _addresses,
    "a telephone number": _telephones,
    "a card number": _cards,
    "an account number": _accounts,
}

_SCRIPTS = {
    **dict.fromkeys(("ru", "uk", "bg", "sr", "be", "mk"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "th": ("THAI",),
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
}
_LATIN = ("LATIN",)
_WORDS = {
    "en": "the and of to is your you with for this that are our what how",
    "de": "der die das und ist nicht mit für ein eine sie ihr ihre auf den dem zum zur jetzt",
    "fr": "le les des et est pas avec pour une vous votre vos dans sur du aux",
    "es": "el los las y es no con para una tu sus que del por",
    "it": "il gli che e è non con per una il tuo nostri della dei sono",
    "nl": "het een en is niet met voor je jouw van op de zijn onze",
}
"""Small words by which languages are told apart."""


def _foreign_script(language: str, text: str) -> list[str]:
    letters = [sign for sign in text if sign.isalpha()]
    scripts = _SCRIPTS.get(language, _LATIN)
    own = sum(unicodedata.name(sign, "").startswith(scripts) for sign in letters)
    return [] if 2 * own >= len(letters) else [f"its letters are not those of {language}"]


def _foreign_words(language: str, text: str) -> list[str]:
    if language not in _WORDS:
        return []
    found = Counter(re.findall(r"\w+", readable(text)))
    counts = {other: sum(found[word] for word in words.split()) for other, words in _WORDS.items()}
    other = max(counts, key=lambda name: counts[name])
    return [f"it reads like {other}, not {language}"] if counts[other] >= counts[language] + 3 else []
