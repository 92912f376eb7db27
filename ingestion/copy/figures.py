"""Numbers, prices, percentages, dates and times of a text, each in one form, so that copy can be held against its brief.

    figures("Save 20 % until 24 December, from €49.90") -> {percent 20, date 24-12, price 49.9 EUR}

Steps: 1 links and placeholders are taken out (``addresses.py``), 2 number words become digits (``number_words.py``), 3 dates and times, 4 percentages, 5 prices, 6 what numbers are left. A separator before exactly
three digits divides thousands, another one decimals. Numbers inside words (``MP3``) are none. A month or a weekday alone is a
date too. Dates in digits with slashes are compared as they are written: nobody knows which number is the month.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Literal, NamedTuple

from ingestion.copy.addresses import shown, without_addresses
from ingestion.copy.number_words import in_digits, with_numerals

Kind = Literal["number", "percentage", "price", "date", "time"]

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}")


class Figure(NamedTuple):
    """``value`` is canonical: of equal figures the same."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


_NUMBER = r"(?<![\w.,])\d{1,3}(?:[.,'’ ]\d{3})+(?!\d)(?:[.,]\d+)?|(?<![\w])\d+(?:[.,]\d+)?"
_MONTHS = (
    "jan(?:uary|uar)?|jänner",
    "feb(?:ruary|ruar)?",
    "mar(?:ch)?|märz",
    "apr(?:il)?",
    "may(?= \\d|$)|(?<=\\d )may|(?<=\\d\\. )mai|mai(?= \\d)",
    "june?|juni",
    "july?|juli",
    "aug(?:ust)?",
    "sept?(?:ember)?",
    "o[ck]t(?:ober)?",
    "nov(?:ember)?",
    "de[cz](?:ember)?",
)
_DAYS = (
    "monday|montag",
    "tuesday|dienstag",
    "wednesday|mittwoch",
    "thursday|donnerstag",
    "friday|freitag",
    "saturday|samstag|sonnabend",
    "sunday|sonntag",
    "tomorrow|morgen(?= (?:ist|endet|nur|noch))|übermorgen",
)
_MONTH = "|".join(f"(?P<m{n}>{names})" for n, names in enumerate(_MONTHS, 1))
_DATES = re.compile(
    r"(?<!\w)(?P<iso>\d{4}-\d{2}-\d{2})(?!\d)"
    r"|(?<!\w)(?P<dots>\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2})?)(?!\d)"
    r"|(?<!\w)(?P<slashes>\d{1,2}/\d{1,2}(?:/\d{2,4})?)(?![\d/])"
    rf"|(?<!\w)(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)? (?:of )?)?(?<!\w)(?:{_MONTH})\.?(?!\w)(?: (?P<after>\d{{1,2}})(?:st|nd|rd|th)?(?![\d:%]))?"
    r"(?:,? (?P<year>(?:19|20)\d\d)(?!\d))?"
)
_WEEKDAYS = re.compile("|".join(f"(?P<d{n}>(?<!\\w)(?:{names})(?!\\w))" for n, names in enumerate(_DAYS, 1)))
_TIMES = re.compile(
    r"(?<!\w)(?P<h>\d{1,2})[:.](?P<min>\d{2})(?: ?(?P<half>[ap])\.?m\b\.?| uhr\b)|(?<!\w)(?P<clock>\d{1,2}:\d{2})(?!\d)"
)
_PERCENT = re.compile(rf"({_NUMBER}) ?(?:%|percent\b|per cent\b|pct\b|prozent\b|pour cent\b|por ciento\b)")
_CURRENCIES = {
    "€": "EUR",
    "$": "USD",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "zł": "PLN",
    "euro": "EUR",
    "euros": "EUR",
    "dollar": "USD",
    "dollars": "USD",
    "pound": "GBP",
    "pounds": "GBP",
    **{
        code.lower(): code
        for code in ("EUR", "USD", "GBP", "JPY", "CHF", "INR", "PLN", "SEK", "NOK", "DKK", "CAD", "AUD")
    },
}
_MONEY = "|".join(re.escape(word) for word in sorted(_CURRENCIES, key=len, reverse=True))
_PRICE = re.compile(
    rf"(?<![a-z])(?P<before>{_MONEY}) ?(?P<first>{_NUMBER})"
    rf"|(?P<second>{_NUMBER}) ?(?P<behind>{_MONEY})(?![a-z])"
)
_PLAIN = re.compile(rf"({_NUMBER})(k|m)?")


def figures(text: str) -> set[Figure]:
    """All figures of a text."""
    left = in_digits(readable(without_links(with_numerals(text))))
    found: set[Figure] = set()
    for pattern, read in _READERS:
        found.update(figure for match in pattern.finditer(left) for figure in read(match))
        left = pattern.sub(" ; ", left)
    return found


def without_links(text: str) -> str:
    """The text as it is shown, less its addresses and placeholders."""
    return without_addresses(PLACEHOLDER.sub(" ", text))


def readable(text: str) -> str:
    """A text as the eye reads it: one form of each sign, no invisible signs, small letters, single blanks, plain digits."""
    plain = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in shown(text))
    return " ".join(plain.lower().split())


def _value(written: str) -> str:
    """The number in one form: ``1,000.50`` and ``1.000,5`` are ``1000.5``."""
    bare = re.sub(r"['’ ]", "", written)
    marks = [sign for sign in bare if sign in ".,"]
    decimal = ""
    if marks and not (len(bare) - bare.rfind(marks[-1]) == 4 and len(set(marks)) == 1):
        decimal = marks[-1] if marks.count(marks[-1]) == 1 else ""
    whole, _, part = bare.partition(decimal) if decimal else (bare, "", "")
    number = Decimal(re.sub(r"[.,]", "", whole) + (f".{part}" if part else ""))
    return f"{number.normalize():f}"


def _date(match: re.Match[str]) -> Iterator[Figure]:
    month = next((n for n in range(1, 13) if match[f"m{n}"]), None)
    if match["iso"]:
        year, number, day = map(int, match["iso"].split("-"))
        yield from (Figure("date", f"{day}-{number}"), Figure("date", f"year {year}"))
    elif match["dots"]:
        day, number, *rest = [int(part) for part in match["dots"].split(".") if part]
        yield Figure("date", f"{day}-{number}")
        yield from (Figure("date", f"year {year if year > 99 else 2000 + year}") for year in rest)
    elif match["slashes"]:
        yield Figure("date", match["slashes"])
    elif month is not None:
        day_of = match["day"] or match["after"]
        yield Figure("date", f"{int(day_of)}-{month}" if day_of else f"month {month}")
        if match["year"]:
            yield Figure("date", f"year {match['year']}")


def _weekday(match: re.Match[str]) -> Iterator[Figure]:
    number = next(n for n in range(1, len(_DAYS) + 1) if match[f"d{n}"])
    yield Figure("date", _DAYS[number - 1].split("|")[0])


def _time(match: re.Match[str]) -> Iterator[Figure]:
    hour, minute = match["clock"].split(":") if match["clock"] else (match["h"], match["min"])
    late = 12 if match["half"] == "p" and int(hour) < 12 else 0
    yield Figure("time", f"{int(hour) + late}:{minute}")


def _price(match: re.Match[str]) -> Iterator[Figure]:
    currency = _CURRENCIES[match["before"] or match["behind"]]
    yield Figure("price", f"{_value(match['first'] or match['second'])} {currency}")


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Iterator[Figure]]], ...] = (
    (_PERCENT, lambda match: iter([Figure("percentage", _value(match[1]))])),
    (_PRICE, _price),
    (_TIMES, _time),
    (_DATES, _date),
    (_WEEKDAYS, _weekday),
    (_PLAIN, lambda match: iter([Figure("number", _value(match[1]) + (match[2] or ""))])),
)
